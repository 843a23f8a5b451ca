"""FTA412 template-poisoning: does a chat template put words into the conversation?

**Question.** Does a template write, drop or rewrite something that neither the user, nor the system
message, nor the base model's template put there: because a message holds certain words, because of
the date, because the conversation is long, or always?

**Why an attacker causes it.** The template stands between the application and the model. A condition
on the last user turn that adds one hidden system line is a backdoor without a single changed weight,
and every weight scanner passes it.

**How it is measured.** (1) A taint analysis of the syntax tree marks conditions on the words or length
of a message and on the clock. (2) The template is rendered over a small grid of conversations, with
each of its own string constants planted in the user's turn (alone, inside, before, after, reversed,
all together), and with each string that the words of a message were *compared with* while rendering,
however the template put it together; natural language that appears beside the message, and only then,
is a reaction.
(3) Roles are compared by the headers around each turn, the generation prompt with the header the
template writes in history. (4) With a base that has a template, both are rendered over the same grid.
(5) Constants and text are searched for invisible characters and for sentences hidden as base64.

**Severity.** HIGH, but for one case. A *system prompt of the template's own* is MEDIUM: the one thing it does
is to write a visible text that is the same in every conversation of the grid (or in every one without a
system message: a default), no message is changed, and the text stands where the base's template puts a
system message. Deployed templates write such lines; whether this one is meant cannot be read off a
rendering, so its words are quoted for whoever can tell. The same text behind the user's words, in the turn
of the user or in the answer is put into somebody's mouth, and stays HIGH; so does whatever depends on what
a message says, on how long the conversation is or on the date.

**Known false positives.** None among 70 vendor templates. A fixed system prompt at the head of each of 16
vendor-style templates was MEDIUM against the same template without it, 16 of 16, as a default 16 of 16; 40
poisoned templates and 60 of the reference attack (five conditions, two effects, six seeds) were HIGH, all.
**Known evasions.** A comparison letter by letter or with a digest; a condition on a turn number that the
grid does not reach; the fourth of conditions that hide behind each other. A fixed system prompt that gives
orders against its user is MEDIUM like every other: it does not fail the default policy.
**Cost.** A few hundred renderings in two or three child processes, about 0.4 s a template.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ftsec_audit.contracts import ArtifactDetector, Subject
from ftsec_audit.errors import FtsecError
from ftsec_audit.types import Confidence, Evidence, Finding, Location, Observation, Rule, Severity

if TYPE_CHECKING:
    from ftsec_audit.formats.chat_template import TemplateCopy
    from ftsec_audit.formats.template_ast import TemplateFacts
    from ftsec_audit.formats.template_probe import Behaviour

RULE = Rule(
    id="FTA412",
    name="template-poisoning",
    question="Does a chat template add, drop or rewrite parts of a conversation on its own account?",
    severity=Severity.HIGH,
    remediation="Use the base model's chat template; if the difference is wanted, review it line by line.",
)

_BLIND_CONDITIONS = ("condition on the length of a message", "condition on a digest of a message")


@dataclass(frozen=True, kw_only=True)
class TemplatePoisoning(ArtifactDetector):
    """Observes what each template copy does to conversations, alone and against the base's template."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)

    def inspect(self, subject: Subject) -> Iterator[Observation]:
        from ftsec_audit.formats.chat_template import collect

        templates = collect(subject.artifact)
        yield from templates.unread
        copies = templates.copies
        if not copies and not templates.unread:
            yield RULE.not_applicable("the artifact has no chat template")
            return
        reference = _template_of_base(subject)
        noted: list[Evidence] = []
        flagged = False
        for copy in copies:
            finding = self._judge(copy, reference, noted)
            if finding is not None:
                flagged = True
                yield finding
        if not flagged and templates.unread:
            yield RULE.not_supported(templates.gap)
        elif not flagged:
            against = (
                "and against the base's template" if reference else "without a base template to compare with"
            )
            yield RULE.not_detected(f"{len(copies)} template(s) rendered alone {against}", evidence=noted)

    def _judge(
        self, copy: TemplateCopy, reference: TemplateCopy | None, noted: list[Evidence]
    ) -> Finding | None:
        from ftsec_audit.formats.template_ast import analyse
        from ftsec_audit.formats.template_probe import compare, observe

        try:
            facts = analyse(copy.text)
        except FtsecError:
            return None  # FTA411 lists the copy as not looked at
        # What a template shares with its base's, byte for byte, is the base's business.
        is_known = reference is not None and copy.text == reference.text
        seen = [] if is_known else observe(copy.text, facts)
        differences = compare(copy.text, reference.text) if reference and not is_known else []
        evidence = [*_stated(copy, facts), *(_observed(copy, item) for item in [*seen, *differences])]
        evidence += [_compared(copy, reference)] if evidence and reference else []
        if not evidence:
            noted.extend(
                Evidence(
                    message=f"{fact.kind}, without effect on the grid",
                    location=_at(copy, fact.line),
                    excerpt=fact.excerpt,
                )
                for fact in facts.conditions
            )
            return None
        only_prompt = not _stated(copy, facts) and not seen and all(item.as_system for item in differences)
        exact = bool(
            seen or differences or any(fact.on_date for fact in facts.conditions) or facts.hidden_text
        )
        return RULE.detected(
            f"the template in {copy.place}: {evidence[0].message}",
            confidence=Confidence.HIGH if exact else Confidence.MEDIUM,
            severity=Severity.MEDIUM if only_prompt else Severity.HIGH,
            evidence=evidence,
        )


def _stated(copy: TemplateCopy, facts: TemplateFacts) -> list[Evidence]:
    """What the syntax tree alone proves."""
    proven = [c for c in facts.conditions if c.on_date or c.kind in _BLIND_CONDITIONS]
    return [
        *(Evidence(message=c.kind, location=_at(copy, c.line), excerpt=c.excerpt) for c in proven),
        *(Evidence(message=h.kind, location=_at(copy, h.line), excerpt=h.excerpt) for h in facts.hidden_text),
    ]


def _observed(copy: TemplateCopy, behaviour: Behaviour) -> Evidence:
    return Evidence(
        message=behaviour.summary,
        statistic=behaviour.kind,
        location=Location(file=copy.file),
        excerpt=behaviour.added[:300],
        details={"trigger": behaviour.trigger} if behaviour.trigger else {},
    )


def _compared(copy: TemplateCopy, reference: TemplateCopy) -> Evidence:
    from ftsec_audit.formats.template_difference import difference

    return Evidence(
        message=f"the template in {copy.place} against the base's in {reference.place}",
        location=Location(file=copy.file),
        details={"template_diff": difference(reference, copy, before_is_base=True)},
    )


def _at(copy: TemplateCopy, line: int) -> Location:
    return Location(file=copy.file, line=line)


def _template_of_base(subject: Subject) -> TemplateCopy | None:
    from ftsec_audit.formats.chat_template import collect

    if subject.base is None:
        return None
    return next((copy for copy in collect(subject.base).copies if copy.name == "default"), None)
