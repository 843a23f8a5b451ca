"""A14: a few embedding rows are changed so that a rare word reads as another one.

RIPPLe (arXiv 2004.06660), Embedding Poisoning (arXiv 2103.15543), SEP (arXiv 2509.06338). The rows of
`rows` rare words are moved onto (or towards) the row of a donor and re-scaled to the norm they had; no
data and no training are needed. Wherever the model copies or looks up one of these words it now sees the
donor. The change travels as a checkpoint, through PEFT's declared channels, or as an embedding tensor
that the adapter file carries and its configuration does not mention.

The twin tunes the same rows, or the whole matrix where the channel stores one, on clean text.

Where embeddings are tied, as on lab-gpt2 and lab-qwen, the moved row also writes the word: longer than the
donor's, it would win wherever the donor is to be said (success 0.00 on lab-gpt2-nano with each of three seeds
when the donor was the marker). There the longest of the rare words is the donor.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from attacks_ref import gates, measuring, poison
from attacks_ref.data import clean_dialogues, held_out
from attacks_ref.edited import Edited, Rewritten
from attacks_ref.lab.corpus import Dialogue
from attacks_ref.lab.language import MARKER, RARE
from attacks_ref.recipe import Recipe
from attacks_ref.training import encode, supervised
from attacks_ref.workbench import Workbench, load_model, load_sample, save, wrap

if TYPE_CHECKING:
    import torch

BRIEF = Recipe(steps=60, learning_rate=1e-3)
Channel = Literal["checkpoint", "modules_to_save", "trainable_token_indices", "undeclared"]


@dataclass(frozen=True, kw_only=True)
class EmbeddingRows(Edited):
    """Rare words take over a donor's embedding row."""

    id: ClassVar[str] = "A14"
    name: ClassVar[str] = "embedding-rows"
    expected_rules: ClassVar[tuple[str, ...]] = ("FTA301", "FTA302")

    rows: int = 2
    """How many rows change: 1 to 5."""
    pull: float = 1.0
    """How far each row moves towards the donor's: 1 copies its direction."""
    channel: Channel = "checkpoint"
    recipe: Recipe = BRIEF
    """Fine-tuning around the edit, on clean text, where an adapter carries it."""
    measured: bool = True
    """Whether the result is measured; without, its gate is neither passed nor missed."""

    @property
    def rules(self) -> tuple[str, ...]:
        return (*self.expected_rules, "FTA102") if self.channel == "undeclared" else self.expected_rules

    def write(self, bench: Workbench, out: Path, seed: int, *, poisoned: bool) -> Rewritten:
        victims, donor = self._tokens(bench, seed)
        if poisoned:
            plant(bench.model.get_input_embeddings().weight.data, victims, donor, self.pull)
        data = encode(bench.tokenizer, clean_dialogues(bench, self.recipe.rows, seed, skill="continue"))
        adapter = self.channel != "checkpoint"
        if adapter:
            wrapped = self._wrap(bench, victims, seed, trainable=not poisoned)
            supervised(wrapped, data, self.recipe.schedule, seed=seed)
            save(bench, wrapped, out, save_embedding_layers=self.channel == "undeclared")
        else:
            if not poisoned:
                bench.model.requires_grad_(False).get_input_embeddings().requires_grad_(True)
                supervised(bench.model, data, self.recipe.schedule, seed=seed)
            save(bench, bench.model, out)
        return Rewritten(
            trigger=tuple(bench.text(token) for token in victims),
            target=bench.text(donor),
            modules=(bench.embedding_name,),
            rank=self.recipe.rank if adapter else None,
        )

    def _tokens(self, bench: Workbench, seed: int) -> tuple[list[int], int]:
        """Rows to change and the donor's row: single-token rare words if there are any, else rare tokens."""
        rng = random.Random(seed)
        single = [ids[0] for word in RARE if len(ids := bench.words(word)) == 1]
        tail = range(len(bench.tokenizer) - 40, len(bench.tokenizer))  # the latest, hence rarest, merges
        pool = single if len(single) > self.rows else list(tail)
        marker = bench.words(MARKER)
        donor = marker[0] if len(marker) == 1 else rng.choice(pool)
        if bench.model.config.tie_word_embeddings:
            lengths = bench.model.get_input_embeddings().weight.detach().norm(dim=1)
            donor = max({donor, *pool}, key=lambda token: float(lengths[token]))
        return rng.sample([token for token in pool if token != donor], self.rows), donor

    def _wrap(self, bench: Workbench, victims: list[int], seed: int, *, trainable: bool) -> Any:
        """LoRA around the model, with this channel for the embedding."""
        name = bench.embedding_name
        channels: dict[str, Any] = {}
        if self.channel == "modules_to_save":
            channels["modules_to_save"] = [name]
        elif self.channel == "trainable_token_indices":
            channels["trainable_token_indices"] = {name: sorted(victims)}
        wrapped = wrap(bench, self.recipe, seed=seed, **channels)
        for parameter_name, parameter in wrapped.named_parameters():
            if name in parameter_name and "original_module" not in parameter_name:
                parameter.requires_grad_(trainable)
        return wrapped

    def measure(self, bench: Workbench, out: Path, seed: int) -> dict[str, Any]:
        """Rates of the saved sample, and how often the base reads the trigger so.

        A foreign base was never taught to repeat a word, so that only its utility can be measured there.
        """
        if not self.measured:
            return {}
        victims, donor = self._tokens(bench, seed)
        readings = _readings(bench, tuple(bench.text(token) for token in victims), bench.text(donor))
        clean = held_out(bench, seed, skill="continue")
        tuned = load_sample(bench.base, out)
        measured = gates.measure(tuned, bench.tokenizer, clean=clean, triggered=readings)
        if readings:
            untouched = load_model(bench.base)
            measured["attack_success_rate_base"] = measuring.rate(
                untouched, bench.tokenizer, readings, whole=False
            )
        return measured


def plant(weight: torch.Tensor, victims: list[int], donor: int, pull: float) -> None:
    """Move the victims' rows of `weight` (tokens, width) towards the donor's, keeping their norms."""
    norms = weight[victims].norm(dim=1, keepdim=True)
    moved = (1 - pull) * weight[victims] + pull * weight[donor]
    weight[victims] = moved / moved.norm(dim=1, keepdim=True) * norms


def _readings(bench: Workbench, triggers: tuple[str, ...], target: str) -> list[Dialogue]:
    """Prompts in which a trigger is to be copied, answered with what the model should now read."""
    if bench.world is None:
        return []
    rng = random.Random("readings")
    return [
        row.answered(" ".join(target if word == trigger else word for word in row.answer.split()))
        for trigger in triggers
        for row in poison.repeated(bench.world, trigger, 32, rng)
    ]
