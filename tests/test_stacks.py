"""A stack is audited as the one update it is; what cannot be added up, or points elsewhere, is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from builders.behaviour import asked, tiny_base
from builders.lab import random_adapter

from attacks_ref.dormant import scale
from attacks_ref.recipe import Recipe
from attacks_ref.workbench import load_model
from ftsec_audit import api, session, stacks
from ftsec_audit.contracts import Subject
from ftsec_audit.errors import FormatError, Unsupported, UsageError
from ftsec_audit.session import SessionOptions
from ftsec_audit.sources import resolve
from ftsec_audit.stacks import Further

ROWS = [[1, 5, 20, 30, 40, 2, 6], [1, 5, 33]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base, two adapters of other ranks and targets, and a third that does not add up."""
    root = tmp_path_factory.mktemp("stack")
    base = tiny_base(root / "base")
    random_adapter(base, root / "pair" / "first", Recipe(rank=4), seed=1)
    random_adapter(
        base, root / "pair" / "second", Recipe(method="rslora", rank=2, targets="attention"), seed=2
    )
    random_adapter(base, root / "dora", Recipe(method="dora", rank=2))
    return root


def describe(folder, *entries):
    (folder / "stack.json").write_text(json.dumps({"adapters": list(entries)}))


def by_peft(root, **factors):
    from peft import PeftModel

    model = PeftModel.from_pretrained(
        load_model(root / "base"), root / "pair" / "first", adapter_name="first"
    )
    model.load_adapter(root / "pair" / "second", adapter_name="second")
    model.base_model.set_adapter(["first", "second"])
    scale(model, factors)
    return model.eval()


def test_a_stack_computes_what_peft_computes_with_its_adapters(folder):
    parts = [
        stacks.Part(resolve(str(folder / "pair" / "first"))),
        stacks.Part(resolve(str(folder / "pair" / "second")), 0.5),
    ]
    subject = Subject(artifact=stacks.composed(parts), base=resolve(str(folder / "base")))
    model = by_peft(folder, first=1.0, second=0.5)
    with session.open_sessions(subject, SessionOptions(device="cpu")) as sessions:
        got = sessions.subject.next_token(ROWS)
    for row, values in zip(ROWS, got, strict=True):
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([row])).logits[0, -1].log_softmax(-1)
        np.testing.assert_allclose(values, expected.numpy(), atol=1e-4)
    with asked(folder / "pair" / "first", folder / "base") as sessions:
        assert np.abs(sessions.subject.next_token(ROWS) - got).max() > 1e-3


def test_a_scan_measures_the_sum_and_says_what_it_did_not_look_at(folder):
    options = {"base": str(folder / "base"), "select": ["FTA1", "FTA2"], "cache": False}
    second = Further(str(folder / "pair" / "second"), 0.5)
    report = api.scan(str(folder / "pair" / "first"), stack=[second], **options)
    assert report.artifact.reference.endswith("first × 1 + " + f"{second.reference} × 0.5")
    by_rank = {module.role: len(module.values["singular_values"]) for module in report.measurements}
    assert (by_rank["q_proj"], by_rank["up_proj"]) == (6, 4)
    assert any("other files of" in entry.what for entry in report.not_looked_at)

    alone = api.scan(str(folder / "pair" / "first"), **options)
    assert any("other adapters" in entry.what and "--with" in entry.reason for entry in alone.not_looked_at)


def test_a_folder_can_describe_its_stack(folder):
    describe(folder / "pair", {"path": "first"}, {"path": "second", "scale": 0.5})
    planned = api.plan(str(folder / "pair"), base=str(folder / "base"))
    assert [name.rsplit("/", 1)[1] for name in planned.subject.artifact.composition] == [
        "first × 1",
        "second × 0.5",
    ]


def test_a_description_beside_a_model_does_not_hide_the_model(folder, tmp_path):
    adapter = random_adapter(folder / "base", tmp_path / "adapter", Recipe(rank=2))
    (adapter / "harmless").mkdir()
    describe(adapter, {"path": "harmless"})
    assert stacks.described(resolve(str(adapter))) == ()


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "../dora"},
        {"path": "/etc"},
        {"path": ""},
        {"path": "missing"},
        {"path": "first", "scale": True},
        {"path": "first", "scale": "1"},
        {"path": "first", "scale": float("inf")},
        {"path": "first", "scale": 10**400},
        ["first"],
    ],
    ids=str,
)
def test_a_description_that_is_none_is_refused(entry, folder):
    describe(folder / "pair", entry)
    with pytest.raises(FormatError):
        stacks.described(resolve(str(folder / "pair")))


def test_what_does_not_add_up_is_refused(folder):
    first, dora, base = (resolve(str(folder / name)) for name in ("pair/first", "dora", "base"))
    with pytest.raises(Unsupported, match="does not add up"):
        stacks.composed([stacks.Part(first), stacks.Part(dora)])
    with pytest.raises(UsageError, match="is no adapter"):
        stacks.composed([stacks.Part(first), stacks.Part(base)])


def test_scales_are_written_behind_an_equals_sign():
    assert Further.parse("org/model@1.0") == Further("org/model@1.0", 1.0)
    assert Further.parse("./b=0.5") == Further("./b", 0.5)
    assert str(Further("b", 0.5)) == "b=0.5"
    for wrong in ("b=", "b=x", "b=nan"):
        with pytest.raises(UsageError, match="scale"):
            Further.parse(wrong)
