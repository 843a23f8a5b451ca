"""Reading and writing the tensors of a saved sample, and the LoRA pairs among them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftsec_audit.adapter_config import AdapterConfig
from ftsec_audit.errors import UsageError

if TYPE_CHECKING:
    import torch

ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."


def read_adapter(sample: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and configuration of an adapter; raises UsageError when the sample is a checkpoint."""
    from safetensors.torch import load_file

    if not (sample / ADAPTER).exists():
        raise UsageError("this transform applies to adapters", where=str(sample))
    return load_file(sample / ADAPTER), json.loads((sample / CONFIG).read_text(encoding="utf-8"))


def write_adapter(sample: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    """The adapter back where it was, in the layout PEFT writes."""
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in tensors.items()}, sample / ADAPTER, metadata={"format": "pt"})
    (sample / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def lora_pairs(tensors: dict[str, torch.Tensor]) -> list[tuple[str, str]]:
    """Names of (A, B) for every adapted module; A is (r, in), B is (out, r)."""
    names = sorted(name for name in tensors if name.endswith(".lora_A.weight"))
    return [(name, name.replace(".lora_A.", ".lora_B.")) for name in names]


def map_pairs(
    sample: Path, change: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
) -> None:
    """Replace every (A, B) by `change(A, B)`, computed in float32 and stored in the type it had."""
    tensors, config = read_adapter(sample)
    for name_a, name_b in lora_pairs(tensors):
        dtype = tensors[name_a].dtype
        a, b = change(tensors[name_a].float(), tensors[name_b].float())
        tensors[name_a], tensors[name_b] = a.to(dtype), b.to(dtype)
    write_adapter(sample, tensors, config)


def plain_lora(tensors: dict[str, torch.Tensor], config: dict[str, Any], purpose: str) -> None:
    """Raise UsageError unless every change is sBA and nothing else."""
    others = [name for name in tensors if not name.endswith((".lora_A.weight", ".lora_B.weight"))]
    if others or config.get("peft_type") != "LORA" or config.get("use_dora"):
        raise UsageError(f"{purpose} applies to plain LoRA adapters", where=(others or ["configuration"])[0])


def module_of(name_a: str) -> str:
    """The adapted module's path in the base, from the name of its A."""
    return name_a.removeprefix(PREFIX).removesuffix(".lora_A.weight")


def scaling(config: dict[str, Any]) -> float:
    """α/r, or α/√r for rsLoRA, of modules that no pattern names."""
    return float(config["lora_alpha"] / _divisor(config, config["r"]))


def module_scaling(config: dict[str, Any], module: str, rank: int) -> float:
    """The factor before B·A of one module, patterns included."""
    return AdapterConfig.of(config).scaling(module, rank)


def set_scaling(config: dict[str, Any], module: str, rank: int, scale: float) -> None:
    """Give one module of that rank the factor `scale`, by name."""
    pattern = {key: value for key, value in (config.get("alpha_pattern") or {}).items() if key != module}
    config["alpha_pattern"] = {module: scale * _divisor(config, rank), **pattern}  # the first match counts


def _divisor(config: dict[str, Any], rank: int) -> float:
    return float(rank) ** 0.5 if config.get("use_rslora") else float(rank)


def base_weights(base: Path) -> tuple[dict[str, torch.Tensor], Callable[[str], bool]]:
    """The base's tensors by the names its modules have, and which modules keep (in, out) weights."""
    from transformers.pytorch_utils import Conv1D

    from attacks_ref.workbench import load_model

    model = load_model(base)
    transposed = {name for name, module in model.named_modules() if isinstance(module, Conv1D)}
    return dict(model.state_dict()), transposed.__contains__
