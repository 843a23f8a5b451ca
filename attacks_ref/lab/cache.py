"""Lab bases by name: built once, kept outside the repository, found again by what they are made of.

A name is `lab-<architecture>` with any of an alignment, a size, a vocabulary and a seed behind it:
`lab-llama`, `lab-qwen-deep`, `lab-gpt2-nano-unaligned`, `lab-llama-bpe-1`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from attacks_ref.lab import alignment as aligning
from attacks_ref.lab import card, gates, probes, tokenizer, train
from attacks_ref.lab.alignment import Alignment
from attacks_ref.lab.model import ARCHITECTURES, Architecture
from attacks_ref.lab.tokenizer import Vocabulary
from attacks_ref.models import Model, Tokenizer
from attacks_ref.training import Schedule
from ftsec_audit import atomic_file
from ftsec_audit.contracts import Progress
from ftsec_audit.errors import UsageError
from ftsec_audit.probes import FILE_NAME
from ftsec_audit.sources.lab import folder

VERSION = 3
"""Raised when the lab's code would make other weights from the same plan."""
ALIGNMENTS: tuple[Alignment, ...] = get_args(Alignment)
VOCABULARIES: tuple[Vocabulary, ...] = get_args(Vocabulary)


@dataclass(frozen=True, kw_only=True)
class LabBase:
    """One lab base, as its name spells it."""

    architecture: Architecture
    alignment: Alignment = "shallow"
    size: str = "small"
    vocabulary: Vocabulary = "word"
    seed: int = 0

    @classmethod
    def parse(cls, name: str) -> LabBase:
        """`lab-llama-deep-nano` → LabBase; raises UsageError for a part that means nothing."""
        fields: dict[str, object] = {}
        for part in name.removeprefix("lab-").split("-"):
            key = _field(part)
            if key is None or key in fields:
                raise UsageError(f"{part!r} in {name!r} names no property of a lab base", hint=_GRAMMAR)
            fields[key] = int(part) if key == "seed" else part
        if "architecture" not in fields:
            raise UsageError(f"{name!r} names no architecture", hint=_GRAMMAR)
        return cls(**fields)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        return f"lab-{self.architecture}-{self.alignment}-{self.size}-{self.vocabulary}-{self.seed}"

    @property
    def aligning(self) -> Schedule:
        """How long it is aligned."""
        return aligning.schedule(self.alignment, self.architecture, self.vocabulary)

    @property
    def aligning_rows(self) -> int:
        """On how many rows."""
        is_aligned = self.alignment != "unaligned"
        return aligning.ROWS[self.vocabulary if is_aligned else "word"]

    @property
    def digest(self) -> str:
        """12 hex digits over everything the weights are made of, except the machine."""
        plan = train.PLANS[self.size]
        parts = [
            VERSION,
            asdict(self),
            asdict(plan),
            asdict(self.aligning),
            self.aligning_rows,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


_GRAMMAR = (
    f"lab-({'|'.join(ARCHITECTURES)})[-({'|'.join(ALIGNMENTS)})][-({'|'.join(train.PLANS)})]"
    f"[-({'|'.join(VOCABULARIES)})][-seed]"
)


def _field(part: str) -> str | None:
    for key, known in (
        ("architecture", ARCHITECTURES),
        ("alignment", ALIGNMENTS),
        ("size", tuple(train.PLANS)),
        ("vocabulary", VOCABULARIES),
    ):
        if part in known:
            return key
    return "seed" if part.isdecimal() else None


def obtain(base: LabBase, *, progress: Progress | None = None) -> Path:
    """The folder of `base`, trained now if it is not there yet."""
    place = folder() / f"{base.name}-{base.digest}"
    if (place / card.CARD_FILE).exists():
        return _with_probes(place, base)
    if progress is not None:
        progress.note(f"training {base.name}; done once, kept in {folder()}")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        built = Path(scratch) / "base"
        _build(base, built, progress)
        if not place.exists():  # a second process may have been faster
            shutil.move(built, place)
    return _with_probes(place, base)


def _with_probes(place: Path, base: LabBase) -> Path:
    """The folder, with the prompts of its world beside the weights as they are written today."""
    with tempfile.TemporaryDirectory() as scratch:
        content = probes.write(Path(scratch), train.PLANS[base.size].world).read_bytes()
    beside = place / FILE_NAME
    if not beside.exists() or beside.read_bytes() != content:
        atomic_file.write(beside, content.decode())
    return place


def _build(base: LabBase, out: Path, progress: Progress | None) -> None:
    from attacks_ref.sample import weights_digest
    from attacks_ref.workbench import load_model

    start, plan = time.process_time(), train.PLANS[base.size]
    words = tokenizer.for_world(plan.world, base.vocabulary)
    if base.alignment == "unaligned":
        model = train.pretrain(plan, base.architecture, words, seed=base.seed)
    else:
        parent = LabBase(**{**asdict(base), "alignment": "unaligned"})
        model = load_model(obtain(parent, progress=progress))
        aligning.align(
            model,
            words,
            plan.world,
            base.alignment,
            base.aligning,
            count=base.aligning_rows,
            seed=base.seed,
        )
    _save(model, words, out)
    measured = gates.measure(model, words, plan.world, alignment=base.alignment)
    card.write(
        out,
        card.LabCard(
            **{**asdict(base), "name": base.name},
            world=asdict(plan.world),
            tokenizer_digest=card.tokenizer_digest(out),
            weights_digest=weights_digest(out),
            steps=(plan if base.alignment == "unaligned" else base.aligning).steps,
            cpu_seconds=round(time.process_time() - start, 1),
            measured=measured,
            gate=gates.judge(measured, alignment=base.alignment),
        ),
    )


def _save(model: Model, words: Tokenizer, out: Path) -> None:
    model.save_pretrained(out)
    words.save_pretrained(out)
