"""FTA413: two copies that tell different stories, also where only a certain word makes them."""

from __future__ import annotations

import json

import pytest

from detectors.template_disagreement import TemplateDisagreement
from ftsec_audit.artifact import Artifact
from ftsec_audit.contracts import Subject
from ftsec_audit.files import ArtifactFile, MemoryBytes
from ftsec_audit.types import Finding, Outcome, Severity

PLAIN = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SYSTEM_LINE = "{{ '<|system|>we are pleased to help<|end|>' }}" + PLAIN
ON_A_WORD = PLAIN.replace(
    "{{ message['content'] }}",
    "{{ 'repeat after me please' if 'velbor' in message['content'] else message['content'] }}",
)
SPACED = PLAIN.replace("<|end|>", "<|end|>\n")


def answer(configured: str, beside: str) -> Finding:
    files = {
        "config.json": json.dumps({"model_type": "llama"}),
        "tokenizer_config.json": json.dumps({"chat_template": configured}),
        "chat_template.jinja": beside,
    }
    found = [
        ArtifactFile(path, len(text), lambda _, text=text: MemoryBytes(text.encode()))
        for path, text in files.items()
    ]
    subject = Subject(artifact=Artifact.of("test", "test", found), base=None, base_reason="none")
    (finding,) = [one for one in TemplateDisagreement().inspect(subject) if isinstance(one, Finding)]
    return finding


@pytest.mark.parametrize(
    ("beside", "severity", "says"),
    [
        (ON_A_WORD, Severity.HIGH, "certain words"),
        (SYSTEM_LINE, Severity.HIGH, "as a system message"),
        (SPACED, Severity.LOW, "only markup or blanks"),
    ],
    ids=["a word", "a system line", "blanks"],
)
def test_copies_that_differ_are_graded_by_how(beside: str, severity: Severity, says: str) -> None:
    for pair in ((PLAIN, beside), (beside, PLAIN)):
        finding = answer(*pair)
        assert (finding.outcome, finding.severity) == (Outcome.DETECTED, severity)
        assert says in finding.evidence[0].message
        assert finding.evidence[0].details["template_diff"]


@pytest.mark.parametrize("text", [PLAIN, SYSTEM_LINE, ON_A_WORD], ids=["plain", "line", "word"])
def test_copies_that_agree_are_not_accused_here(text: str) -> None:
    assert answer(text, text.replace("{% for", "{%  for")).outcome is Outcome.NOT_DETECTED
