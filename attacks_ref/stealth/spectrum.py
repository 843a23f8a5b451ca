"""Changes of the update's size and spectrum that leave most of its effect."""

# ruff: noqa: ARG002 (not every transform needs all that the contract offers)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from attacks_ref.stealth.tensors import map_pairs
from attacks_ref.stealth.transform import Transform

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class NormScaling(Transform):
    """The whole update made smaller (or larger)."""

    name: ClassVar[str] = "norm-scaling"

    factor: float = 0.5

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        map_pairs(sample, lambda a, b: (a, b * self.factor))


@dataclass(frozen=True, kw_only=True)
class SpectrumFlattening(Transform):
    """Singular values drawn towards their mean, at the same Frobenius norm."""

    name: ClassVar[str] = "spectrum-flattening"

    strength: float = 0.5
    """0 leaves the spectrum as it is, 1 makes all singular values equal."""

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        map_pairs(sample, self._flatten)

    def _flatten(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        left, values, right = factored_svd(a, b)
        flat = (1 - self.strength) * values + self.strength * values.mean()
        flat = flat * values.norm() / flat.norm().clamp(min=1e-30)
        root = flat.sqrt()
        return root[:, None] * right.T, left * root


@dataclass(frozen=True, kw_only=True)
class DecoyOutliers(Transform):
    """A few entries of B enlarged at random places, to draw an outlier detector elsewhere."""

    name: ClassVar[str] = "decoy-outliers"

    rows: int = 2
    factor: float = 3.0

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        import torch

        generator = torch.Generator().manual_seed(seed)

        def change(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            picked = torch.randperm(b.shape[0], generator=generator)[: self.rows]
            b = b.clone()
            b[picked] *= self.factor
            return a, b

        map_pairs(sample, change)


def factored_svd(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U (out, r), σ (r,), V (in, r) of B·A without forming it."""
    import torch

    q_b, r_b = torch.linalg.qr(b)
    q_a, r_a = torch.linalg.qr(a.T)
    u, values, vh = torch.linalg.svd(r_b @ r_a.T)
    return q_b @ u, values, q_a @ vh.T
