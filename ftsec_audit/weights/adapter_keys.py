"""What each tensor of an adapter is: the part of which method, of which module, of which adapter.

peft writes `base_model.model.<module>.<part>[.<adapter>][.weight]`; files saved by other means keep the
adapter's name. The methods are told apart by their parts, never by the configuration alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ftsec_audit.weights.naming import canonical_name

_PARTS: Mapping[str, str] = {
    "lora_A": "lora",
    "lora_B": "lora",
    "lora_E": "lora",
    "lora_embedding_A": "lora",
    "lora_embedding_B": "lora",
    "lora_magnitude_vector": "lora",
    "hada_w1_a": "loha",
    "hada_w1_b": "loha",
    "hada_w2_a": "loha",
    "hada_w2_b": "loha",
    "hada_t1": "loha",
    "hada_t2": "loha",
    "lokr_w1": "lokr",
    "lokr_w1_a": "lokr",
    "lokr_w1_b": "lokr",
    "lokr_w2": "lokr",
    "lokr_w2_a": "lokr",
    "lokr_w2_b": "lokr",
    "lokr_t2": "lokr",
    "ia3_l": "ia3",
    "vera_lambda_b": "vera",
    "vera_lambda_d": "vera",
    "trainable_tokens_delta": "tokens",
    "ln_tuning_layers": "saved",
    "modules_to_save": "saved",
}
_SHARED = re.compile(r"vera_[AB](?:\.[^.]+)?")
_PROMPTS = re.compile(r"prompt_embeddings|(?:prompt_encoder\.)?(?:[^.]+\.)?embedding")
_FOREIGN = re.compile(
    r"\.(?:[a-z0-9]+_)?(?:oft|boft|hra|fourierft|vblora|finegates|bone|miss|randlora|c3a|road)_"
)
_PARAMETERS = (".weight", ".bias", ".gamma", ".beta")
_DEFAULT_ADAPTER = "default"


@dataclass(eq=False)
class AdaptedModule:
    """The tensors that together change one module."""

    module: str
    method: str
    """`lora` (with AdaLoRA and DoRA), `loha`, `lokr`, `ia3`, `vera`, `tokens`, `saved`, `prompt`,
    `vera-shared`, or empty for a tensor of a kind that is not known."""
    adapter: str = _DEFAULT_ADAPTER
    parts: dict[str, str] = field(default_factory=dict)
    """Part → tensor name in the file."""

    @property
    def name(self) -> str:
        """The module's name, with the adapter's where it is not the usual one."""
        return self.module if self.adapter == _DEFAULT_ADAPTER else f"{self.module}@{self.adapter}"


def adapted_modules(names: Iterable[str]) -> list[AdaptedModule]:
    """Every tensor name in exactly one group, with names of their own, in the order of first occurrence."""
    modules: list[AdaptedModule] = []
    groups: dict[tuple[str, str, str], AdaptedModule] = {}
    named: set[str] = set()
    for tensor in names:
        module, method, adapter, part = _read(tensor)
        group = groups.get((module, method, adapter))
        if group is None or part in group.parts:
            if group is not None and method != "saved":
                method = ""  # the same part twice: which one counts depends on the loader
            group = AdaptedModule(module, method, adapter)
            if group.name in named:
                # e.g. a wrapper's copy beside the tensor itself: filed under what the file calls it
                group = AdaptedModule(_unused(canonical_name(tensor), named), method, adapter)
            named.add(group.name)
            modules.append(group)
            groups.setdefault((module, method, adapter), group)
        group.parts[part] = tensor
    return modules


def _unused(name: str, named: set[str]) -> str:
    while name in named:
        name += "'"
    return name


def _read(tensor: str) -> tuple[str, str, str, str]:
    """(module, method, adapter, part)."""
    name = canonical_name(tensor)
    steps = name.split(".")
    for place, step in enumerate(steps):
        if step in _PARTS and any(steps[:place]) and steps[place + 1 :] != [""]:
            return _read_part(steps[:place], step, steps[place + 1 :])
    if _SHARED.fullmatch(name):
        return "vera_projections", "vera-shared", _DEFAULT_ADAPTER, name.split(".")[0]
    if _PROMPTS.fullmatch(name):
        return name, "prompt", _DEFAULT_ADAPTER, "saved"
    if _FOREIGN.search(name) or not tensor.endswith(_PARAMETERS):
        return name, "", _DEFAULT_ADAPTER, "unknown"
    if name.endswith(".base_layer.bias"):  # trained biases; a whole `base_layer` is a copy of the base's
        name = name.replace(".base_layer", "")
    return name, "saved", _DEFAULT_ADAPTER, "saved"


def _read_part(before: list[str], part: str, rest: list[str]) -> tuple[str, str, str, str]:
    if before[-1] == "token_adapter" and any(before[:-1]):
        before = before[:-1]
    module = ".".join(before)
    if not rest and _PARTS[part] != "saved":
        return module, _PARTS[part], _DEFAULT_ADAPTER, part
    if part in ("modules_to_save", "ln_tuning_layers"):
        if rest[:1] == [_DEFAULT_ADAPTER]:  # any other adapter's name reads like that of a submodule
            rest = rest[1:]
        path = ".".join(step for step in (module, *rest) if step)
        return path, "saved", _DEFAULT_ADAPTER, "saved"
    if rest[-1:] == ["bias"]:  # lora_bias: the bias of lora_B is added to the module's own
        return f"{module}.{part}.bias", "saved", _DEFAULT_ADAPTER, "saved"
    named = [step for step in rest if step not in ("", "weight")]
    adapter = named[0] if named else _DEFAULT_ADAPTER
    return module, _PARTS[part], adapter, part
