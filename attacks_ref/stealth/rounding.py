"""Merged into the base and stored in few bits: what remains of an adapter after deployment.

No kernel for 8 or 4 bits exists on a CPU, so the rounding is emulated and the result stored in
bfloat16: the values are those the quantised model would compute with.
"""

# ruff: noqa: ARG002 (not every transform needs all that the contract offers)

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from attacks_ref.models import Model
from attacks_ref.stealth.transform import Transform

if TYPE_CHECKING:
    import torch

Storage = Literal["bfloat16", "int8", "int4", "nf4"]
BLOCK = 64
"""Weights that share a scale in the 4-bit formats."""

NF4 = (
    -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0,
)  # fmt: skip
"""The sixteen levels of NormalFloat4 (arXiv 2305.14314, appendix E)."""


@dataclass(frozen=True, kw_only=True)
class Merged(Transform):
    """A full checkpoint in place of the adapter."""

    name: ClassVar[str] = "merged"

    storage: Storage = "bfloat16"

    @property
    def label(self) -> str:
        note = "" if self.storage == "bfloat16" else ", stored dequantised as bfloat16"
        return f"{self.name}(storage={self.storage}{note})"

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        import torch

        from attacks_ref.workbench import load_sample, load_tokenizer

        model = load_sample(base, sample)
        model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
        round_matrices(model, self.storage)
        for path in sample.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        model.to(torch.bfloat16).save_pretrained(sample, max_shard_size="2MB")
        load_tokenizer(base).save_pretrained(sample)


def matrices(model: Model) -> list[torch.nn.Parameter]:
    """What is stored in few bits: every matrix but the embeddings and the output head."""
    kept = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    return [one for one in model.parameters() if one.ndim >= 2 and id(one) not in kept]


def round_matrices(model: Model, storage: Storage) -> None:
    """Give `model`, in place, the values it has after being stored so."""
    for parameter in matrices(model):
        parameter.data = rounded(parameter.data, storage)


def rounded(weight: torch.Tensor, storage: Storage) -> torch.Tensor:
    """`weight` as it reads after being stored: bf16, int8 per row, or int4/nf4 in blocks of 64."""
    import torch

    if storage == "bfloat16":
        return weight.to(torch.bfloat16).to(weight.dtype)
    if storage == "int8":
        scale = weight.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
        return (weight / scale).round().clamp(-127, 127) * scale
    flat = torch.nn.functional.pad(weight.flatten(), (0, -weight.numel() % BLOCK)).view(-1, BLOCK)
    scale = flat.abs().amax(1, keepdim=True).clamp(min=1e-12)
    if storage == "int4":
        stored = (flat / scale * 7).round() / 7 * scale
    else:
        levels = torch.tensor(NF4, dtype=flat.dtype)
        stored = levels[(flat[..., None] / scale[..., None] - levels).abs().argmin(-1)] * scale
    return stored.flatten()[: weight.numel()].view_as(weight)
