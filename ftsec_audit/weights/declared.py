"""Whether an adapter's configuration declares the change that its tensors make."""

from __future__ import annotations

from ftsec_audit.adapter_config import AdapterConfig, matches
from ftsec_audit.weights.adapter_keys import AdaptedModule
from ftsec_audit.weights.naming import has_token_rows, unwrapped

_ALL_LINEAR = "all-linear"


def is_declared(config: AdapterConfig, module: AdaptedModule) -> bool:
    """What peft would create for this configuration holds a place for these tensors.

    Where targets are a regular expression that is not evaluated, or are not stated at all (peft then has
    a default for each architecture), factors count as declared: nothing says that they are not.
    """
    name = unwrapped(module.module)
    if module.method in ("prompt", "vera-shared"):
        return True
    if module.method == "tokens":
        return bool(config.trainable_token_indices) or config.method == "trainable-tokens"
    if module.method == "saved":
        return _is_saved(config, name) or _is_declared_bias(config, name) or _goes_with_target(config, name)
    return _is_target(config, name)


def _is_target(config: AdapterConfig, name: str) -> bool:
    targets = config.targets
    if targets is None or targets == _ALL_LINEAR:
        return not (targets == _ALL_LINEAR and has_token_rows(name))
    if isinstance(targets, str):
        return True
    return f".{name}".endswith(config.target_endings)


def _is_saved(config: AdapterConfig, name: str) -> bool:
    """In a module whose path ends with an entry of `modules_to_save`, letters and all.

    peft asks no more than that: `classifier` also saves `pre_classifier`.
    """
    steps = name.removesuffix(".bias").split(".")
    ancestors = [".".join(steps[: k + 1]) for k in range(len(steps))]
    return any(path.endswith(saved) for saved in config.modules_to_save if saved for path in ancestors)


def _is_declared_bias(config: AdapterConfig, name: str) -> bool:
    if not name.endswith(".bias"):
        return False
    if name.endswith((".lora_A.bias", ".lora_B.bias")):
        return config.raw.get("lora_bias") is True
    if config.bias == "lora_only":
        return _is_target(config, name.removesuffix(".bias"))
    return config.bias == "all"


def _goes_with_target(config: AdapterConfig, name: str) -> bool:
    """Norms of LN tuning, and embeddings: peft saves those whole when they are targets."""
    if config.method == "ln-tuning":
        return _is_target(config, name.removesuffix(".bias"))
    targets = config.targets if isinstance(config.targets, tuple) else ()
    return has_token_rows(name) and any(matches(target, name) for target in targets)
