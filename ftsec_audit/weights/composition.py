"""Several low-rank adapters as one: Σ cᵢ·sᵢ·BᵢAᵢ = [c₁s₁B₁ … cₙsₙBₙ]·[A₁; …; Aₙ], exact in the joint rank."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ftsec_audit.adapter_config import AdapterConfig
from ftsec_audit.artifact import Artifact
from ftsec_audit.errors import Unsupported
from ftsec_audit.files import ArtifactFile, MemoryBytes
from ftsec_audit.weights.adapter_keys import AdaptedModule, adapted_modules
from ftsec_audit.weights.declared import is_declared
from ftsec_audit.weights.methods import is_plain_lora, lora_scale

_MOST_BYTES = 4 << 30
_OWN = ("adapter_config.json", "README.md")
"""Files of a part that speak of it alone."""
Factors = tuple[Tensor, Tensor]


def compose(parts: Sequence[tuple[Artifact, float]]) -> Artifact:
    """An adapter in memory: the weights of all parts, each at its factor, and the first one's other files.

    Raises Unsupported where a part does not add up: anything but plain LoRA, whole tensors, biases.
    """
    if sum(file.size for part, _ in parts for file in part.weight_files) > _MOST_BYTES:
        raise Unsupported(f"the adapters together are larger than {_MOST_BYTES:,} bytes")
    found: dict[str, list[Factors]] = defaultdict(list)
    for part, factor in parts:
        for module, left, right in _factors(part, factor):
            found[module].append((left, right))
    tensors: dict[str, Tensor] = {}
    for module, factors in found.items():
        try:
            left, right = torch.cat([b for b, _ in factors], 1), torch.cat([a for _, a in factors], 0)
        except RuntimeError as error:
            raise Unsupported(f"the adapters do not have one shape at {module}") from error
        tensors[f"base_model.model.{module}.lora_A.weight"] = right.contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = left.contiguous()
    ranks = {module: sum(a.shape[0] for _, a in factors) for module, factors in found.items()}
    first = parts[0][0]
    files = [
        *(file for file in first.files if file not in first.weight_files and file.path not in _OWN),
        _in_memory("adapter_config.json", json.dumps(_config(first, ranks)).encode()),
        _in_memory("adapter_model.safetensors", save(tensors)),
    ]
    names = tuple(f"{part.reference} × {factor:g}" for part, factor in parts)
    composed = Artifact.of(
        " + ".join(names), " + ".join(f"{part.resolved} × {factor:g}" for part, factor in parts), files
    )
    problems = (*composed.problems, *_problems([part for part, _ in parts]))
    return replace(composed, composition=names, problems=problems)


def _factors(part: Artifact, factor: float) -> list[tuple[str, Tensor, Tensor]]:
    """(module, B at its scale, A) of every module, float32."""
    config, index = part.adapter or AdapterConfig(), part.tensors()
    found = []
    for module in adapted_modules(index):
        _check(part, config, module)
        left, right = (index.read(module.parts[name]).float() for name in ("lora_B", "lora_A"))
        if left.dim() != 2 or right.dim() != 2 or left.shape[1] != right.shape[0]:
            raise Unsupported(f"{module.name} has no two factors of one matrix", where=part.reference)
        scale = lora_scale(config, module, right.shape[0])
        found.append((module.module, left * (scale * factor), right))
    if not found:
        raise Unsupported("has no weights", where=part.reference)
    return found


def _check(part: Artifact, config: AdapterConfig, module: AdaptedModule) -> None:
    if config.method not in ("lora", "rslora") or not is_plain_lora(module):
        raise Unsupported(
            f"{module.name} is more than a product of two factors ({config.method or 'unknown method'}), "
            "and does not add up with others",
            where=part.reference,
        )
    if not is_declared(config, module):
        raise Unsupported(
            f"has factors at {module.name}, which its configuration does not declare", where=part.reference
        )


def _config(first: Artifact, ranks: dict[str, int]) -> dict[str, Any]:
    """Of the joint adapter: every module at its joint rank and scale 1."""
    raw = first.adapter.raw if first.adapter else {}
    most = max(ranks.values())
    own = {module: rank for module, rank in ranks.items() if rank != most}
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": raw.get("base_model_name_or_path"),
        "task_type": raw.get("task_type"),
        "fan_in_fan_out": raw.get("fan_in_fan_out") is True,
        "inference_mode": True,
        "r": most,
        "lora_alpha": most,
        "rank_pattern": own,
        "alpha_pattern": own,
        "target_modules": sorted({module.rpartition(".")[2] for module in ranks}),
        "bias": "none",
    }


def _problems(parts: Sequence[Artifact]) -> tuple[str, ...]:
    bases = sorted({part.declared_base for part in parts if part.declared_base})
    differ = f"the parts of the stack declare different bases: {', '.join(repr(one[:80]) for one in bases)}"
    return (differ,) if len(bases) > 1 else ()


def _in_memory(path: str, content: bytes) -> ArtifactFile:
    return ArtifactFile(path, len(content), lambda _: MemoryBytes(content))
