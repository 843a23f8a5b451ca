"""FTA408 foreign-format-code: does a file in another model format carry code or name code to be called?

**Question.** Does a Keras file hold Lambda layers or name modules to import, a TensorFlow graph call Python
or touch files, a NeMo or Hydra configuration name a callable (`_target_`), an archive bring handlers, native
libraries or a TorchScript program?

**Why an attacker causes it.** Each is code that the native loader runs (CVE-2024-3660, CVE-2025-1550,
CVE-2025-49655 for Keras), in formats that weight scanners pass over.

**How it is decided.** The formats are recognised by content and searched for what carries code; their
weights are not read, which FTA499 says. HIGH; CRITICAL where the named callable is known to execute code;
MEDIUM for TorchScript and for graph operations that need attacker-chosen inputs.

**Known false positives.** Lambda layers written by the author of an honest model.
**Known evasions.** Code in formats that are not recognised.
**Cost.** One pass over at most 256 MiB per file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from detectors.file_facts import SurveyDetector
from ftsec_audit.formats.facts import Fact, FileFacts
from ftsec_audit.types import Rule, Severity

RULE = Rule(
    id="FTA408",
    name="foreign-format-code",
    question="Does a file in another model format carry code or name code to be called?",
    severity=Severity.HIGH,
    remediation="Do not load the file with its native loader; ask for the weights as safetensors.",
)


@dataclass(frozen=True, kw_only=True)
class ForeignFormat(SurveyDetector):
    """Reports code in Keras, TensorFlow, NeMo, TorchServe and TorchScript files."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)
    clean = "{n} files, none of which carries code of another format"

    def found(self, facts: FileFacts) -> Sequence[Fact]:
        return facts.foreign
