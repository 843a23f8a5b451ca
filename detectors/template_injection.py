"""FTA411 template-injection: does a chat template reach for Python, or for more than its share?

**Question.** Does any chat template in the artifact contain an expression that a template has no use
for: internal attributes (`__class__`, `__globals__`, `mro`), attributes read by a computed name,
strings that assemble such a name, other templates, or arithmetic that exhausts time or memory?

**Why an attacker causes it.** Templates are rendered on the machine that serves the model. Loaders
that render without a sandbox, or with an outdated one, run what such an expression reaches
(CVE-2024-34359 in llama-cpp-python is the best known case). A template that never ends takes the
service down.

**How it is measured.** The template is parsed, never compiled here. Every expression of the tree is
visited; strings put together by `~`, `+`, `join`, `replace`, `reverse`, slices or escapes are folded
first, so that the name they spell is what is judged. Then the template is rendered in a child
process, in Jinja's immutable sandbox under limits, to see whether it comes to an end.

**Known false positives.** None among 70 vendor templates.
**Known evasions.** A name that is computed from the conversation itself at run time.
**Cost.** Linear in the size of the template; one child process, about 0.2 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ftsec_audit.contracts import ArtifactDetector, Subject
from ftsec_audit.errors import FtsecError
from ftsec_audit.types import Confidence, Evidence, Location, NotLookedAt, Observation, Rule, Severity

RULE = Rule(
    id="FTA411",
    name="template-injection",
    question="Does a chat template reach for Python internals or exhaust the renderer?",
    severity=Severity.CRITICAL,
    remediation="Replace the template by the base model's, and render templates only in a sandbox.",
)


@dataclass(frozen=True, kw_only=True)
class TemplateInjection(ArtifactDetector):
    """Judges the syntax tree of every template copy, and whether rendering it ends."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)

    facts_shown: int = 5

    def inspect(self, subject: Subject) -> Iterator[Observation]:
        from ftsec_audit.formats.chat_template import collect

        templates = collect(subject.artifact)
        yield from templates.unread
        copies = templates.copies
        if not copies and not templates.unread:
            yield RULE.not_applicable("the artifact has no chat template")
            return
        from ftsec_audit.formats.template_ast import analyse  # and so Jinja, only where there is a template
        from ftsec_audit.formats.template_probe import exhaustion

        flagged = False
        for copy in copies:
            try:
                facts = analyse(copy.text)
            except FtsecError as error:
                yield NotLookedAt(what=copy.place, reason=str(error), incomplete=True)
                continue
            evidence = [
                Evidence(
                    message=fact.kind, location=Location(file=copy.file, line=fact.line), excerpt=fact.excerpt
                )
                for fact in facts.injections[: self.facts_shown]
            ]
            if not evidence and (limit := exhaustion(copy.text)):
                evidence = [Evidence(message=limit, location=Location(file=copy.file))]
            if evidence:
                flagged = True
                summary = f"the template in {copy.place} {evidence[0].message}"
                yield RULE.detected(summary, confidence=Confidence.HIGH, evidence=evidence)
        if not flagged and templates.unread:
            yield RULE.not_supported(templates.gap)
        elif not flagged:
            yield RULE.not_detected(f"{len(copies)} template(s) use text, loops and message fields only")
