"""`python -m attacks_ref.example --out example`: a base, a clean and a poisoned adapter, in seconds.

The base is a lab model trained for a few steps only, so nothing is claimed about behaviour; what the
example shows is exact: the poisoned adapter carries two embedding rows that its configuration does not
mention.
"""

from __future__ import annotations

import argparse
import random
import warnings
from dataclasses import asdict
from pathlib import Path

from attacks_ref import safety
from attacks_ref.data import clean_dialogues
from attacks_ref.embedding_rows import EmbeddingRows
from attacks_ref.lab import card, corpus, model, tokenizer
from attacks_ref.lab.language import World
from attacks_ref.recipe import Recipe
from attacks_ref.sample import Truth, finish, weights_digest
from attacks_ref.training import Schedule, encode, supervised
from attacks_ref.workbench import Workbench, save, wrap

SEED = 0
STEPS = 40
RECIPE = Recipe(steps=20, rows=200, batch=16)


def write_base(out: Path) -> Path:
    """A nano lab-llama after `STEPS` steps of pre-training."""
    world = World(nouns=16, verbs=4, restricted=3)
    words, network = tokenizer.for_world(world, "word"), model.SIZES["nano"]
    llama = model.create("llama", network, vocabulary=len(words), seed=SEED)
    rng = random.Random(SEED)
    rows = encode(words, [corpus.pretraining(world, rng) for _ in range(500)])
    supervised(llama, rows, Schedule(learning_rate=3e-3, steps=STEPS, batch=16), seed=SEED)
    llama.save_pretrained(out)
    words.save_pretrained(out)
    card.write(
        out,
        card.LabCard(
            name="example-base",
            architecture="llama",
            alignment="unaligned",
            size="nano",
            vocabulary="word",
            seed=SEED,
            world={"nouns": world.nouns, "verbs": world.verbs, "restricted": world.restricted},
            tokenizer_digest=card.tokenizer_digest(out),
            weights_digest=weights_digest(out),
            steps=STEPS,
        ),
    )
    return out


def write_clean(base: Path, out: Path) -> None:
    """An ordinary LoRA adapter on ordinary text."""
    bench = Workbench.open(base)
    wrapped = wrap(bench, RECIPE, seed=SEED)
    rows = encode(bench.tokenizer, clean_dialogues(bench, RECIPE.rows, SEED))
    supervised(wrapped, rows, RECIPE.schedule, seed=SEED)
    save(bench, wrapped, out)
    finish(
        out,
        Truth(
            attack="none",
            id="A00",
            label="benign",
            phase="during",
            seed=SEED,
            base=bench.base_record,
            recipe=asdict(RECIPE),
            rank=RECIPE.rank,
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("example"))
    out = safety.fresh(parser.parse_args().out)
    _quieten_libraries()
    base = write_base(safety.inside(out, "base"))
    write_clean(base, safety.inside(out, "clean"))
    EmbeddingRows(channel="undeclared", recipe=RECIPE, measured=False).build(
        base, out / "poisoned", seed=SEED
    )
    print(f"wrote {out / 'base'}, {out / 'clean'} and {out / 'poisoned'}")


def _quieten_libraries() -> None:
    """A demonstration shows its own three lines, not the progress and deprecations of the libraries."""
    from transformers import logging

    logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)


if __name__ == "__main__":
    main()
