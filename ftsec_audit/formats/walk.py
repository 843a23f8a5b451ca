"""One file of an artifact, walked from its outermost container inwards by what it holds.

Each kind of content has one reader; a reader that finds something inside hands it back to the walk.
Every limit that is reached, and everything that cannot be read, ends up in the facts: nothing is left
out silently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ftsec_audit.errors import BudgetExceeded, FormatError, SourceError, Unsupported
from ftsec_audit.files import ArtifactFile, ByteReader
from ftsec_audit.formats.facts import Fact, FileFacts
from ftsec_audit.formats.gguf import GgufLimits
from ftsec_audit.formats.pickle_state import PickleLimits
from ftsec_audit.formats.sniff import Kind, sniff
from ftsec_audit.formats.unpacking import UnpackLimits
from ftsec_audit.types import Severity


@dataclass(frozen=True, kw_only=True)
class SurveyLimits:
    """How far a file is followed."""

    pickle: PickleLimits = field(default_factory=PickleLimits)
    unpack: UnpackLimits = field(default_factory=UnpackLimits)
    gguf: GgufLimits = field(default_factory=GgufLimits)
    streams: int = 10_000
    """Pickle streams in one file."""
    facts: int = 200
    """Facts kept per file and rule; the count goes on."""
    checksum_bytes: int = 256 << 20
    """Bytes of archive members whose checksum is verified, per file."""
    scan_bytes: int = 256 << 20
    """Bytes searched for code in formats that are not parsed."""


@dataclass
class Walk:
    """The state of walking one file."""

    facts: FileFacts
    limits: SurveyLimits
    unpacked: int = 0
    """Bytes unpacked so far."""
    checked: int = 0
    """Bytes whose checksum was verified."""
    unverified: int = 0
    """Archive members whose checksum was not verified."""
    readers: dict[Kind, ContentReader] = field(default_factory=dict)

    @property
    def file(self) -> ArtifactFile:
        return self.facts.file

    def into(self, reader: ByteReader, member: str, depth: int, *, nested: bool = False) -> Kind:
        """Look into some content; returns what it was taken for."""
        kind = sniff(reader)
        if depth > self.limits.unpack.depth:
            if kind not in (Kind.TEXT, Kind.IMAGE, Kind.EMPTY):
                message = f"containers nested deeper than {self.limits.unpack.depth}"
                self.note(self.facts.bombs, "depth", message, Severity.HIGH, member)
                self.unread("depth", message, member)
            return kind
        place = Place(reader=reader, member=member, depth=depth, kind=kind, nested=nested)
        try:
            self.readers[kind](self, place)
        except BudgetExceeded as error:
            self.note(self.facts.bombs, "limit", str(error.what), Severity.HIGH, place.member)
        except FormatError as error:
            self.unread("damaged", error.what, member)
        except Unsupported as error:
            self.unread("unsupported", error.what, member)
        except SourceError as error:
            self.unread("source", str(error), member)
        return kind

    def note(
        self,
        facts: list[Fact],
        code: str,
        message: str,
        severity: Severity,
        member: str = "",
        offset: int | None = None,
        excerpt: str = "",
    ) -> None:
        if len(facts) < self.limits.facts:
            facts.append(
                Fact(
                    code=code,
                    message=message,
                    severity=severity,
                    member=member,
                    offset=offset,
                    excerpt=excerpt,
                )
            )

    def unread(self, code: str, message: str, member: str = "", offset: int | None = None) -> None:
        """Something that should have been read and was not."""
        self.note(self.facts.unread, code, message, Severity.MEDIUM, member, offset)

    def skipped(self, code: str, message: str, member: str = "") -> None:
        """Something that need not be read."""
        self.note(self.facts.skipped, code, message, Severity.INFO, member)

    def budget(self) -> int:
        """Bytes that may still be unpacked."""
        return max(0, self.limits.unpack.total - self.unpacked)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Some content and where it was found."""

    reader: ByteReader
    member: str
    """Path from the file inwards; empty for the file itself."""
    depth: int
    kind: Kind
    nested: bool = False
    """Whether it lies inside a string of a pickle."""

    def inner(self, name: str) -> str:
        return f"{self.member} › {name}" if self.member else name


ContentReader = Callable[[Walk, Place], None]
