"""FTA403 container-anomaly: would two readers see different things in the same archive?

**Question.** Do local headers and directory of an archive disagree, are there two directories, duplicate or
colliding names, wrong checksums or flags, overlapping members, bytes outside every member, names that climb
out of the folder, links, or a second format in the same file?

**Why an attacker causes it.** A scanner that uses one library and a loader that uses another can be shown
different members: CVE-2025-1944 (names in local headers), CVE-2025-1945 (flag bits), CVE-2025-10156
(checksums), CVE-2025-1889 (extensions) each hid a pickle from a scanner while torch loaded it.

**How it is decided.** The archive's directory, its local headers and the bytes between them are compared;
every member is looked into whatever is odd about it. HIGH for whatever makes readers disagree or leaves the
folder, MEDIUM for damage and harmless remains.

**Known false positives.** Archives with a self-extracting stub or a signature block.
**Known evasions.** Archives of kinds that are not read are listed by FTA499.
**Cost.** 30 bytes per member and the checksums of at most 256 MiB per file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from detectors.file_facts import SurveyDetector
from ftsec_audit.formats.facts import Fact, FileFacts
from ftsec_audit.formats.sniff import ARCHIVES
from ftsec_audit.types import Rule, Severity

RULE = Rule(
    id="FTA403",
    name="container-anomaly",
    question="Would two readers see different things in the same archive?",
    severity=Severity.HIGH,
    remediation="Unpack and repack the archive with an ordinary tool, or ask its author for a sound copy.",
)


@dataclass(frozen=True, kw_only=True)
class ContainerAnomaly(SurveyDetector):
    """Reports archives that are ambiguous or lead out of their folder."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)
    clean = "{n} archives and compressed files, none ambiguous"
    absent = "no file is an archive or compressed"

    def found(self, facts: FileFacts) -> Sequence[Fact]:
        return facts.container

    def asked(self, facts: FileFacts) -> int:
        return int(facts.kind in ARCHIVES)
