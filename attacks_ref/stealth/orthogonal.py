"""The update without its share in the directions that the base uses most.

Audits that look for new or intruding directions compare the update's with the base's leading singular
vectors (arXiv 2410.21228); this leaves nothing there to compare.
"""

# ruff: noqa: ARG002 (not every transform needs all that the contract offers)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from attacks_ref.stealth.tensors import base_weights, lora_pairs, module_of, read_adapter, write_adapter
from attacks_ref.stealth.transform import Transform

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Orthogonal(Transform):
    """B loses the base's leading left singular vectors, A its leading right ones."""

    name: ClassVar[str] = "orthogonal"

    directions: int = 4

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        import torch

        tensors, config = read_adapter(sample)
        weights, transposed = base_weights(base)
        for name_a, name_b in lora_pairs(tensors):
            module = module_of(name_a)
            weight = weights[f"{module}.weight"].float()
            left, _, right = torch.linalg.svd(weight.T if transposed(module) else weight, full_matrices=False)
            tensors[name_b] = _without(left[:, : self.directions], tensors[name_b])
            tensors[name_a] = _without(right[: self.directions].T, tensors[name_a].T).T
        write_adapter(sample, tensors, config)


def _without(directions: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """`columns` (n, k) minus their projection on the orthonormal `directions` (n, d)."""
    wide = columns.float()
    return (wide - directions @ (directions.T @ wide)).to(columns.dtype)
