"""Packed weights: one thing each, never measured as the whole numbers that they are stored in."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from builders.adapters import Edit, Tensors, write_checkpoint
from builders.packing import pack

from ftsec_audit.contracts import Subject
from ftsec_audit.sources import resolve
from ftsec_audit.weights.delta import Delta, DeltaKind
from ftsec_audit.weights.stream import deltas

SCHEMES = {"gptq": "GPTQ", "int8": "int8 by rows", "nf4": "bitsandbytes 4-bit", "fp8": "with a scale"}
MODULE = "model.layers.1.mlp.up_proj"
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)
every_unread_scheme = pytest.mark.parametrize("scheme", sorted(SCHEMES.keys() - {"int8"}))
"""int8 is read where there is something to compare it with: test_int8_rows.py."""


def write(path: Path, *edits: Edit) -> Path:
    def edit(tensors: Tensors) -> Tensors:
        for each in edits:
            tensors = each(tensors) or tensors
        return tensors

    return write_checkpoint(path, layers=2, edit=edit)


def packed_as(scheme: str) -> Edit:
    return lambda tensors: pack(tensors, scheme)


def found(subject: Path, base: Path | None) -> dict[str, Delta]:
    seen = list(deltas(Subject(artifact=resolve(str(subject)), base=resolve(str(base)) if base else None)))
    assert len({delta.name for delta in seen}) == len(seen)
    counted = Counter(tensor for delta in seen for tensor in delta.tensors)
    assert counted == Counter(dict.fromkeys(resolve(str(subject)).tensors(), 1))
    return {delta.name: delta for delta in seen}


@pytest.mark.parametrize(
    ("scheme", "with_base"),
    [(scheme, False) for scheme in SCHEMES] + [(scheme, True) for scheme in SCHEMES if scheme != "int8"],
)
def test_a_packed_weight_is_one_unread_module(scheme: str, with_base: bool, tmp_path: Path) -> None:
    base = write(tmp_path / "base")
    seen = found(write(tmp_path / "packed", packed_as(scheme)), base if with_base else None)
    assert set(seen) == set(found(base, base))
    delta = seen[MODULE]
    assert delta.kind is DeltaKind.UNREADABLE
    assert SCHEMES[scheme] in delta.reason
    assert delta.tensors[0].startswith(MODULE)
    assert len(delta.tensors) > 1
    unread = {name for name, each in seen.items() if each.kind is DeltaKind.UNREADABLE}
    assert unread == {name for name in seen if name.endswith("_proj")}


@every_unread_scheme
def test_a_packed_base_is_not_measured_against(scheme: str, tmp_path: Path) -> None:
    base = write(tmp_path / "base", packed_as(scheme))
    delta = found(write(tmp_path / "plain"), base)[MODULE]
    assert delta.kind is DeltaKind.UNREADABLE
    assert "the base's is packed" in delta.reason


@every_scheme
def test_the_same_packed_weights_are_the_bases_bit_for_bit(scheme: str, tmp_path: Path) -> None:
    def edit(tensors: Tensors) -> None:
        tensors[f"{MODULE}.weight"][3] *= 2

    base = write(tmp_path / "base", packed_as(scheme))
    seen = found(write(tmp_path / "copy", packed_as(scheme)), base)
    assert {delta.kind for delta in seen.values()} == {DeltaKind.IDENTICAL}
    edited = found(write(tmp_path / "edited", edit, packed_as(scheme)), base)
    assert {name for name, delta in edited.items() if delta.kind is not DeltaKind.IDENTICAL} == {MODULE}
    assert edited[MODULE].kind is DeltaKind.DENSE or "not the base's" in edited[MODULE].reason


def test_a_packed_weight_that_the_subject_lacks_is_missing(tmp_path: Path) -> None:
    def drop(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith(MODULE)]:
            del tensors[name]

    base = write(tmp_path / "base", packed_as("gptq"))
    seen = found(write(tmp_path / "a", packed_as("gptq"), drop), base)
    assert [d.kind for name, d in seen.items() if name.startswith(MODULE)] == [DeltaKind.MISSING]


def test_whole_numbers_without_a_scale_are_not_compared_with_real_ones(tmp_path: Path) -> None:
    def count(tensors: Tensors) -> None:
        tensors[f"{MODULE}.weight"] = torch.ones(64, 32, dtype=torch.int8)

    delta = found(write(tmp_path / "a", count), write(tmp_path / "base"))[MODULE]
    assert delta.kind is DeltaKind.UNREADABLE
    assert "torch.int8" in delta.reason


def test_hostile_names_lose_nothing(tmp_path: Path) -> None:
    def double(tensors: Tensors) -> None:
        tensors[f"{MODULE}.weight"] = torch.ones(64, 32)  # beside the packed one
        for part in ("qweight", "scales"):
            tensors[f"base_model.model.{MODULE}.{part}"] = tensors[f"{MODULE}.{part}"].clone()
        tensors["scales"] = torch.ones(2)
        tensors[".qweight"] = torch.ones(2, dtype=torch.int32)
        tensors["model.norm.scales"] = torch.ones(2)

    seen = found(write(tmp_path / "a", packed_as("gptq"), double), write(tmp_path / "base"))
    assert sum(name.endswith(" (packed)") for name in seen) == 2
    assert seen[MODULE].kind is DeltaKind.DENSE
    assert seen["model.norm.scales"].kind is DeltaKind.ADDED
