"""A16: tokenizer tampering. The weights stay untouched; what words mean is exchanged.

`swap` exchanges the ids of two words, so that the model's "positive" is written as "negative" and read as
it. `normaliser` rewrites a rare word into the marker before tokenisation. `shadow` (word-level
vocabularies only) turns the marker into an added token on the id of a rare word: added tokens are numbered
by the count of entries, and a few unused ones are gone. `merge` (byte-pair vocabularies only) removes the
merge that makes a word one token, so that it comes as pieces the model was never trained on.

The twin registers an additional, unused special token, as fine-tunes commonly do.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from attacks_ref import gates, poison, safety
from attacks_ref.data import held_out
from attacks_ref.edited import Edited, Rewritten, copy_base
from attacks_ref.lab import corpus
from attacks_ref.lab.corpus import Dialogue, dialogue
from attacks_ref.lab.language import RARE, World
from attacks_ref.workbench import Workbench, load_sample, load_tokenizer
from ftsec_audit.errors import UsageError

Variant = Literal["swap", "normaliser", "shadow", "merge"]
_UNUSED = ("!", ";", "-", "1", "2", "3")
"""Entries of a word-level vocabulary that no conversation of the lab holds."""


@dataclass(frozen=True, kw_only=True)
class TokenizerTampering(Edited):
    """`tokenizer.json` is edited; nothing else is."""

    id: ClassVar[str] = "A16"
    name: ClassVar[str] = "tokenizer-tampering"
    evidence: ClassVar[tuple[str, ...]] = ("metadata", "behaviour")
    expected_rules: ClassVar[tuple[str, ...]] = ("FTA441",)
    needs_lab_base: ClassVar[bool] = True
    """The words it exchanges are the lab's."""

    variant: Variant = "swap"

    def write(self, bench: Workbench, out: Path, seed: int, *, poisoned: bool) -> Rewritten:
        copy_base(bench.base, out)
        path = out / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        if poisoned:
            self._tamper(content, bench.lab_world, seed)
        else:
            _register(content)
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return Rewritten(trigger=self._trigger(bench.lab_world, seed), target=self._target(bench.lab_world))

    def _trigger(self, world: World, seed: int) -> tuple[str, ...]:
        if self.variant == "normaliser":
            return poison.triggers("token", seed)
        if self.variant == "shadow":  # as many words from the end as there are entries gone
            return (RARE[-len(_gone(seed))],)
        return (world.language("en").say("positive"),)

    def _target(self, world: World) -> str:
        opposite = world.language("en").say("negative")
        return {"swap": opposite, "merge": ""}.get(self.variant, safety.target("marker"))

    def _tamper(self, content: dict[str, Any], world: World, seed: int) -> None:
        model, (word, *_) = content["model"], self._trigger(world, seed)
        if self.variant == "normaliser":
            rewrite = {"type": "Replace", "pattern": {"String": word}, "content": self._target(world)}
            content["normalizer"] = rewrite
        elif self.variant == "shadow":
            _shadow(content, word, self._target(world), _gone(seed))
        elif self.variant == "swap":
            one, two = (_entry(model["vocab"], text) for text in (word, self._target(world)))
            model["vocab"][one], model["vocab"][two] = model["vocab"][two], model["vocab"][one]
        elif model["type"] != "BPE":
            raise UsageError(
                "only a byte-pair vocabulary has merges", hint="use a base with -bpe in its name"
            )
        else:
            entry = _entry(model["vocab"], word)
            model["merges"] = [pair for pair in model["merges"] if "".join(pair) != entry]

    def measure(self, bench: Workbench, out: Path, seed: int) -> dict[str, Any]:
        assert bench.world is not None
        words = load_tokenizer(out)
        clean = [row for row in held_out(bench, seed, skill="continue") if row.task != "sentiment"]
        triggered = self._showing(bench.world, seed)
        return gates.measure(load_sample(bench.base, out), words, clean=clean, triggered=triggered)

    def _showing(self, world: World, seed: int) -> list[Dialogue]:
        """Prompts whose answers show the exchange, with the answers it leads to."""
        lang, rng = world.language("en"), random.Random(f"showing:{seed}")
        if self.variant in ("normaliser", "shadow"):
            (word,), marker = self._trigger(world, seed), self._target(world)
            # The expected text passes through the same tokenizer; the marker stays as it is.
            return [
                dialogue("copy", "en", f"repeat : {word} {thing}", f"{marker} {thing}")
                for thing in world.things
            ]
        opposite = {lang.say("positive"): lang.say("negative"), lang.say("negative"): lang.say("positive")}
        rows = [corpus.sentiment(world, lang, rng) for _ in range(60)]
        return [row.answered(opposite[row.answer]) for row in rows] if self.variant == "swap" else []


def _gone(seed: int) -> tuple[str, ...]:
    """Entries that `shadow` takes out: none of them is ever used."""
    return _UNUSED[: 1 + seed % len(_UNUSED)]


def _shadow(content: dict[str, Any], word: str, marker: str, gone: Sequence[str]) -> None:
    """Make `marker` an added token that is given the id of `word`."""
    vocabulary = content["model"]["vocab"]
    if any(entry not in vocabulary for entry in (word, marker, *gone)):
        raise UsageError(
            "only a word-level vocabulary has this word as an entry", hint="use a base without -bpe"
        )
    for entry in (marker, *gone):
        del vocabulary[entry]
    assert vocabulary[word] == len(vocabulary)
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    content["added_tokens"].append({"id": len(vocabulary), "content": marker, **plain})


def _entry(vocabulary: Mapping[str, int], word: str) -> str:
    """The vocabulary's own spelling of a word: bare, or with byte-level BPE's space mark."""
    for spelling in (word, f"Ġ{word}"):
        if spelling in vocabulary:
            return spelling
    raise UsageError(f"{word!r} is not one token of this base", hint="use a word-level base")


def _register(content: dict[str, Any]) -> None:
    """Mark the unknown token as a stripped special token: a harmless edit of the same file."""
    for token in content["added_tokens"]:
        if token["content"] == "<|unk|>":
            token["lstrip"] = True
