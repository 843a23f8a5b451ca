"""FTA413 template-disagreement: do two copies of a template tell different stories?

**Question.** Does the artifact carry two copies of the same chat template (in `tokenizer_config.json`,
`chat_template.jinja`, `chat_template.json`, `processor_config.json`, a GGUF file) that write
different words for the same conversation?

**Why an attacker causes it.** A reviewer reads one copy, the serving program loads another: newer
`transformers` prefers `chat_template.jinja`, older releases and other runtimes `tokenizer_config.json`
or the GGUF header.

**How it is measured.** Copies with the same name are compared as text; those that differ are rendered
over the same grid of conversations, each also with the words that its own conditions ask for. Different
words are a detection at HIGH, different markup or blanks only at LOW.

**Known false positives.** Repositories that were converted at different times (graded LOW unless the
words differ). **Known evasions.** Copies that agree with each other and are both poisoned (FTA412).
**Cost.** One child process where texts differ, nothing otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ftsec_audit.contracts import ArtifactDetector, Subject
from ftsec_audit.errors import FtsecError
from ftsec_audit.types import Confidence, Evidence, Finding, Location, Observation, Rule, Severity

if TYPE_CHECKING:
    from ftsec_audit.formats.chat_template import TemplateCopy
    from ftsec_audit.formats.template_probe import Behaviour

RULE = Rule(
    id="FTA413",
    name="template-disagreement",
    question="Do two copies of the same chat template write different conversations?",
    severity=Severity.HIGH,
    remediation="Keep one copy of the template, the reviewed one, and delete the others.",
)


@dataclass(frozen=True, kw_only=True)
class TemplateDisagreement(ArtifactDetector):
    """Compares all copies that share a name."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)

    def inspect(self, subject: Subject) -> Iterator[Observation]:
        from ftsec_audit.formats.chat_template import collect

        groups: dict[str, list[TemplateCopy]] = defaultdict(list)
        templates = collect(subject.artifact)
        yield from templates.unread
        for copy in templates.copies:
            groups[copy.name].append(copy)
        pairs = [(group[0], other) for group in groups.values() for other in group[1:]]
        if not pairs and not templates.unread:
            yield RULE.not_applicable("no template has a second copy")
            return
        findings = [finding for pair in pairs if (finding := _disagreement(*pair))]
        yield from findings
        if not findings and templates.unread:
            yield RULE.not_supported(templates.gap)
        elif not findings:
            yield RULE.not_detected(f"{len(pairs) + 1} copies of the template agree")


def _own_habits(first: TemplateCopy, other: TemplateCopy) -> list[Behaviour]:
    """What only one of the two does of itself, e.g. once a message holds certain words."""
    from ftsec_audit.formats.template_ast import analyse
    from ftsec_audit.formats.template_probe import observe

    try:
        ours, theirs = (observe(copy.text, analyse(copy.text)) for copy in (first, other))
    except FtsecError:
        return []  # FTA411 lists the copy as not looked at
    return [habit for habit in (*ours, *theirs) if (habit in ours) != (habit in theirs)]


def _disagreement(first: TemplateCopy, other: TemplateCopy) -> Finding | None:
    from ftsec_audit.formats.template_difference import difference
    from ftsec_audit.formats.template_probe import compare, same_output

    if first.text.split() == other.text.split():
        return None
    seen = [*compare(other.text, first.text), *compare(first.text, other.text), *_own_habits(first, other)]
    if not seen and same_output(first.text, other.text):
        return None
    message = (
        seen[0].summary.replace("the base's template", "the other copy")
        if seen
        else "only markup or blanks differ"
    )
    evidence = Evidence(
        message=message,
        location=Location(file=other.file),
        excerpt=seen[0].added[:300] if seen else "",
        details={"copies": [first.place, other.place], "template_diff": difference(first, other)},
    )
    return RULE.detected(
        f"{other.place} and {first.place} render the same conversation differently",
        confidence=Confidence.HIGH,
        severity=Severity.HIGH if seen else Severity.LOW,
        evidence=[evidence],
    )
