"""FTA401 pickle-code: would loading a file import or call something that a model does not need?

**Question.** Does a pickle stream in any file, container or nested string name a global that is not on the
allow list, or use an allowed one in a way that reaches further?

**Why an attacker causes it.** A pickle is a program. `torch.load`, `joblib.load` and `numpy.load` run it
with the rights of the user, before any weight is seen; this is the oldest and still the commonest way to
run code through a model file (CWE-502).

**How it is decided.** Every opcode of every stream is followed by a symbolic machine that imports nothing.
Each imported (module, name) pair is compared with a list of exact pairs, every one of which has a reason;
everything else is denied, so are names with a dot, names computed while loading, extension codes, calls of
anything but a plain name, state assigned to classes, and three functions that are harmless in one form
only (`getattr` on an enumeration, `_load_from_bytes` on literal bytes, `encode` to Latin-1). CRITICAL when
the name is known to execute code or reach outside, HIGH when it is merely not known.

**Known false positives.** Models saved whole (`torch.save(model)`) import the class of the model from its
own module, and custom classes in training arguments come from the trainer's code: both execute foreign
code on loading and are reported for that reason.
**Known evasions.** A callable on the list whose own implementation is exploitable.
**Cost.** One pass over the opcodes; tensors are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from detectors.file_facts import SurveyDetector
from ftsec_audit.formats.facts import DeniedImport, Fact, FileFacts
from ftsec_audit.formats.pickle_policy import Ground
from ftsec_audit.types import Rule, Severity

RULE = Rule(
    id="FTA401",
    name="pickle-code",
    question="Would loading a file import or call something that a model does not need?",
    severity=Severity.CRITICAL,
    remediation="Do not load the file. Ask for the weights as safetensors, or load with weights_only=True.",
)
_CRITICAL = frozenset({Ground.DANGEROUS, Ground.COMPUTED, Ground.EXTENSION, Ground.HOOK})


@dataclass(frozen=True, kw_only=True)
class PickleCode(SurveyDetector):
    """Judges the imports and calls of every pickle stream against the allow list."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)
    clean = "{n} pickle streams import only what is on the allow list"
    absent = "no file holds a pickle"

    def found(self, facts: FileFacts) -> Sequence[Fact]:
        return [_fact(denied) for denied in facts.pickle_code]

    def asked(self, facts: FileFacts) -> int:
        return facts.streams

    def summary(self, path: str, ordered: Sequence[Fact]) -> str:
        targets = list(dict.fromkeys(str(fact.details["target"]) for fact in ordered))
        names = ", ".join(targets[:3]) + (f" and {len(targets) - 3} more" if len(targets) > 3 else "")
        return f"{path}: loading it imports {names}, which {ordered[0].details['effect']}"


def _fact(found: DeniedImport) -> Fact:
    denial = found.denial
    return Fact(
        code=denial.ground.name.lower(),
        message=f"{denial.opcode} {denial.target}: {denial.effect}; {denial.ground}",
        severity=Severity.CRITICAL if denial.ground in _CRITICAL else Severity.HIGH,
        member=found.member,
        offset=denial.offset,
        excerpt=f"{denial.target}{denial.arguments}",
        details={"target": denial.target, "effect": denial.effect},
    )
