"""What every detector does whatever it looks at: answers all its rules, the same way every time."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from builders.adapters import METHODS, write_adapter, write_checkpoint
from builders.packing import pack

from detectors import registry
from ftsec_audit import runner
from ftsec_audit.artifact import Artifact
from ftsec_audit.calibration.bank import Calibration
from ftsec_audit.contracts import BehaviourDetector, Subject, WeightDetector
from ftsec_audit.sources import resolve
from ftsec_audit.types import Outcome, Profile
from ftsec_audit.weights.stream import deltas

CLASSES = tuple(
    cls for cls in registry.detectors(third_party=False) if not issubclass(cls, BehaviourDetector)
)
by_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
NO_BASE = "there is none in this test"


def subject(path: Path, base: Path | None = None) -> Subject:
    def artifact(folder: Path) -> Artifact:
        return resolve(str(folder))

    return Subject(
        artifact=artifact(path),
        base=artifact(base) if base else None,
        base_reason="" if base else NO_BASE,
    )


def audit(detector, path: Path, base: Path | None = None) -> runner.Audit:
    """One detector over one subject, and every rule of it answered at least once."""
    result = runner.run(
        subject(path, base), [detector], Calibration.load(), profile=Profile.DEEP, stream=deltas
    )
    assert {finding.rule for finding in result.findings} == {rule.id for rule in detector.rules}
    assert all(finding.summary for finding in result.findings)
    return result


def answers(result: runner.Audit) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for finding in result.findings:
        found.setdefault(finding.rule, []).append(finding.outcome)
    return found


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Path:
    def train(tensors):
        generator = torch.Generator().manual_seed(1)
        for tensor in tensors.values():
            if tensor.dim() == 2:
                tensor += 1e-3 * torch.randn(tensor.shape, generator=generator)

    return write_checkpoint(tmp_path_factory.mktemp("model") / "tuned", edit=train)


@by_class
def test_the_base_itself_is_not_accused(cls, checkpoint, tmp_path):
    copy = write_checkpoint(tmp_path / "copy")
    for outcomes in answers(audit(cls(), copy, checkpoint)).values():
        assert set(outcomes) <= {Outcome.NOT_DETECTED, Outcome.NOT_APPLICABLE}


@by_class
def test_an_ordinary_adapter_is_not_accused(cls, checkpoint, tmp_path):
    result = audit(cls(), write_adapter(tmp_path / "adapter"), checkpoint)
    assert not [
        finding for finding in result.findings if finding.outcome in (Outcome.DETECTED, Outcome.ERROR)
    ]


@by_class
def test_an_ordinary_fine_tune_is_not_accused(cls, checkpoint, tuned):
    result = audit(cls(), tuned, checkpoint)
    assert not [
        finding for finding in result.findings if finding.outcome in (Outcome.DETECTED, Outcome.ERROR)
    ]


@by_class
@pytest.mark.parametrize("method", METHODS)
def test_every_adapter_method_gets_an_answer(cls, method, tmp_path):
    result = audit(cls(), write_adapter(tmp_path / "adapter", method=method))
    assert not [finding for finding in result.findings if finding.outcome is Outcome.ERROR]


@by_class
def test_two_runs_give_the_same_answer(cls, tuned, checkpoint):
    assert audit(cls(), tuned, checkpoint) == audit(cls(), tuned, checkpoint)


@by_class
def test_shards_and_tensor_order_make_no_difference(cls, checkpoint, tmp_path):
    def rewritten(tensors):
        tensors["model.layers.1.mlp.down_proj.weight"] += 0.01

    def reordered(tensors):
        rewritten(tensors)
        return dict(reversed(tensors.items()))

    one = audit(cls(), write_checkpoint(tmp_path / "one", edit=rewritten), checkpoint)
    three = audit(cls(), write_checkpoint(tmp_path / "three", edit=reordered, shards=3), checkpoint)
    assert [(f.rule, f.outcome, f.severity, f.confidence, f.p_value) for f in one.findings] == [
        (f.rule, f.outcome, f.severity, f.confidence, f.p_value) for f in three.findings
    ]
    by_name = {module.name: module for module in three.measurements}
    assert by_name == {module.name: module for module in one.measurements}


@by_class
def test_dtypes_agree_within_their_rounding(cls, checkpoint, tmp_path):
    exact = audit(cls(), write_adapter(tmp_path / "F32", dtype="F32"), checkpoint)
    for dtype, tolerance in (("F16", 2e-3), ("BF16", 2e-2)):
        rounded = audit(cls(), write_adapter(tmp_path / dtype, dtype=dtype), checkpoint)
        assert answers(rounded) == answers(exact)
        for a, b in zip(exact.measurements, rounded.measurements, strict=True):
            assert a.values.keys() == b.values.keys()
            for key in a.values:
                assert_close(key, a.values[key], b.values[key], tolerance)


def assert_close(key: str, a: float | list[float], b: float | list[float], tolerance: float) -> None:
    first, second = (torch.tensor(x if isinstance(x, list) else [x]) for x in (a, b))
    # Vectors are compared as vectors: rounding noise is relative to the largest entry.
    assert float((first - second).norm()) <= 3 * tolerance * max(1.0, float(first.norm())), key


def poison_value(value: float):
    def edit(tensors):
        name = next(name for name in tensors if "lora_B" in name or name.endswith("down_proj.weight"))
        tensors[name][0, 0] = value

    return edit


@by_class
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_values_that_are_not_finite_are_survived(cls, value, checkpoint, tmp_path):
    for path in (
        write_adapter(tmp_path / "adapter", edit=poison_value(value)),
        write_checkpoint(tmp_path / "checkpoint", edit=poison_value(value)),
    ):
        result = audit(cls(), path, checkpoint)
        assert not [finding for finding in result.findings if finding.outcome is Outcome.ERROR]
        expected = Outcome.DETECTED if "FTA103" in answers(result) else None
        assert answers(result).get("FTA103", [None]) == [expected]


def all_nan(tensors):
    for tensor in tensors.values():
        tensor.fill_(math.nan)


def all_zero(tensors):
    for name, tensor in tensors.items():
        if "lora_B" in name:
            tensor.zero_()


def empty(tensors):
    for name in list(tensors):
        if "layers.0" in name:
            tensors[name] = tensors[name][:0]


def one_row(tensors):
    for name in list(tensors):
        if "lora_A" in name:
            tensors[name] = tensors[name][:1]
        if "lora_B" in name:
            tensors[name] = tensors[name][:, :1]


def nothing(tensors):
    tensors.clear()


def scalar(tensors):
    tensors["base_model.model.model.odd"] = torch.tensor(1.0)


@by_class
@pytest.mark.parametrize("edit", [all_nan, all_zero, empty, one_row, nothing, scalar])
@pytest.mark.parametrize("with_base", [True, False], ids=["base", "no base"])
def test_odd_tensors_are_survived(cls, edit, with_base, checkpoint, tmp_path):
    result = audit(cls(), write_adapter(tmp_path / "odd", edit=edit), checkpoint if with_base else None)
    assert not [finding for finding in result.findings if finding.outcome is Outcome.ERROR]


def test_one_name_is_one_quantity_whoever_measures_it(checkpoint, tuned, tmp_path):
    """All write into one table, where the last of two wins, and one's silence is taken for the other's."""
    subjects = [
        tuned,
        checkpoint,
        write_checkpoint(tmp_path / "packed", edit=lambda tensors: pack(tensors, "gptq")),
        write_checkpoint(tmp_path / "broken", edit=all_nan),
        write_adapter(tmp_path / "adapter"),
    ]
    detectors = [cls() for cls in CLASSES if issubclass(cls, WeightDetector)]
    seen = [
        {detector.name: detector.measure(delta) for detector in detectors}
        for path in subjects
        for delta in deltas(subject(path, checkpoint))
    ]
    shared: dict[str, set[str]] = {}
    for measured in seen:
        for detector, values in measured.items():
            for name in values:
                shared.setdefault(name, set()).add(detector)
    for measured in seen:
        for name, who in shared.items():
            assert len({repr(measured[one].get(name)) for one in who}) == 1, (name, who)


@by_class
def test_a_folder_without_a_model_is_answered(cls, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    result = audit(cls(), tmp_path)
    assert not [
        finding for finding in result.findings if finding.outcome in (Outcome.DETECTED, Outcome.ERROR)
    ]


@by_class
def test_a_truncated_file_is_answered(cls, checkpoint, tmp_path):
    path = write_adapter(tmp_path / "adapter")
    weights = path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    result = audit(cls(), path, checkpoint)
    if "FTA103" in answers(result):
        assert answers(result)["FTA103"] == [Outcome.DETECTED]
