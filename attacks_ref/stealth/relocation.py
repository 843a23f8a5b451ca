"""The update of one module leaves the low-rank factors and travels as a whole matrix. ΔW does not change.

`declared` lists the module under `modules_to_save`. `undeclared` puts the matrix into the adapter file
under the name it has inside the wrapped model, where loading without strictness picks it up although the
configuration does not mention it.
"""

# ruff: noqa: ARG002 (not every transform needs all that the contract offers)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from attacks_ref.stealth.tensors import (
    PREFIX,
    base_weights,
    lora_pairs,
    module_of,
    module_scaling,
    plain_lora,
    read_adapter,
    write_adapter,
)
from attacks_ref.stealth.transform import Transform


@dataclass(frozen=True, kw_only=True)
class Relocation(Transform):
    """The last adapted module's update becomes part of a saved matrix."""

    name: ClassVar[str] = "relocation"

    channel: Literal["declared", "undeclared"] = "undeclared"

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        tensors, config = read_adapter(sample)
        plain_lora(tensors, config, self.name)
        pairs = lora_pairs(tensors)
        name_a, name_b = pairs[-1]
        module, a, b = module_of(name_a), tensors[name_a].float(), tensors[name_b].float()
        update = module_scaling(config, module, a.shape[0]) * b @ a
        weights, transposed = base_weights(base)
        before = weights[f"{module}.weight"]
        after = before.float() + (update.T if transposed(module) else update)
        if self.channel == "undeclared":
            tensors[f"{PREFIX}{module}.base_layer.weight"] = after.to(before.dtype)
            tensors[name_b] = b.new_zeros(b.shape).to(tensors[name_b].dtype)
        else:
            del tensors[name_a], tensors[name_b]
            tensors[f"{PREFIX}{module}.weight"] = after.to(before.dtype)
            if f"{module}.bias" in weights:
                tensors[f"{PREFIX}{module}.bias"] = weights[f"{module}.bias"]
            config["target_modules"] = sorted(module_of(name) for name, _ in pairs[:-1])
            config["modules_to_save"] = [*(config.get("modules_to_save") or []), module]
        write_adapter(sample, tensors, config)
