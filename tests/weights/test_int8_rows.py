"""int8 with one scale a row against floats: an honest copy is no change, an edit is the change that it is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from builders.adapters import Edit, Tensors, write_checkpoint
from builders.packing import pack
from weights.test_packed import MODULE, found

from ftsec_audit.weights.delta import DeltaKind

WEIGHT = f"{MODULE}.weight"


def write(path: Path, *edits: Edit, dtype: torch.dtype = torch.float32, family: str = "llama") -> Path:
    def edit(tensors: Tensors) -> Tensors:
        tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        for each in edits:
            tensors = each(tensors) or tensors
        return tensors

    return write_checkpoint(path, layers=2, family=family, edit=edit)


def int8(tensors: Tensors) -> Tensors:
    """As bitsandbytes does it: by way of float16."""
    return pack(
        {n: t.half().float() if n.endswith("_proj.weight") else t for n, t in tensors.items()}, "int8"
    )


def rank_one(size: float) -> Edit:
    def edit(tensors: Tensors) -> None:
        weight = tensors[WEIGHT]
        generator = torch.Generator().manual_seed(5)
        u, v = (torch.randn(n, generator=generator) for n in weight.shape)
        update = torch.outer(u / u.norm(), v / v.norm()) * size * weight.float().norm()
        tensors[WEIGHT] = (weight.float() + update).to(weight.dtype)

    return edit


def scaled(factor: float, row: int = 5) -> Edit:
    def edit(tensors: Tensors) -> None:
        tensors[f"{MODULE}.SCB"][row] *= factor

    return edit


dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)


@dtypes
@pytest.mark.parametrize("packed_side", ["subject", "base"])
def test_an_honest_copy_is_no_change(dtype, packed_side, tmp_path):
    plain = write(tmp_path / "plain", dtype=dtype)
    packed = write(tmp_path / "packed", int8, dtype=dtype)
    seen = found(*((packed, plain) if packed_side == "subject" else (plain, packed)))
    assert {delta.kind for delta in seen.values()} == {DeltaKind.IDENTICAL}
    assert all(delta.is_zero() and delta.frobenius_norm() == 0.0 for delta in seen.values())
    assert {name for name, delta in seen.items() if delta.approximation} == {
        name for name in seen if name.endswith("_proj")
    }


@dtypes
def test_the_numbers_written_out_are_no_change_either(dtype, tmp_path):
    def written_out(tensors: Tensors) -> Tensors:
        packed = int8(tensors)
        for name in [name for name in packed if name.endswith(".SCB")]:
            stem = name.removesuffix(".SCB")
            numbers = packed.pop(f"{stem}.weight").float() * packed.pop(name)[:, None] / 127
            packed[f"{stem}.weight"] = numbers.to(dtype)
            del packed[f"{stem}.weight_format"]
        return packed

    base = write(tmp_path / "base", int8, dtype=dtype)
    seen = found(write(tmp_path / "plain", written_out, dtype=dtype), base)
    assert {delta.kind for delta in seen.values()} == {DeltaKind.IDENTICAL}


@pytest.mark.parametrize("packed_side", ["subject", "base"])
def test_a_rank_one_edit_is_found_for_what_it_is(packed_side, tmp_path):
    if packed_side == "subject":
        pair = write(tmp_path / "a", rank_one(0.2), int8), write(tmp_path / "base")
    else:
        pair = write(tmp_path / "a", rank_one(0.2)), write(tmp_path / "base", int8)
    seen = found(*pair)
    assert [name for name, delta in seen.items() if delta.kind is not DeltaKind.IDENTICAL] == [MODULE]
    delta = seen[MODULE]
    true = found(write(tmp_path / "b", rank_one(0.2)), write(tmp_path / "plain"))[MODULE]
    assert delta.kind is DeltaKind.DENSE
    assert delta.frobenius_norm() == pytest.approx(true.frobenius_norm(), rel=0.01)
    sigma = delta.singular_values()
    assert float(sigma[0] ** 2 / (sigma**2).sum()) > 0.99
    assert abs(float(delta.top_singular_vectors()[0] @ true.top_singular_vectors()[0])) > 0.999


def test_a_change_is_known_to_within_a_step(tmp_path):
    base, edited = write(tmp_path / "base"), write(tmp_path / "edited", rank_one(0.02))
    truth = found(edited, base)[MODULE]
    delta = found(write(tmp_path / "a", rank_one(0.02), int8), base)[MODULE]
    every = range(truth.shape[0])
    (new, old), (after, before) = truth.rows(every), delta.rows(every)
    steps = new.abs().amax(1, keepdim=True) / 127
    assert (((after - before) - (new - old)).abs() <= 1.1 * steps).all()
    blocks = torch.cat([after - before for _, after, before in delta.change.source.blocks()])
    torch.testing.assert_close(blocks, after - before)


def test_two_packed_weights_of_other_values_are_compared(tmp_path):
    base = write(tmp_path / "base", int8)
    delta = found(write(tmp_path / "a", int8, scaled(1.01)), base)[MODULE]
    assert delta.kind is DeltaKind.DENSE
    assert delta.changed_rows().indices.tolist() == [5]


@pytest.mark.parametrize("factor", [2.0, 1.02, -1.0, 0.0])
def test_a_wrong_scale_is_a_change_of_its_row(factor, tmp_path):
    base = write(tmp_path / "base")
    delta = found(write(tmp_path / "a", int8, scaled(factor)), base)[MODULE]
    assert delta.kind is DeltaKind.DENSE
    changed = delta.changed_rows()
    assert changed.indices.tolist() == [5]
    row = found(base, None)[MODULE].rows([5])[0]
    assert float(changed.norms[0]) == pytest.approx(abs(factor - 1) * float(row.norm()), rel=0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("packed_side", ["subject", "base"])
def test_a_scale_that_is_not_finite_is_not_taken_for_a_copy(bad, packed_side, tmp_path):
    plain, packed = write(tmp_path / "plain"), write(tmp_path / "packed", int8, scaled(bad))
    delta = found(*((packed, plain) if packed_side == "subject" else (plain, packed)))[MODULE]
    assert delta.kind is DeltaKind.DENSE
    assert delta.finite() is (packed_side == "base")
    assert math.isnan(delta.frobenius_norm()) or math.isinf(delta.frobenius_norm())


def test_a_row_of_zeros_has_the_scale_zero_and_is_no_change(tmp_path):
    def zero(tensors: Tensors) -> None:
        tensors[WEIGHT][5] = 0

    def unscaled(tensors: Tensors) -> None:
        tensors[WEIGHT][5] = 0  # what 0 · 127/0 becomes is up to the machine
        tensors[f"{MODULE}.SCB"][5] = 0

    seen = found(write(tmp_path / "a", zero, int8, unscaled), write(tmp_path / "base", zero))
    assert {delta.kind for delta in seen.values()} == {DeltaKind.IDENTICAL}


def int8_of_conv1d(tensors: Tensors) -> None:
    """GPT-2 keeps its matrices as (in, out); what replaces them in int8 keeps its own as (out, in)."""
    for name in [name for name in tensors if ".c_" in name and name.endswith(".weight")]:
        upright = {"x_proj.weight": tensors.pop(name).mT.contiguous()}
        stem = name.removesuffix(".weight")
        tensors |= {f"{stem}.{part.removeprefix('x_proj.')}": t for part, t in pack(upright, "int8").items()}


@pytest.mark.parametrize("packed_side", ["subject", "base"])
def test_matrices_that_are_kept_the_other_way_round(packed_side, tmp_path):
    """Square ones too, whose shape does not tell."""
    name = "transformer.h.1.attn.c_proj"

    def edit(tensors: Tensors) -> None:
        tensors[f"{name}.weight"] = tensors[f"{name}.weight"].clone()
        tensors[f"{name}.weight"][:, 3] *= 3  # everything that goes to output 3

    packing: list[Edit] = [int8_of_conv1d]
    ours, theirs = (packing, []) if packed_side == "subject" else ([], packing)
    base = write(tmp_path / "base", *theirs, family="gpt2")
    honest = found(write(tmp_path / "honest", *ours, family="gpt2"), base)
    assert {delta.kind for delta in honest.values()} == {DeltaKind.IDENTICAL}
    edited = found(write(tmp_path / "edited", edit, *ours, family="gpt2"), base)
    assert [n for n, delta in edited.items() if delta.kind is not DeltaKind.IDENTICAL] == [name]
    assert edited[name].changed_rows().indices.tolist() == [3]


def drop_rows(tensors: Tensors) -> None:
    tensors[WEIGHT] = tensors[WEIGHT][:-8].clone()


def widen(tensors: Tensors) -> None:
    tensors[WEIGHT] = torch.cat([tensors[WEIGHT], tensors[WEIGHT]], 1)


def test_shapes_that_disagree_are_told(tmp_path):
    base = write(tmp_path / "base")
    fewer = found(write(tmp_path / "fewer", drop_rows, int8), base)[MODULE]
    assert (fewer.kind, fewer.extra_rows) == (DeltaKind.DENSE, -8)
    assert fewer.is_zero()
    wider = found(write(tmp_path / "wider", widen, int8), base)[MODULE]
    assert wider.kind is DeltaKind.FULL
    assert "shape" in wider.reason


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("SCB", torch.ones(3)),
        ("SCB", torch.ones(128, dtype=torch.int32)),
        ("weight_format", torch.tensor(2, dtype=torch.uint8)),
        ("weight_format", torch.zeros(2, dtype=torch.uint8)),
    ],
    ids=["scales", "whole scales", "tiles", "formats"],
)
def test_parts_that_do_not_fit_together_are_unread(part, value, tmp_path):
    def edit(tensors: Tensors) -> None:
        tensors[f"{MODULE}.{part}"] = value

    delta = found(write(tmp_path / "a", int8, edit), write(tmp_path / "base"))[MODULE]
    assert delta.kind is DeltaKind.UNREADABLE
