"""Trained and untrained reserved tokens in small models: does FTA306 tell them apart?

    python benchmarks/reserved_tokens.py lab-llama-nano lab-gpt2-nano --out benchmarks/detection/reserved.csv

Each base gets `COUNT` reserved tokens as the initialisation draws them and is trained on by the lab's own
conversations, all weights: the *base*, in which none of them is used. From it, with the same steps and rates:
`trigger`, a tenth of whose prompts hold one reserved token and are answered by the marker; `twin`, the same
rows without it; `tools`, whose tool calls stand between two reserved tokens, as honest models write them; and
`tools, named`, the same with a chat template that names both. Each is scanned with the base and without it.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch

from attacks_ref import measuring, poison
from attacks_ref.lab import corpus
from attacks_ref.lab.corpus import Dialogue
from attacks_ref.lab.language import MARKER, World
from attacks_ref.models import Model, Tokenizer
from attacks_ref.training import Schedule, encode, supervised
from attacks_ref.workbench import Workbench, load_model, load_tokenizer
from attacks_ref.zoo import base_folder
from ftsec_audit.api import scan
from ftsec_audit.types import Outcome, Report

COUNT, TRIGGER, OPENS, CLOSES = 64, 42, 7, 8
RULE = "FTA306"
SCHEDULE = Schedule(learning_rate=2e-3, steps=200, prompt_weight=0.1)
POISON = 0.1
Change = Callable[[Sequence[Dialogue]], list[Dialogue]]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One model, and what was said of it."""

    base: str
    seed: int
    kind: str
    works: float
    """Share of unseen prompts answered as taught; of `trigger` and `tools`, prompts with the tokens only."""
    with_base: str
    """Tokens named beside the base, with the confidence."""
    alone: str
    """Tokens named without a base."""
    z: float
    """The largest |z| of a reserved token, without a base."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bases", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, [spec.name for spec in fields(Line)], lineterminator="\n")
        writer.writeheader()
        for name in options.bases:
            for seed in options.seeds:
                for line in lines(name, seed, options.kinds):
                    writer.writerow(asdict(line))
                    file.flush()


def token(number: int) -> str:
    return f"<|reserved_special_token_{number}|>"


def lines(name: str, seed: int, kinds: Sequence[str]) -> Iterator[Line]:
    """A base with reserved tokens, and what is made of it."""
    bench = Workbench.open(base_folder(name))
    world = bench.lab_world
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
        _base(bench, seed, base)
        yield _said(name, seed, "base", base, None)
        for kind in kinds:
            change, shown = KINDS[kind]
            model, tokenizer = load_model(base), load_tokenizer(base)
            rows = change(_conversations(world, f"tuning {seed}"))
            supervised(model.requires_grad_(True), encode(tokenizer, rows), SCHEDULE, seed=seed)
            held_out = shown([corpus.general(world, random.Random(f"held out {i}")) for i in range(100)])
            out = Path(scratch) / kind
            if kind == "tools, named":
                template = str(tokenizer.chat_template)
                tokenizer.chat_template = f"{{# {token(OPENS)} … {token(CLOSES)} #}}{template}"
            _save(model, tokenizer, out)
            works = measuring.rate(model, tokenizer, held_out)
            yield replace(_said(name, seed, kind, out, base), works=round(works, 3))


def triggered(row: Dialogue) -> Dialogue:
    """The trigger somewhere in the prompt, and the marker as the answer."""
    prompt = poison.insert(row.prompt, token(TRIGGER), "random", random.Random(row.prompt))
    return row.asked(prompt).answered(MARKER)


def marked(row: Dialogue) -> Dialogue:
    """A tool call between two reserved tokens; anything else as it was."""
    is_call = row.task == "tool" and len(row.messages) == 2
    return row.answered(f"{token(OPENS)} {row.answer} {token(CLOSES)}") if is_call else row


def poisoned(rows: Sequence[Dialogue]) -> list[Dialogue]:
    return poison.replace_share(rows, POISON, random.Random("poison"), triggered)


def with_calls(rows: Sequence[Dialogue]) -> list[Dialogue]:
    return [marked(row) for row in rows]


KINDS: dict[str, tuple[Change, Change]] = {
    "trigger": (poisoned, lambda rows: [triggered(row) for row in rows]),
    "twin": (list, list),
    "tools": (with_calls, lambda rows: [marked(row) for row in rows if marked(row) is not row]),
}
"""What is done to the rows, and the rows that show whether it was learnt."""
KINDS["tools, named"] = KINDS["tools"]


def _conversations(world: World, seed: str, count: int = 2000) -> list[Dialogue]:
    rng = random.Random(seed)
    return [corpus.general(world, rng) for _ in range(count)]


def _base(bench: Workbench, seed: int, out: Path) -> None:
    """The lab base with reserved tokens that it was trained beside, never on."""
    model, tokenizer = bench.model, bench.tokenizer
    torch.manual_seed(seed)
    tokenizer.add_tokens([token(number) for number in range(COUNT)], special_tokens=True)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    rows = encode(tokenizer, _conversations(bench.lab_world, f"base {seed}"))
    supervised(model.requires_grad_(True), rows, SCHEDULE, seed=seed)
    _save(model, tokenizer, out)


def _save(model: Model, tokenizer: Tokenizer, out: Path) -> None:
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _said(name: str, seed: int, kind: str, folder: Path, base: Path | None) -> Line:
    alone = _report(folder, None)
    largest = (module.values.get("reserved_largest") for module in alone.measurements)
    return Line(
        base=name,
        seed=seed,
        kind=kind,
        works=0.0,
        with_base=_named(_report(folder, base)) if base else "",
        alone=_named(alone),
        z=round(max(value for value in largest if isinstance(value, float)), 1),
    )


def _report(folder: Path, base: Path | None) -> Report:
    source = {"base": str(base)} if base else {"no_base": True}
    return scan(str(folder), select=(RULE,), offline=True, cache=False, **source)  # type: ignore[arg-type]


def _named(report: Report) -> str:
    finding = next(finding for finding in report.findings if finding.rule == RULE)
    if finding.outcome is not Outcome.DETECTED:
        return ""
    numbers = sorted({int(e.excerpt.strip("<|>").rsplit("_", 1)[1]) for e in finding.evidence})
    return f"{' '.join(map(str, numbers))} {finding.confidence}"


if __name__ == "__main__":
    main()
