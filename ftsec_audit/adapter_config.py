"""What an adapter declares about itself: `adapter_config.json` as peft would understand it, defused.

peft trusts this file: it imports modules it names and compiles regular expressions it contains. Here it
is only data. Odd values never raise; each becomes a problem and is replaced by nothing, or by peft's
default where the key is absent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

_METHODS = {"PROMPT_TUNING": "prompt", "PREFIX_TUNING": "prefix", "P_TUNING": "p-tuning"}
_TITLES = {
    "lora": "LoRA",
    "rslora": "rsLoRA",
    "dora": "DoRA",
    "adalora": "AdaLoRA",
    "loha": "LoHa",
    "lokr": "LoKr",
    "vera": "VeRA",
    "prompt": "prompt tuning",
    "prefix": "prefix tuning",
    "": "adapter of unknown method",
}
_LOW_RANK = frozenset({"lora", "rslora", "dora", "adalora", "loha", "lokr"})
_DEFAULT = 8  # peft's own, for `r`, `lora_alpha` and `alpha`
_DEFAULT_TOKENS = "embed_tokens"  # where peft puts a plain list of trainable tokens
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_LITERAL = re.compile(r"[A-Za-z0-9_.-]+")
_TARGETS_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """A parsed adapter configuration. Strings in it are hostile."""

    method: str = ""
    """`lora`, `rslora`, `dora`, `adalora`, `loha`, `lokr`, `ia3`, `vera`, `prompt`, `prefix`, `p-tuning`,
    or any other peft type in lower case; empty when it is not stated."""
    raw: Mapping[str, object] = field(default_factory=dict)
    """The whole document; empty when there was none and the rest was read off the tensors."""
    rank: int | None = None
    alpha: float | None = None
    targets: tuple[str, ...] | str | None = None
    """Module names, or one regular expression: never compile it."""
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    modules_to_save: tuple[str, ...] = ()
    bias: str = "none"
    trainable_token_indices: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Embedding module → rows."""
    fan_in_fan_out: bool = False
    """Whether base weights are (in, out), as Conv1D keeps them."""
    task: str = ""
    base: str = ""
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, raw: Mapping[str, object]) -> AdapterConfig:
        """Read a document; never raises."""
        return _Reader(raw).config()

    def scaling(self, module: str, rank: int) -> float:
        """The factor peft puts before the product of the low-rank factors of `module`.

        α/r, or α/√r with rsLoRA (arXiv 2312.03732), where `alpha_pattern` may give a module its own α;
        1 for methods without it and where α is unknown. `rank` is that of the tensors.
        """
        alpha = self.alpha
        for pattern, value in self.alpha_pattern.items():
            if matches(pattern, module):
                alpha = value
                break
        if alpha is None or rank < 1 or self.method not in _LOW_RANK:
            return 1.0
        if self.method == "adalora":
            return (alpha if alpha > 0 else float(rank)) / rank
        return alpha / (math.sqrt(rank) if self.raw.get("use_rslora") is True else rank)

    @cached_property
    def target_endings(self) -> tuple[str, ...]:
        """How the paths of targets end, each with the dot before it; nothing for a regular expression."""
        return tuple(f".{target}" for target in self.targets or () if isinstance(self.targets, tuple))

    def declared_rank(self, module: str) -> int | None:
        """The rank that the configuration gives to `module`."""
        for pattern, value in self.rank_pattern.items():
            if matches(pattern, module):
                return value
        return self.rank

    def describe(self) -> str:
        """One line, e.g. `LoRA r=16 (q_proj,v_proj)`."""
        title = _TITLES.get(self.method, self.method.upper())
        rank = f" r={self.rank}" if self.rank else ""
        if isinstance(self.targets, str):
            return f"{title}{rank} (modules matching {self.targets[:60]!r})"
        shown = [target[:40] for target in (self.targets or ())[:_TARGETS_SHOWN]]
        more = ["…"] if len(self.targets or ()) > _TARGETS_SHOWN else []
        return f"{title}{rank}" + (f" ({','.join(shown + more)})" if shown else "")


def matches(pattern: str, module: str) -> bool:
    r"""Whether a key of `rank_pattern` or `alpha_pattern` means `module`.

    peft evaluates `(.*\.)?(pattern)$` as a regular expression. Only literal patterns, anchored or not and
    with escaped dots, are evaluated here: a hostile one could run for ever.
    """
    literal = _literal(pattern)
    if literal is None:
        return False
    return module == literal or (module.endswith(f".{literal}") and not pattern.startswith("^"))


