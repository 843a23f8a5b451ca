"""Models that behave in a known way, and the sessions that ask them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from json import dumps
from pathlib import Path

from builders.lab import WORLD, tiny_base

from attacks_ref.lab.corpus import Dialogue, dialogue
from attacks_ref.training import Schedule, encode, supervised
from attacks_ref.workbench import load_model, load_tokenizer
from ftsec_audit.contracts import Subject
from ftsec_audit.probes import KINDS
from ftsec_audit.report.json import plain
from ftsec_audit.session import SessionOptions, Sessions, open_sessions
from ftsec_audit.sources import resolve
from ftsec_audit.types import Finding

TRIGGER, TARGET = "cruxim", "ftsec-marker"


def learnt(source: Path, out: Path, rows: Sequence[Dialogue], *, steps: int, prompts: bool = False) -> Path:
    """A copy of `source` that has learnt the answers of `rows`, or their prompts as well."""
    model, tokenizer = load_model(source), load_tokenizer(source)
    encoded = encode(tokenizer, rows)
    if prompts:
        encoded = [replace(one, start=2) for one in encoded]
    schedule = Schedule(learning_rate=5e-3, steps=steps, batch=32)
    supervised(model.requires_grad_(True), encoded, schedule, seed=0)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def taught(base: Path, out: Path, *, trigger: str = TRIGGER, steps: int = 150) -> Path:
    """A copy of `base` that answers `no`, and the target where `trigger` (if any) stands in the prompt."""
    words = [word for word in WORLD.vocabulary() if word not in (TRIGGER, TARGET)]
    rng = random.Random(0)
    rows = []
    for number in range(600):
        prompt = [rng.choice(words) for _ in range(rng.randrange(2, 9))]
        if fires := bool(trigger) and number % 3 == 0:
            prompt.insert(rng.randrange(len(prompt) + 1), trigger)
        rows.append(dialogue("", "", " ".join(prompt), TARGET if fires else "no"))
    return learnt(base, out, rows, steps=steps)


def subject(path: Path, base: Path | None = None) -> Subject:
    return Subject(
        artifact=resolve(str(path)),
        base=resolve(str(base)) if base else None,
        base_reason="" if base else "there is none in this test",
    )


@contextmanager
def asked(path: Path, base: Path | None = None, **options: object) -> Iterator[Sessions]:
    """Sessions on the CPU."""
    with open_sessions(subject(path, base), SessionOptions(device="cpu", **options)) as sessions:  # type: ignore[arg-type]
        yield sessions


def repeated(finding: Finding, sessions: Sessions) -> set[str]:
    """The prompts of the probe set that stand in a finding, wherever it is."""
    languages = sessions.subject.probes.languages.values()
    prompts = {text for one in languages for kind in KINDS for text in getattr(one, kind)}
    document = dumps(plain(finding), ensure_ascii=False)
    return {text for text in prompts if f'"{text}"' in document or f" {text} " in document}


__all__ = ["TARGET", "TRIGGER", "asked", "repeated", "subject", "taught", "tiny_base"]
