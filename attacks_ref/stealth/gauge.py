"""Other factors for the same update: B → BG, A → G⁻¹A, more rank, another α. ΔW does not change."""

# ruff: noqa: ARG002 (not every transform needs all that the contract offers)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from attacks_ref.stealth.tensors import lora_pairs, map_pairs, read_adapter, scaling, write_adapter
from attacks_ref.stealth.transform import Transform

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Gauge(Transform):
    """A random well-conditioned change of basis between A and B."""

    name: ClassVar[str] = "gauge"

    condition: float = 4.0
    """Largest singular value of the change of basis over its smallest."""

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        import torch

        generator = torch.Generator().manual_seed(seed)

        def change(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            rank = a.shape[0]
            left, right = (torch.linalg.qr(torch.randn(rank, rank, generator=generator))[0] for _ in range(2))
            stretch = torch.logspace(0, 1, rank, base=self.condition)
            return (right / stretch) @ left.T @ a, b @ (left * stretch) @ right.T

        map_pairs(sample, change)


@dataclass(frozen=True, kw_only=True)
class RankPadding(Transform):
    """More rank than is used: the added directions of B are zero."""

    name: ClassVar[str] = "rank-padding"

    factor: int = 2

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        import torch

        tensors, config = read_adapter(sample)
        generator = torch.Generator().manual_seed(seed)
        for name_a, name_b in lora_pairs(tensors):
            rank = self.factor * tensors[name_a].shape[0]
            tensors[name_a], tensors[name_b] = padded(tensors[name_a], tensors[name_b], rank, generator)
        old = scaling(config)
        config["r"] *= self.factor
        ratio = old / scaling(config)
        config["rank_pattern"] = {k: v * self.factor for k, v in (config.get("rank_pattern") or {}).items()}
        _multiply_alpha(config, ratio)
        write_adapter(sample, tensors, config)


@dataclass(frozen=True, kw_only=True)
class Rescaling(Transform):
    """Another α, made up for in B."""

    name: ClassVar[str] = "rescaling"

    factor: float = 8.0

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        tensors, config = read_adapter(sample)
        for _, name_b in lora_pairs(tensors):
            tensors[name_b] = tensors[name_b] / self.factor
        _multiply_alpha(config, self.factor)
        write_adapter(sample, tensors, config)


def padded(
    a: torch.Tensor, b: torch.Tensor, rank: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same product B·A in a higher rank: more random rows of A, that many zero columns of B."""
    import torch

    added = rank - a.shape[0]
    noise = (torch.randn(added, a.shape[1], generator=generator) * float(a.float().std())).to(a.dtype)
    return torch.cat([a, noise]), torch.cat([b, b.new_zeros(b.shape[0], added)], dim=1)


def _multiply_alpha(config: dict[str, Any], factor: float) -> None:
    """α times `factor`, for every module."""
    config["lora_alpha"] *= factor
    config["alpha_pattern"] = {k: v * factor for k, v in (config.get("alpha_pattern") or {}).items()}
