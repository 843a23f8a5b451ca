"""The sum of two adapters as one: the factors of a strong benign one stand beside the sample's own."""

# ruff: noqa: ARG002 (not every transform needs all that the contract offers)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from attacks_ref.stealth.tensors import (
    PREFIX,
    lora_pairs,
    module_of,
    module_scaling,
    plain_lora,
    read_adapter,
    write_adapter,
)
from attacks_ref.stealth.transform import Transform
from ftsec_audit.errors import UsageError

if TYPE_CHECKING:
    import torch

    Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class Concatenation(Transform):
    """ΔW + weight · ΔW of a companion, in the rank of both together."""

    name: ClassVar[str] = "concatenation"

    companion: str
    """Folder of the benign adapter."""
    weight: float = 1.0

    @property
    def label(self) -> str:
        return f"{self.name}(weight={self.weight})"

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        import torch

        tensors, config = read_adapter(sample)
        other, other_config = read_adapter(Path(self.companion))
        ours, theirs = factors(tensors, config, self.name), factors(other, other_config, self.name)
        if set(ours) != set(theirs):
            raise UsageError("the companion adapts other modules than the sample", where=str(sample))
        dtype = next(iter(tensors.values())).dtype
        for module, (a, b) in ours.items():
            more_a, more_b = theirs[module]
            name = f"{PREFIX}{module}.lora"
            tensors[f"{name}_A.weight"] = torch.cat([a, more_a]).to(dtype)
            tensors[f"{name}_B.weight"] = torch.cat([b, self.weight * more_b], dim=1).to(dtype)
        rank = sum(next(iter(side.values()))[0].shape[0] for side in (ours, theirs))
        config.update(r=rank, lora_alpha=rank, use_rslora=False, rank_pattern={}, alpha_pattern={})
        write_adapter(sample, tensors, config)


def factors(tensors: dict[str, torch.Tensor], config: dict[str, Any], purpose: str) -> Factors:
    """Module → (A, sB) in float32; raises UsageError unless all ranks are equal."""
    plain_lora(tensors, config, purpose)
    found, ranks = {}, set()
    for name_a, name_b in lora_pairs(tensors):
        module, a, b = module_of(name_a), tensors[name_a].float(), tensors[name_b].float()
        ranks.add(a.shape[0])
        found[module] = (a, module_scaling(config, module, a.shape[0]) * b)
    if len(ranks) != 1:
        raise UsageError(f"{purpose} needs one rank in all modules")
    return found
