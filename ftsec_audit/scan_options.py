"""Everything that one scan can be told, in one value.

`fa.scan("org/model", profile="deep")` takes these fields as keywords; whoever scans often the same way makes
the value once: `fa.scan("org/model", fa.ScanOptions(profile="deep"))`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ftsec_audit.types import Profile

if TYPE_CHECKING:
    from ftsec_audit.calibration.bank import Calibration
    from ftsec_audit.contracts import Progress
    from ftsec_audit.policy import Policy
    from ftsec_audit.session import Backend
    from ftsec_audit.signing import RequiredSignature
    from ftsec_audit.stacks import Further
    from ftsec_audit.suppress import Baseline, IgnoreFile

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """How an artifact is found, what it is asked, and who judges the answers."""

    base: str | None = None
    """The model it was tuned from; None: the one it declares."""
    no_base: bool = False
    """Compare with none."""
    parent: str | None = None
    """The unaligned model that the base was made from."""
    stack: Sequence[Further] = ()
    """Further adapters that are loaded with it: audited is what they are together."""
    offline: bool = False
    token: str | None = None
    """Of the Hub; None: the one that its own tools use."""

    profile: str | Profile = Profile.STANDARD
    select: Sequence[str] = ()
    """Only rules whose ids begin so."""
    ignore: Sequence[str] = ()
    """No rule whose id begins so."""

    policy: Policy | str | Path = "default"
    ignore_file: IgnoreFile | None = None
    baseline: Baseline | None = None
    calibration: Calibration | None = None
    """None: the shipped packs."""
    required_signature: RequiredSignature | None = None

    max_bytes: int | None = None
    """Of artifact and base together. With it nothing is hashed: the report has no digest."""
    max_seconds: float | None = None
    cache: bool = True
    """Whether measurements of the same bytes are used again."""
    hash_everything: bool = False
    """Whether each file gets a digest, also those that a scan need not read."""

    backend: Backend = "auto"
    """What runs the model: `onnx` only its exported graph, `torch` never one, `auto` what it is."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:1`."""
    seed: int = 0
    max_tokens: int | None = None
    """That models are asked; None: by profile and size."""
    probes: Path | None = None
    """The user's own prompts; None: those beside the base, else shipped ones."""
    show_prompts: bool = False
    """Whether the report may repeat the prompts, and not only name them."""
    languages: Sequence[str] = ()
    """To ask in; none: all of the prompts."""
    dataset: Path | None = None
    """The rows it was tuned on, if these are to be audited too."""

    progress: Progress | None = None
    command: str = ""
    """The command line that reproduces the report."""

    def changed(self, keywords: Mapping[str, Any]) -> ScanOptions:
        """With other values by name; raises TypeError for a name that is no field."""
        return replace(self, **keywords) if keywords else self


def takes_scan_options(function: F) -> F:
    """Show the fields as keywords of a function of `(reference, options, **keywords)` in its help."""
    own = signature(function)
    first = [one for one in own.parameters.values() if one.kind is not Parameter.VAR_KEYWORD]
    keywords = signature(ScanOptions).parameters.values()
    function.__signature__ = own.replace(parameters=[*first, *keywords])  # type: ignore[attr-defined]
    return function
