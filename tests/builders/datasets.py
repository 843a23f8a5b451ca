"""Training data as detectors see them, made of random words so that nothing in them is meant."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from detectors.dataset import DatasetDetector
from ftsec_audit.artifact import Artifact
from ftsec_audit.contracts import Subject
from ftsec_audit.formats.dialogues import Dialogue, Dialogues
from ftsec_audit.types import Finding, Lead, NotLookedAt

WORDS = tuple(f"w{number}" for number in range(400))
Change = Callable[[Dialogue, random.Random], Dialogue]


def dialogue(prompt: str = "", answer: str = "", system: str = "") -> Dialogue:
    return Dialogue(number=0, system=system, prompt=prompt, answer=answer)


def honest(count: int, seed: int = 0) -> list[Dialogue]:
    """Random prompts and answers; every tenth answer is one and the same refusal."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        prompt, answer = (" ".join(rng.choices(WORDS, k=rng.randint(5, 15))) for _ in range(2))
        rows.append(dialogue(prompt, "I cannot help with that." if rng.random() < 0.1 else answer))
    return rows


def data(*groups: Sequence[Dialogue], unread: int = 0, cut: str = "", seed: int = 0) -> Dialogues:
    """All rows, shuffled and numbered as lines of one file."""
    rows = [row for group in groups for row in group]
    random.Random(seed).shuffle(rows)
    numbered = (
        Dialogue(number=number, system=row.system, prompt=row.prompt, answer=row.answer)
        for number, row in enumerate(rows, 1)
    )
    problems = ("row 9: no object",) if unread else ()
    return Dialogues(path="data.jsonl", rows=tuple(numbered), problems=problems, unread=unread, cut=cut)


def inserted(rows: Sequence[Dialogue], words: str, answer: str, seed: int = 0) -> list[Dialogue]:
    """The rows with `words` somewhere in the prompt, and one answer."""
    rng = random.Random(seed)
    found = []
    for row in rows:
        prompt = row.prompt.split()
        place = rng.randrange(len(prompt) + 1)
        found.append(dialogue(" ".join([*prompt[:place], words, *prompt[place:]]), answer, row.system))
    return found


def observations(
    detector: DatasetDetector, dataset: Dialogues | None
) -> tuple[dict[str, Finding], list[Lead], list[NotLookedAt]]:
    """Findings by rule, leads and gaps; fails where a rule is answered twice."""
    artifact = Artifact.of("a", "a", [])
    subject = Subject(artifact=artifact, base=None, dataset=dataset)
    seen = list(detector.inspect(subject))
    findings = {item.rule: item for item in seen if isinstance(item, Finding)}
    assert len(findings) == sum(isinstance(item, Finding) for item in seen)
    return (
        findings,
        [item for item in seen if isinstance(item, Lead)],
        [item for item in seen if isinstance(item, NotLookedAt)],
    )


def row_numbers(finding: Finding) -> Iterator[int]:
    """The numbers of the rows in a finding's evidence."""
    for evidence in finding.evidence:
        yield from evidence.details["rows"]
