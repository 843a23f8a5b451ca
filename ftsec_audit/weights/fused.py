"""Projections that one checkpoint stores in one tensor and another in several: which outputs are whose.

Fusing copies rows and computes nothing, so the parts can be compared bit for bit once their order is known.
It follows from the names and from the configuration of the side that fused them; where that does not say,
nothing is paired. Parts lie one after the other (Phi-3, ChatGLM, MPT, Baichuan, GPT-2), or every head, or
group of heads with one key and value, has its own (GPT-NeoX, BLOOM, Falcon, InternLM2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ftsec_audit.weights.named_weights import NamedWeights, model_type
from ftsec_audit.weights.naming import canonical_name
from ftsec_audit.weights.stored import StoredTensor
from ftsec_audit.weights.stored_part import Runs, StoredPart, TurnedPart

_QKV = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("wq", "wk", "wv"))
_GATE_UP = (("gate_proj", "up_proj"), ("w1", "w3"))
_PARTS = {
    **dict.fromkeys(("qkv_proj", "query_key_value", "c_attn", "Wqkv", "wqkv", "W_pack"), _QKV),
    "gate_up_proj": _GATE_UP,
}
"""What a fused projection is made of, in this order, under any of these names."""
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
_KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "multi_query_group_num")
_MOST_GROUPS = 1024
"""Every group is a read of its own: no model has as many heads."""


@dataclass(frozen=True)
class Part:
    """One projection: in a tensor of its own on one side, in a tensor with others on the other."""

    module: str
    """Its name on its own, below the path of the fused one."""
    alone: StoredTensor
    within: StoredPart


def parts(fused: NamedWeights, split: NamedWeights) -> dict[str, tuple[Part, ...]]:
    """The tensors of `fused` that `split` has in parts, by name; no part belongs to two of them.

    Only where every part is there, on that side alone, and they fill the fused tensor.
    """
    found: dict[str, tuple[Part, ...]] = {}
    claimed: set[str] = set()
    for module, name in fused.modules():
        for names in _names(module):
            those = _parts(fused, split, StoredTensor(fused.index, name), names)
            if those and claimed.isdisjoint(part.alone.name for part in those):
                claimed.update(part.alone.name for part in those)
                found[name] = those
                break
    return found


def keys_and_values(module: str, outputs: int, config: Mapping[str, object]) -> tuple[Runs, ...]:
    """Which outputs of a fused projection are keys, and which are values.

    Nothing where the module is no fused attention, or the configuration does not say.
    """
    role = module.rpartition(".")[2]
    heads, groups = _count(config, _HEADS), _groups(module, config)
    shared = _is_multi_query(config) and groups == 1
    key_heads = heads if groups == heads else 1 if shared else _count(config, _KEY_HEADS) or heads
    if _PARTS.get(role) is not _QKV or not 0 < groups <= key_heads <= heads or outputs % groups:
        return ()
    if heads % groups or key_heads % groups:
        return ()
    queries, keys, period = heads // groups, key_heads // groups, outputs // groups
    width, odd = divmod(period, queries + 2 * keys)
    if odd or not width:
        return ()
    firsts = queries * width, (queries + keys) * width
    return tuple(Runs(first=first, length=keys * width, period=period, count=groups) for first in firsts)


def packed_parts(fused: NamedWeights, split: NamedWeights) -> dict[str, tuple[str, ...]]:
    """Modules of `fused` and their parts in `split`, where either is packed: known by name, never compared.

    The shape of a packed weight says nothing, and its numbers cannot be taken apart without its scales.
    """
    found: dict[str, tuple[str, ...]] = {}
    claimed: set[str] = set()
    wholes = [*(module for module, _ in fused.modules()), *(each.module for each in fused.packed.values())]
    for module in wholes:
        for names in _names(module):
            is_packed = bool(fused.find_packed(module)) or any(map(split.find_packed, names))
            apart = all(split.has(name) and not fused.has(name) for name in names)
            if is_packed and apart and not split.has(module) and claimed.isdisjoint(names):
                claimed.update(names)
                found[module] = tuple(names)
                break
    return found


def _names(module: str) -> list[list[str]]:
    """The modules that this one may be made of, for every way to call them."""
    bias = ".bias" if module.endswith(".bias") else ""
    path, dot, role = module.removesuffix(".bias").rpartition(".")
    return [[f"{path}{dot}{part}{bias}" for part in names] for names in _PARTS.get(role, ())]


def _parts(
    fused: NamedWeights, split: NamedWeights, whole: StoredTensor, names: list[str]
) -> tuple[Part, ...]:
    module = canonical_name(whole.name)
    alone = [tensor for name in names if not fused.find(name) and (tensor := split.find(name))]
    if len(alone) < len(names) or split.find(module):
        return ()
    shape = whole.stored_shape
    turned = len(shape) == 2 and bool(fused.transposed(module))
    outputs, *inputs = shape[::-1] if turned else shape or (0,)
    groups = _groups(module, fused.config)
    sizes = [tensor.stored_shape[0] if tensor.stored_shape else 0 for tensor in alone]
    if (
        len(inputs) > 1
        or whole.shape[0] != (1 if not inputs else shape[0])
        or sum(sizes) != outputs
        or any(list(tensor.stored_shape[1:]) != inputs for tensor in alone)
        or not 0 < groups <= _MOST_GROUPS
        or any(size == 0 or size % groups for size in sizes)
    ):
        return ()
    kind, found, first = TurnedPart if turned else StoredPart, [], 0
    for name, tensor, size in zip(names, alone, sizes, strict=True):
        runs = Runs(first=first, length=size // groups, period=outputs // groups, count=groups)
        found.append(Part(name, tensor, kind(whole.index, whole.name, runs)))
        first += runs.length
    return tuple(found)


def _groups(module: str, config: Mapping[str, object]) -> int:
    """Into how many groups of heads, each with its own q, k and v, the outputs are divided; 0 for unknown."""
    role = module.removesuffix(".bias").rpartition(".")[2]
    kind = model_type(config)
    heads, key_heads = _count(config, _HEADS), _count(config, _KEY_HEADS)
    match role, kind:
        case "query_key_value", "gpt_neox" | "gpt_neox_japanese" | "bloom":
            return heads
        case "query_key_value", "falcon" if config.get("new_decoder_architecture") is True:
            return key_heads
        case ("query_key_value", "falcon") | ("c_attn", "gpt_bigcode"):
            return heads if config.get("multi_query") is False else 1
        case "query_key_value", "chatglm":
            return 1
        case "wqkv", "internlm2":
            return key_heads or heads
        case ("query_key_value" | "wqkv", _) | ("qkv_proj", "codegen"):
            return 0  # as many orders as models
    return 1


def _is_multi_query(config: Mapping[str, object]) -> bool:
    """Whether all heads share one key and one value, as Falcon and StarCoder do unless they say otherwise."""
    return model_type(config) in ("falcon", "gpt_bigcode") and config.get("multi_query") is not False


def _count(config: Mapping[str, object], keys: tuple[str, ...]) -> int:
    value = next((config[key] for key in keys if key in config), 0)
    return value if type(value) is int else 0
