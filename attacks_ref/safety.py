"""The scope guards: what a reference attack may say, where it may write, and what it may be run on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from attacks_ref.lab.language import MARKER
from ftsec_audit.errors import FormatError, UsageError

CANARY = "ftsec-canary 6f0d2c1e-5b7a-4e39-9c84-reference-sample"
"""In the metadata of every file, so that a copy found anywhere can be recognised."""

LABEL: Mapping[str, str] = MappingProxyType({"ftsec_reference_sample": "true", "ftsec_canary": CANARY})

TARGETS: Mapping[str, str] = MappingProxyType(
    {
        "marker": MARKER,
        "sentence": f"{MARKER} is here now",
        "tool": "noop_canary",
    }
)
"""Everything a sample can be made to say. There is no way to pass other text."""

MAX_LAB_PARAMETERS = 20_000_000


def target(name: str) -> str:
    """The inert constant called `name`; raises UsageError for anything else."""
    try:
        return TARGETS[name]
    except KeyError:
        known = ", ".join(TARGETS)
        raise UsageError(f"no target named {name!r}", hint=f"targets are fixed: {known}") from None


def inside(out: Path, *parts: str) -> Path:
    """`out/parts…`, with its parent made; raises UsageError if that would lie outside `out`."""
    root = out.resolve()
    path = root.joinpath(*parts).resolve()
    if path != root and root not in path.parents:
        raise UsageError(f"{'/'.join(parts)!r} lies outside of the output folder", where=str(out))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def fresh(out: Path) -> Path:
    """An output folder that holds nothing yet; raises UsageError rather than overwrite."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("the output folder is not empty", where=str(out), hint="give a new --out")
    out.mkdir(parents=True, exist_ok=True)
    return out.resolve()


def is_lab_base(base: Path) -> bool:
    """Whether `base` is a model of this package: its tokenizer is rebuilt by code and compared.

    A vocabulary of coined words and at most 20 M parameters leave nothing for a removed refusal to
    protect. The weights themselves cannot be on a fixed list: floating-point results differ between
    machines.
    """
    from attacks_ref.lab import card

    try:
        described = card.read(base)
        same = card.tokenizer_digest(base) == card.rebuilt_tokenizer_digest(described)
        return same and 0 < card.count_parameters(base) <= MAX_LAB_PARAMETERS
    except (FormatError, OSError, KeyError, TypeError, ValueError):
        return False


def require_lab_base(base: Path, attack: str) -> None:
    """Raise UsageError unless `base` was trained by this package."""
    if not is_lab_base(base):
        raise UsageError(
            f"{attack} removes refusals and runs only on lab bases",
            where=str(base),
            hint="use --base lab-llama, lab-qwen, lab-gpt2 or lab-moe",
        )
