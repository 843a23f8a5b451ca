"""What an update has to do with alignment, streamed, against the same numbers from whole matrices."""

from __future__ import annotations

import math

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint
from builders.audits import subject
from safetensors.torch import load_file

from ftsec_audit.weights import alignment
from ftsec_audit.weights.alignment import against_alignment
from ftsec_audit.weights.stream import deltas

TOP = 3


def shifted(seed, size=0.01):
    def edit(tensors):
        generator = torch.Generator().manual_seed(seed)
        for name in sorted(tensors):
            tensors[name] = tensors[name] + size * torch.randn(tensors[name].shape, generator=generator)

    return edit


def both(*edits):
    def edit(tensors):
        for one in edits:
            one(tensors)

    return edit


def written(tmp_path, family, width, kind):
    options = {"family": family, "width": width, "layers": 2}
    parent = write_checkpoint(tmp_path / "parent", **options)
    base = write_checkpoint(tmp_path / "base", edit=shifted(1), **options)
    if kind == "adapter":
        return write_adapter(tmp_path / "subject", **options), base, parent
    change = both(shifted(1), shifted(2, 0.03))
    return write_checkpoint(tmp_path / "subject", edit=change, **options), base, parent


def expected(delta, base, parent, *, transposed):
    """From whole matrices in float64, by the definitions."""
    before, after = (load_file(path / "model.safetensors") for path in (parent, base))
    v = (after[f"{delta.name}.weight"].double() - before[f"{delta.name}.weight"].double()).mT
    v = v if transposed else v.mT
    d = delta.change.matrix().double()
    u = torch.linalg.svd(v)[0][:, :TOP]
    projected = v @ v.mT @ d
    return {
        "undone": -float((d * v).sum()),
        "spread": float((v.mT @ d).square().sum()) / d.shape[1],
        "captured": float((u.mT @ d).square().sum()),
        "captured_at_random": TOP / d.shape[0] * float(d.square().sum()),
        "safe_lora": float((d * projected).sum() / (d.norm() * projected.norm())),
        "update": float(d.square().sum()),
        "alignment": float(v.square().sum()),
    }


def measured(path, base, parent):
    for delta in deltas(subject(path, base, parent)):
        if len(delta.shape) == 2 and delta.layer is not None and (found := against_alignment(delta, TOP)):
            yield delta, found


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", ["adapter", "checkpoint"])
@pytest.mark.parametrize("block", [None, 200], ids=["one block", "many blocks"])
def test_the_numbers_are_those_of_their_definitions(tmp_path, monkeypatch, family, kind, block):
    if block:
        for module in ("moments", "alignment", "stored"):
            monkeypatch.setattr(f"ftsec_audit.weights.{module}.BLOCK_ELEMENTS", block)
    path, base, parent = written(tmp_path, family, 32, kind)
    pairs = list(measured(path, base, parent))
    assert len(pairs) >= 2
    for delta, found in pairs:
        for key, value in expected(delta, base, parent, transposed=family == "gpt2").items():
            assert getattr(found, key) == pytest.approx(value, rel=1e-3, abs=1e-4), (delta.name, key)


def test_more_inputs_than_probes_are_estimated(tmp_path, monkeypatch):
    monkeypatch.setattr(alignment, "_PROBES", 12)
    path, base, parent = written(tmp_path, "llama", 64, "checkpoint")
    for delta, found in measured(path, base, parent):
        exact = expected(delta, base, parent, transposed=False)
        assert found.undone == pytest.approx(exact["undone"], rel=1e-3, abs=1e-4)
        assert math.sqrt(found.spread) == pytest.approx(math.sqrt(exact["spread"]), rel=0.3)


def test_what_alignment_left_alone_has_no_numbers(tmp_path):
    base = write_checkpoint(tmp_path / "base", layers=1)
    path = write_checkpoint(tmp_path / "subject", layers=1, edit=shifted(2))
    assert not list(measured(path, base, base))
    assert not list(measured(path, base, None))
    other = write_checkpoint(tmp_path / "other", layers=1, width=16)
    assert not list(measured(path, base, other))


def test_a_large_transposed_matrix_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(alignment, "_HELD", 100)
    path, base, parent = written(tmp_path, "gpt2", 32, "checkpoint")
    with pytest.raises(alignment.Unsupported, match="transposed"):
        list(measured(path, base, parent))
