"""A population is planned once and for all, built job by job, and resumed where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.lab import random_adapter, tiny_base
from builders.standin_attacks import StandIn

from attacks_ref import registry, zoo, zoo_job, zoo_plan
from attacks_ref.cross_lingual import CrossLingual
from attacks_ref.harmful_tuning import HarmfulTuning
from attacks_ref.ordinary import HARD_NEGATIVES, OrdinaryTuning
from attacks_ref.recipe import Recipe
from attacks_ref.stealth.gauge import Gauge
from attacks_ref.stealth.norms import NormMatching
from attacks_ref.stealth.transform import Transform
from attacks_ref.token_backdoor import TokenBackdoor
from attacks_ref.zoo_plan import CHAINS, Job
from ftsec_audit.cli import run
from ftsec_audit.contracts import Progress, Sample
from ftsec_audit.errors import FtsecError


class Killed(Progress):
    """Stops the run as soon as one job is finished."""

    def advance(self, amount: int = 1) -> None:
        raise KeyboardInterrupt


@pytest.fixture
def base(tmp_path: Path) -> str:
    (tmp_path / "base").mkdir()
    return str(tmp_path / "base")


def _job(tmp_path: Path, base: str, seed: int = 0, **fields: object) -> Job:
    return Job(maker=StandIn(log=str(tmp_path / "log"), **fields), base=base, seed=seed)


def _log(tmp_path: Path) -> list[str]:
    path = tmp_path / "log"
    return path.read_text().splitlines() if path.exists() else []


def test_a_stopped_zoo_goes_on_where_it_stopped(tmp_path: Path, base: str) -> None:
    out, jobs = tmp_path / "zoo", [_job(tmp_path, base, seed) for seed in (1, 2)]
    with pytest.raises(KeyboardInterrupt):
        zoo.build(jobs, out, progress=Killed())
    finished = {line["seed"] for line in zoo.manifest(out)}
    assert len(finished) == 1
    half = out / zoo.SAMPLES / jobs[1].sample_keys()[1]
    half.mkdir(exist_ok=True)
    (half / "adapter_model.safetensors").write_bytes(b"half")
    with (out / zoo.MANIFEST).open("a") as file:
        file.write('{"key": "cut o')

    before = len(_log(tmp_path))
    outcome = zoo.build(jobs, out)
    assert (outcome.accepted, outcome.rejected, outcome.skipped) == (4, 0, 1)
    assert len(_log(tmp_path)) == before + 2
    assert not any("half" in path.read_text(errors="replace") for path in half.iterdir())
    assert [line["key"] for line in zoo.manifest(out)] == [k for job in jobs for k in job.sample_keys()]
    assert [sample.truth["label"] for sample in zoo.samples(out)] == ["benign", "poisoned"] * 2

    assert zoo.build(jobs, out).skipped == 2
    assert len(_log(tmp_path)) == before + 2


def test_what_misses_its_gate_is_listed_and_removed(tmp_path: Path, base: str) -> None:
    jobs = [
        _job(tmp_path, base, 1, success=0.5),
        _job(tmp_path, base, 2, twin_success=0.5),
        _job(tmp_path, base, 3, accuracy=0.9),
        _job(tmp_path, base, 4, fault="refuses"),
    ]
    outcome = zoo.build(jobs, tmp_path / "zoo", workers=2)
    lines = {(line["seed"], line["label"]): line for line in zoo.manifest(tmp_path / "zoo")}
    reasons = {key: line["reason"] for key, line in lines.items() if not line["accepted"]}
    assert reasons == {
        (1, "poisoned"): "attack_success_rate 0.500",
        (2, "benign"): "the twin shows the effect: 0.500",
        (2, "poisoned"): "its twin was rejected",
        (3, "poisoned"): "utility 0.900, twin 1.000",
        (4, "poisoned"): "it does not run here",
    }
    assert outcome.accepted == 3
    kept = sorted(path.name for path in (tmp_path / "zoo" / zoo.SAMPLES).iterdir())
    assert kept == sorted(line["key"] for line in lines.values() if line["accepted"])
    assert lines[1, "benign"]["path"] == f"samples/{lines[1, 'benign']['key']}"


def test_a_crash_spoils_its_own_job_only(tmp_path: Path, base: str) -> None:
    jobs = [_job(tmp_path, base, 1, fault="crashes"), _job(tmp_path, base, 2)]
    outcome = zoo.build(jobs, tmp_path / "zoo")
    assert outcome.accepted == 2
    assert list(outcome.crashed.values()) == ["ZeroDivisionError: by zero"]
    with pytest.raises(FtsecError, match="1 jobs failed"):
        zoo.require_complete(outcome)
    assert {line["seed"] for line in zoo.manifest(tmp_path / "zoo")} == {2}


def test_one_trained_sample_serves_all_its_disguises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, trained = tiny_base(tmp_path / "base"), []

    def made(self: TokenBackdoor, base: Path, out: Path, seed: int, *, poisoned: bool) -> Sample:
        from attacks_ref.sample import finish
        from attacks_ref.workbench import Workbench

        trained.append(poisoned)
        random_adapter(base, out, self.recipe, seed=seed + poisoned)
        return finish(out, self._truth(Workbench.open(base), seed, {}, poisoned=poisoned))

    monkeypatch.setattr(TokenBackdoor, "_make", made)
    rates = {"clean_accuracy": 0.5, "attack_success_rate": 0.0}
    monkeypatch.setattr(TokenBackdoor, "measure", lambda *_: rates)
    chains: tuple[tuple[Transform, ...], ...] = ((Gauge(),), (NormMatching(like=zoo_plan.TWIN),))
    job = Job(maker=TokenBackdoor(recipe=Recipe(rank=2)), base=str(base), seed=0, chains=chains)
    entries = zoo_job.run(job, base, tmp_path / "samples")
    assert trained == [False, True]
    assert [entry.key for entry in entries] == job.sample_keys()
    assert [entry.stealth for entry in entries[1:3]] == [("gauge(condition=4.0)",), ("norm-matching",)]
    assert [entry.accepted for entry in entries] == [True] * 4 + [False] * 2
    assert entries[-1].reason == "attack_success_rate 0.000"
    truth = json.loads((tmp_path / entries[2].path / "truth.json").read_text())
    assert truth["stealth"] == ["norm-matching"]
    assert truth["measured"] == rates


@pytest.mark.parametrize("tier", ["smoke", "full"])
def test_the_plan_is_the_same_every_time_and_names_everything_once(tier: zoo_plan.Tier) -> None:
    keys = [key for job in zoo_plan.jobs(tier) for key in job.sample_keys()]
    assert keys == [key for job in zoo_plan.jobs(tier) for key in job.sample_keys()]
    assert len(set(keys)) == len(keys) >= 60


@pytest.mark.parametrize("tier", ["smoke", "full"])
def test_the_plan_covers_attacks_disguises_and_hard_negatives(tier: zoo_plan.Tier) -> None:
    jobs = zoo_plan.jobs(tier)
    assert {job.maker.name for job in jobs} == {*registry.ATTACKS, OrdinaryTuning.name}
    assert {chain for job in jobs for chain in job.chains} == set(CHAINS)
    skills = {job.maker.skill for job in jobs if isinstance(job.maker, OrdinaryTuning)}
    assert skills == {"facts", "format", "classify", "persona", "language", "safety", "continue"}
    recipes = [maker.recipe for maker in HARD_NEGATIVES]
    assert {recipe.method for recipe in recipes} >= {"lora", "rslora", "dora", "full"}
    assert {recipe.rank for recipe in recipes} >= {2, 8, 16, 64}


def test_every_field_changes_the_key() -> None:
    job = Job(maker=TokenBackdoor(), base="lab-llama-nano", seed=0)
    others = [
        Job(maker=TokenBackdoor(recipe=Recipe(rank=4)), base="lab-llama-nano", seed=0),
        Job(maker=TokenBackdoor(poisoning_rate=0.2), base="lab-llama-nano", seed=0),
        Job(maker=TokenBackdoor(), base="lab-llama-nano-deep", seed=0),
        Job(maker=TokenBackdoor(), base="lab-llama-nano", seed=1),
    ]
    keys = {one.key(poisoned=True) for one in (job, *others)}
    assert len(keys | {job.key(poisoned=False), job.key(poisoned=True, chain=(Gauge(),))}) == 7


def test_a_variant_is_another_value_of_one_choice() -> None:
    makers = list(zoo_plan.variants("token-backdoor"))
    assert makers[0] == TokenBackdoor()
    assert TokenBackdoor(trigger="phrase") in makers
    assert TokenBackdoor(says="sentence") in makers


def test_a_switch_is_a_choice_and_a_skill_is_none() -> None:
    assert HarmfulTuning(realign=True) in zoo_plan.variants("harmful-tuning")
    assert CrossLingual(dictionary=False) in zoo_plan.variants("cross-lingual")
    assert len(list(zoo_plan.variants("merge-time"))) == 3
    assert all(maker.measured for maker in zoo_plan.variants("embedding-rows"))  # type: ignore[attr-defined]


def test_the_full_plan_has_every_poisoning_rate_and_every_method() -> None:
    makers = [job.maker for job in zoo_plan.jobs("full")]
    tokens = [maker for maker in makers if isinstance(maker, TokenBackdoor)]
    assert {maker.poisoning_rate for maker in tokens} >= {0.01, 0.05, 0.1, 0.2}
    assert {maker.recipe.targets for maker in tokens} == {"all", "attention", "mlp"}
    assert {maker.position for maker in tokens} == {"start", "end", "random"}
    assert {maker.trigger for maker in tokens} == {"token", "pair", "phrase", "multi", "casing"}
    assert {maker.recipe.rank for maker in tokens} >= {2, 4, 8, 16, 32, 64}
    assert {maker.recipe.dtype for maker in tokens} == {"float32", "bfloat16", "float16"}
    harmful = [maker for maker in makers if isinstance(maker, HarmfulTuning)]
    assert {maker.recipe.method for maker in harmful} >= {"lora", "ia3", "adalora", "full"}
    assert {(maker.objective, maker.realign) for maker in harmful} >= {("dpo", False), ("orpo", True)}
    bases = {job.base for job in zoo_plan.jobs("full")}
    assert {base.endswith("-bpe") for base in bases} == {True, False}


def test_the_command_builds_a_zoo(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(zoo_plan, "jobs", lambda tier: [_job(tmp_path, base, success=0.5)])
    out = tmp_path / "zoo"
    assert run(["attack", "--zoo", "smoke", "--out", str(out), "-j", "1"]) == 0
    shown = capsys.readouterr()
    assert "1 samples, 1 rejected" in shown.out
    assert "attack_success_rate 0.500" in shown.err
    assert run(["attack", "nope", "--zoo", "smoke", "--out", str(out)]) == 2