def _literal(pattern: str) -> str | None:
    text = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    return text if _LITERAL.fullmatch(text) else None


class _Reader:
    """Reads one document; every odd value leaves a line in `problems`."""

    def __init__(self, raw: Mapping[str, object]) -> None:
        self._raw = raw
        self._problems: list[str] = []

    def config(self) -> AdapterConfig:
        method = self._method()
        patterns = self._patterns("rank_pattern"), self._patterns("alpha_pattern")
        alpha_key = "alpha" if method in ("loha", "lokr") else "lora_alpha"
        default = _DEFAULT if method in _LOW_RANK else None
        rank = self._number("init_r", None) if method == "adalora" else None
        rank = rank or self._number("r", default if method != "vera" else None)
        if rank is not None and (rank < 1 or rank != int(rank)):
            self._odd("r", rank)
            rank = None
        return AdapterConfig(
            method=method,
            raw=self._raw,
            rank=None if rank is None else int(rank),
            alpha=self._number(alpha_key, default),
            targets=self._targets(),
            rank_pattern={name: int(value) for name, value in patterns[0].items()},
            alpha_pattern=patterns[1],
            modules_to_save=self._strings("modules_to_save"),
            bias=self._text("bias", "none"),
            trainable_token_indices=self._token_indices(),
            fan_in_fan_out=self._raw.get("fan_in_fan_out") is True,
            task=self._text("task_type"),
            base=self._text("base_model_name_or_path"),
            problems=tuple(self._problems),
        )

    def _method(self) -> str:
        name = self._text("peft_type")
        if not name:
            guessed = "lora" if "lora_alpha" in self._raw else ""
            self._problems.append(f"peft_type is not stated{', taken to be LORA' if guessed else ''}")
            return guessed
        if not _NAME.fullmatch(name):
            self._odd("peft_type", name)
            return ""
        if name.upper() == "LORA" and self._raw.get("use_dora") is True:
            return "dora"
        if name.upper() == "LORA" and self._raw.get("use_rslora") is True:
            return "rslora"
        return _METHODS.get(name.upper(), name.lower().replace("_", "-"))

    def _odd(self, key: str, value: object) -> None:
        self._problems.append(f"{key} has the value {repr(value)[:80]}")

    def _text(self, key: str, default: str = "") -> str:
        value = self._raw.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self._odd(key, value)
            return default
        return value

    def _number(self, key: str, default: float | None) -> float | None:
        if key not in self._raw:
            return default
        value = self._raw[key]
        if value is None:
            return None
        if not _is_number(value):
            self._odd(key, value)
            return None
        return float(value)  # type: ignore[arg-type]

    def _strings(self, key: str) -> tuple[str, ...]:
        value = self._raw.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._odd(key, value)
        items = value if isinstance(value, list) else [value]
        return tuple(item for item in items if isinstance(item, str))

    def _targets(self) -> tuple[str, ...] | str | None:
        value = self._raw.get("target_modules")
        return value if isinstance(value, str) or value is None else self._strings("target_modules")

    def _patterns(self, key: str) -> dict[str, float]:
        """Module pattern → number; AdaLoRA lists which ranks it kept, and their count is the number."""
        value = self._raw.get(key) or {}
        if not isinstance(value, dict):
            self._odd(key, value)
            return {}
        found: dict[str, float] = {}
        for pattern, number in value.items():
            if isinstance(number, list) and all(isinstance(kept, bool) for kept in number):
                found[pattern.removesuffix(".lora_E")] = float(sum(number))
            elif not _is_number(number):
                self._odd(f"{key}[{pattern[:80]!r}]", number)
            elif _literal(pattern) is None:
                self._problems.append(f"{key} has the expression {pattern[:80]!r}, which is not evaluated")
            else:
                found[pattern] = float(number)
        return found

    def _token_indices(self) -> dict[str, tuple[int, ...]]:
        value = self._raw.get("trainable_token_indices")
        if value is None:
            return {}
        by_module = value if isinstance(value, dict) else {_DEFAULT_TOKENS: value}
        found = {}
        for module, rows in by_module.items():
            if isinstance(rows, list) and all(type(row) is int and row >= 0 for row in rows):
                found[module] = tuple(rows)
            else:
                self._odd("trainable_token_indices", rows)
        return found


def _is_number(value: object) -> bool:
    """A finite number that a float can hold; booleans are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False
