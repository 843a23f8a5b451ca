"""What was read off a file: the common currency between the readers and the detectors of the FTA4xx rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ftsec_audit.files import ArtifactFile
from ftsec_audit.formats.pickle_policy import Denial
from ftsec_audit.formats.sniff import Kind
from ftsec_audit.types import Severity

if TYPE_CHECKING:
    from ftsec_audit.formats.gguf import GgufHeader


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One exact observation about the bytes of a file."""

    code: str
    """Stable name of what it is, e.g. `two-end-records`."""
    message: str
    severity: Severity
    member: str = ""
    """Where inside the file, from the outermost container inwards: hostile."""
    offset: int | None = None
    """Within the innermost container."""
    excerpt: str = ""
    details: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeniedImport:
    """A denial with its place."""

    denial: Denial
    member: str
    nested: bool
    """Whether the stream lies inside a string of another stream."""


@dataclass(kw_only=True)
class FileFacts:
    """Everything the survey read off one file of an artifact."""

    file: ArtifactFile
    kind: Kind = Kind.BINARY
    streams: int = 0
    """Pickle streams that were followed."""
    pickle_code: list[DeniedImport] = field(default_factory=list)
    pickle_structure: list[Fact] = field(default_factory=list)
    container: list[Fact] = field(default_factory=list)
    bombs: list[Fact] = field(default_factory=list)
    safetensors: list[Fact] = field(default_factory=list)
    gguf_structure: list[Fact] = field(default_factory=list)
    onnx: list[Fact] = field(default_factory=list)
    foreign: list[Fact] = field(default_factory=list)
    unread: list[Fact] = field(default_factory=list)
    """What should have been read and could not be: the artifact is incomplete."""
    skipped: list[Fact] = field(default_factory=list)
    """What is not read on purpose, and needs no reading for a verdict."""
    gguf: GgufHeader | None = None

    def findings(self) -> int:
        return sum(
            len(facts)
            for facts in (
                self.pickle_code,
                self.pickle_structure,
                self.container,
                self.bombs,
                self.safetensors,
                self.gguf_structure,
                self.onnx,
                self.foreign,
            )
        )
