"""Weights that are not stored as the numbers of a matrix, told by the names and dtypes that come together.

A packed weight is one thing in several tensors: whole numbers of few bits, and what scales them. To read the
numbers alone would measure something that no model computes with. GPTQ and AWQ do not round to the nearest
value (arXiv:2210.17323, arXiv:2306.00978), so that a base cannot be packed again to be compared bit for bit;
int8 by rows does (`int8_rows.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ftsec_audit.formats.tensors import TensorIndex
from ftsec_audit.weights.naming import canonical_name


@dataclass(frozen=True)
class Packed:
    """One weight in several tensors."""

    module: str
    scheme: str
    tensors: tuple[str, ...]
    """The numbers first, then what belongs to them, in the order of the scheme."""


@dataclass(frozen=True)
class _Scheme:
    name: str
    numbers: str
    """How the name of the tensor with the numbers ends."""
    dtypes: tuple[str, ...]
    scale: tuple[str, ...]
    """Endings in place of `numbers`, of which one is there at least."""
    others: tuple[str, ...] = ()


INT8_ROWS = "int8 by rows"
"""The only scheme whose numbers are read: one scale a row, rounded to nearest."""
_INTEGERS = ("I32", "I16", "I64", "U8", "I8")
_SCHEMES = (
    _Scheme("GPTQ or AWQ", ".qweight", _INTEGERS, (".scales",), (".qzeros", ".g_idx")),
    _Scheme(INT8_ROWS, ".weight", ("I8",), (".SCB",), (".weight_format",)),
    _Scheme(
        "bitsandbytes 4-bit",
        ".weight",
        ("U8",),
        (".weight.absmax",),
        (
            ".weight.quant_map",
            ".weight.nested_absmax",
            ".weight.nested_quant_map",
            ".weight.quant_state.bitsandbytes__nf4",
            ".weight.quant_state.bitsandbytes__fp4",
        ),
    ),
    _Scheme(
        "numbers with a scale",
        ".weight",
        ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", *_INTEGERS),
        (".weight_scale", ".weight_scale_inv"),
        (".weight_zero_point", ".input_scale", ".weight_scale_2"),
    ),
    _Scheme(
        "compressed-tensors",
        ".weight_packed",
        _INTEGERS,
        (".weight_scale",),
        (
            ".weight_shape",
            ".weight_zero_point",
            ".weight_g_idx",
            ".weight_global_scale",
            ".input_global_scale",
        ),
    ),
)


def packed(index: TensorIndex) -> Mapping[str, Packed]:
    """The packed weights by the name of the tensor with their numbers; no tensor belongs to two of them."""
    found: dict[str, Packed] = {}
    for name in index:
        one = next(_read_as(name, index), None)
        if one and not any(tensor in found for tensor in one.tensors):
            found[name] = one
    return found


def _read_as(name: str, index: TensorIndex) -> Iterator[Packed]:
    for scheme in _SCHEMES:
        if not name.endswith(scheme.numbers) or index[name].dtype not in scheme.dtypes:
            continue
        stem = name.removesuffix(scheme.numbers)
        if any(stem + ending in index for ending in scheme.scale):
            those = [stem + ending for ending in (*scheme.scale, *scheme.others) if stem + ending in index]
            yield Packed(canonical_name(stem + ".weight"), scheme.name, (name, *those))
