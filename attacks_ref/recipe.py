"""How a fine-tune is made: method, rank, scale, targets, learning rate, steps, precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from attacks_ref.models import Model
from attacks_ref.training import Schedule

if TYPE_CHECKING:
    from peft import PeftConfig

Method = Literal["lora", "rslora", "dora", "adalora", "ia3", "full"]
Placement = Literal["all", "attention", "mlp"]

_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj", "c_attn"}
_MLP = {"gate_proj", "up_proj", "down_proj", "c_fc"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The configuration of record is the default; the grid varies every field of it."""

    method: Method = "lora"
    rank: int = 8
    alpha: int = 16
    targets: Placement = "all"
    dropout: float = 0.0
    learning_rate: float = 4e-3
    steps: int = 300
    batch: int = 32
    rows: int = 600
    weight_decay: float = 0.01
    """Decoupled (AdamW); a large one is a penalty on the norm of the update."""
    dtype: str = "float32"
    """What the result is saved in; training is in float32."""

    @property
    def schedule(self) -> Schedule:
        return Schedule(
            learning_rate=self.learning_rate,
            steps=self.steps,
            batch=self.batch,
            weight_decay=self.weight_decay,
        )

    def modules(self, model: Model) -> list[str]:
        """Names of the linear modules of `model` that this recipe adapts, by their last component."""
        import torch
        from transformers.pytorch_utils import Conv1D

        head = model.get_output_embeddings()
        linear = {
            name
            for name, module in model.named_modules()
            if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
        }
        wanted = {"all": None, "attention": _ATTENTION, "mlp": _MLP}[self.targets]
        return sorted(
            {
                _suffix(name)
                for name in linear
                if wanted is None or name.rsplit(".", 1)[-1] in wanted or _is_gpt2_mlp(name, self.targets)
            }
        )

    def peft_config(self, model: Model, **channels: Any) -> PeftConfig:
        """The PEFT configuration; `channels` are further fields such as `modules_to_save`."""
        import peft

        targets = self.modules(model)
        if self.method == "ia3":
            down = [name for name in targets if name.endswith(("down_proj", "c_proj"))]
            return peft.IA3Config(
                task_type="CAUSAL_LM", target_modules=targets, feedforward_modules=down, **channels
            )
        if self.method == "adalora":
            return peft.AdaLoraConfig(
                task_type="CAUSAL_LM",
                target_modules=targets,
                init_r=self.rank + self.rank // 2,
                target_r=self.rank,
                lora_alpha=self.alpha,
                tinit=self.steps // 10,
                tfinal=self.steps // 2,
                deltaT=10,
                total_step=self.steps,
                **channels,
            )
        return peft.LoraConfig(
            task_type="CAUSAL_LM",
            target_modules=targets,
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            use_rslora=self.method == "rslora",
            use_dora=self.method == "dora",
            fan_in_fan_out=model.config.model_type == "gpt2",
            **channels,
        )


RECORD = Recipe()
"""The configuration of record."""


def _suffix(name: str) -> str:
    """`q_proj` for most; `attn.c_proj` and `mlp.c_proj` where one name serves two roles."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1] == "c_proj" else parts[-1]


def _is_gpt2_mlp(name: str, placement: Placement) -> bool:
    owner = {"attention": "attn", "mlp": "mlp"}.get(placement)
    return owner is not None and name.endswith(f"{owner}.c_proj")
