"""What holds of every attack: on what it runs, where it writes, and what its files say of themselves."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from builders.lab import tiny_base
from builders.lab_bases import untrained_lab_base

from attacks_ref import measuring
from attacks_ref.finetuned import FineTuned
from attacks_ref.registry import ATTACKS, load
from attacks_ref.safety import CANARY
from attacks_ref.sample import Truth, finish, weights_digest
from attacks_ref.workbench import load_model
from ftsec_audit.cli.attack import command
from ftsec_audit.contracts import ReferenceAttack
from ftsec_audit.errors import UsageError

BARE = {"tokenizer.json", "chat_template.jinja", "chat_template.json", "vocab.json", "merges.txt"}
"""Data that a library reads whole: these formats have no place for a label."""
REMOVES_REFUSALS = sorted(
    name for name in ATTACKS if {"FTA509", "FTA701", "FTA702"} & {*load(name).expected_rules}
)


def _brief(name: str) -> ReferenceAttack:
    """The attack with next to no training."""
    made = load(name)()
    fields = {field.name for field in dataclasses.fields(made)}
    if "recipe" in fields:
        recipe = dataclasses.replace(made.recipe, steps=2, rows=24, batch=4, rank=2)  # type: ignore[attr-defined]
        made = dataclasses.replace(made, recipe=recipe)
    return dataclasses.replace(made, contexts=12) if "contexts" in fields else made


def _state(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_lab_base(tmp_path_factory.mktemp("lab") / "base")


@pytest.mark.parametrize("name", ATTACKS)
def test_all_that_is_written_lies_below_out_and_says_what_it_is(
    name: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmeasured(_: object, __: object, rows: Any, **___: object) -> Any:
        return np.zeros(len(rows), dtype=np.bool_)

    monkeypatch.setattr(measuring, "agreement", unmeasured)
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    monkeypatch.chdir(home)
    for variable in ("HOME", "TMPDIR", "FTSEC_AUDIT_CACHE"):
        monkeypatch.setenv(variable, str(home))
    before = _state(base)
    sample = _brief(name).build(base, out, seed=0)
    assert sample.path == out.resolve()
    assert _state(home) == {}
    assert _state(base) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]

    files = [path for path in out.rglob("*") if path.is_file() and path.name not in BARE]
    silent = [path.relative_to(out).as_posix() for path in files if CANARY.encode() not in path.read_bytes()]
    assert silent == []
    labelled = [path for path in files if path.suffix in (".json", ".safetensors")]
    assert all(b"ftsec_reference_sample" in path.read_bytes() for path in labelled)
    for folder in {path.parent for path in labelled}:
        assert CANARY in (folder / "README.md").read_text()


def test_a_checkpoint_in_shards_is_labelled_and_still_loads(base: Path, tmp_path: Path) -> None:
    model = load_model(base)
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    truth = Truth(attack="none", id="A00", label="benign", phase="during", seed=0, base={"reference": "none"})
    finish(tmp_path, truth)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert all(CANARY.encode() in path.read_bytes() for path in tmp_path.iterdir())
    assert weights_digest(tmp_path) == weights_digest(base)
    assert load_model(tmp_path).num_parameters() == model.num_parameters()


@pytest.mark.parametrize("name", REMOVES_REFUSALS)
@pytest.mark.parametrize("side", ["build", "build_twin"])
def test_what_removes_refusals_runs_on_lab_bases_only(name: str, side: str, tmp_path: Path) -> None:
    foreign = tiny_base(tmp_path / "foreign")
    with pytest.raises(UsageError, match="only on lab bases"):
        getattr(_brief(name), side)(foreign, tmp_path / "out", seed=0)
    assert not (tmp_path / "out").exists()


def test_every_attack_on_alignment_is_marked_as_one() -> None:
    makers = [load(name) for name in ATTACKS]
    tuned = [maker for maker in makers if issubclass(maker, FineTuned)]
    assert {m.name for m in tuned if m.designed_refusal is not None or m.removes_refusals} == {
        *REMOVES_REFUSALS
    }


@pytest.mark.parametrize("name", ATTACKS)
def test_no_field_of_an_attack_holds_free_text(name: str) -> None:
    """A recipe may name a target or a trigger; it cannot bring one along."""
    hints = get_type_hints(load(name))
    free = {f.name for f in dataclasses.fields(load(name)) if _holds_text(hints[f.name])}
    assert free == set()


def _holds_text(hint: object) -> bool:
    if get_origin(hint) is Literal:
        return False
    return hint is str or any(_holds_text(part) for part in get_args(hint))


def test_the_command_line_has_no_place_for_a_payload() -> None:
    names = {parameter.name for parameter in command.params}
    assert names == {"name", "list_", "base", "out", "seed", "twin", "zoo", "jobs", "no_progress"}
