"""One model under questioning: log-probabilities at chosen positions, greedy and sampled continuations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ftsec_audit.contracts import Progress
from ftsec_audit.probes import ProbeSet
from ftsec_audit.session.budget import Budget
from ftsec_audit.session.exported import ExportedModel

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from ftsec_audit.formats.dialogues import Dialogues
    from ftsec_audit.session.batches import Batch
    from ftsec_audit.session.tokenizer import Tokenizer

    Ids = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float32]

Rows = Sequence[Sequence[int]]

_SHARED_FROM = 4
"""Tokens that a batch must share before a cache is worth its overhead."""
_OVERHEAD = 50_000_000
"""Weights × tokens that a CPU computes while it starts a forward pass: 250 tokens of a model of 200,000."""


@dataclass(kw_only=True)
class ModelSession:
    """A model in evaluation mode. Laws: equal questions give equal answers; `budget` is never overdrawn."""

    model: Any
    tokenizer: Tokenizer
    budget: Budget
    seed: int = 0
    device: str = "cpu"
    parameters: int = 0
    batch_tokens: int = 4096
    """Tokens of one forward pass; halved for good when memory runs out."""
    switch: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Puts the model into the state that is asked about, e.g. its adapter off."""
    bare: bool = False
    """Whether that state is the model without the adapter it carries."""
    progress: Progress = field(default_factory=Progress)
    probes: ProbeSet = field(
        default_factory=lambda: ProbeSet(name="", version="", licence="", attribution="")
    )
    """What is asked about alignment: the user's own set, the base's, or a shipped one."""
    measured: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """By name: what one detector measured and others use again."""
    dataset: Dialogues | None = None
    """The rows it was tuned on, where the user has them."""

    @property
    def overhead(self) -> int:
        """How many tokens cost as much as starting a forward pass."""
        return _OVERHEAD // self.parameters if self.parameters else 0

    @property
    def vocabulary_size(self) -> int:
        """How many tokens the model can write."""
        if isinstance(self.model, ExportedModel):
            return self.model.vocabulary_size
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def depth(self) -> int:
        """How many layers the model has."""
        return int(self.model.config.get_text_config().num_hidden_layers)

    def next_token(self, rows: Rows) -> Floats:
        """Log-probabilities of the token after each row, (rows, vocabulary)."""
        import numpy as np

        answer = np.empty((len(rows), self.vocabulary_size), dtype=np.float32)
        for index, values in self.next_token_batches(rows):
            answer[index] = values
        return answer

    def next_token_batches(self, rows: Rows) -> Iterator[tuple[Ids, Floats]]:
        """(indices of rows, their log-probabilities), batch by batch: for vocabularies too large to keep."""
        for batch in self._batches(rows):
            for part, logits in self._forward(batch, keep=1):
                yield part.index, _numpy(logits[:, -1].float().log_softmax(-1))

    def score(self, rows: Rows, continuations: Rows) -> list[Floats]:
        """Log-probability of every token of each row's continuation, given the row and the tokens before."""
        import numpy as np
        import torch

        answer: list[Floats] = [np.empty(0, dtype=np.float32)] * len(rows)
        whole = [[*row, *tail] for row, tail in zip(rows, continuations, strict=True)]
        for size in sorted({len(tail) for tail in continuations} - {0}):
            chosen = [i for i, tail in enumerate(continuations) if len(tail) == size]
            for batch in self._batches([whole[i] for i in chosen]):
                for part, logits in self._forward(batch, keep=size + 1):
                    ids = torch.as_tensor(part.rows[:, -size:], device=logits.device)
                    logs = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[..., None])[..., 0]
                    for i, values in zip(part.index, _numpy(logs), strict=True):
                        answer[chosen[i]] = values
        return answer

    def features(self, rows: Rows, layer: int = -1) -> Floats:
        """Hidden state at the last token of each row after `layer` (−1: the last), (rows, width)."""
        return self.states(rows, [layer])[:, 0] if rows else _none(2)

    def states(self, rows: Rows, layers: Sequence[int]) -> Floats:
        """Hidden states at the last token of each row after each of `layers`, (rows, layers, width)."""
        import numpy as np

        answer: Floats | None = None
        for batch in self._batches(rows):
            for part, states in self._surviving(batch, lambda part: self._last_states(part, layers)):
                values = _numpy(states.float())
                if answer is None:
                    answer = np.empty((len(rows), *values.shape[1:]), dtype=np.float32)
                answer[part.index] = values
        return answer if answer is not None else _none(3)

    def _last_states(self, batch: Batch, layers: Sequence[int]) -> torch.Tensor:
        import torch

        with torch.inference_mode(), self.switch():
            ids = torch.from_numpy(batch.rows).to(self.device)
            self.budget.spend(ids.numel())
            out = self.model(input_ids=ids, output_hidden_states=True, use_cache=False, logits_to_keep=1)
            return torch.stack([out.hidden_states[layer][:, -1] for layer in layers], 1)

    def following(self, rows: Rows, count: int) -> Iterator[tuple[Ids, Floats]]:
        """(indices of rows, log-probabilities after each of their last `count` tokens), batch by batch.

        Of the shape (rows of the batch, count, vocabulary); every row has at least `count` tokens.
        """
        for batch in self._batches(rows):
            for part, logits in self._forward(batch, keep=count):
                yield part.index, _numpy(logits.float().log_softmax(-1))

    def greedy(self, rows: Rows, length: int) -> list[list[int]]:
        """The most probable continuation of each row, up to `length` tokens or the end token."""
        return self._continue(rows, length, lambda logits, _: logits.argmax(-1))

    def sample(self, rows: Rows, length: int, *, temperature: float = 1.0) -> list[list[int]]:
        """A random continuation of each row, the same for the same `seed`, up to the end token."""
        import numpy as np
        import torch

        def pick(logits: torch.Tensor, step: int) -> torch.Tensor:
            # Drawn on the CPU, from the inverse of the distribution function, so that devices agree.
            rng = np.random.default_rng([self.seed, step])
            totals = (logits.float() / temperature).softmax(-1).cpu().double().cumsum(-1)
            draws = torch.from_numpy(rng.random((len(logits), 1))) * totals[:, -1:]
            return torch.searchsorted(totals, draws)[:, 0].clamp(max=logits.shape[-1] - 1).to(logits.device)

        return self._continue(rows, length, pick)

    def _continue(
        self, rows: Rows, length: int, pick: Callable[[torch.Tensor, int], torch.Tensor]
    ) -> list[list[int]]:
        import torch

        answer: list[list[int]] = [[] for _ in rows]
        for batch in self._batches(rows):
            for part in self._surviving(batch, lambda part: self._decode(part, length, pick)):
                for i, ids in zip(part[0].index, part[1], strict=True):
                    answer[i] = self.tokenizer.until_end(ids)
        del torch
        return answer

    def _decode(
        self, batch: Batch, length: int, pick: Callable[[torch.Tensor, int], torch.Tensor]
    ) -> list[list[int]]:
        """`length` tokens after every row of the batch; stops early when all rows have ended."""
        import torch

        ends = torch.tensor(sorted(self.tokenizer.end_ids), device=self.device)
        ids = torch.from_numpy(batch.rows).to(self.device)
        written, done = [], torch.zeros(len(ids), dtype=torch.bool, device=self.device)
        with torch.inference_mode(), self.switch():
            logits, cache = self._prefill(batch, 1)
            for step in range(length):
                chosen = pick(logits[:, -1], step)
                written.append(chosen)
                done |= torch.isin(chosen, ends)
                if bool(done.all()) or step + 1 == length:
                    break
                ids = chosen[:, None] if cache is not None else torch.cat([ids, chosen[:, None]], 1)
                self.budget.spend(ids.numel())
                out = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
                logits, cache = out.logits, getattr(out, "past_key_values", None)
        rows: list[list[int]] = torch.stack(written, 1).tolist()
        return rows

    def _batches(self, rows: Rows) -> Iterator[Batch]:
        from ftsec_audit.session.batches import batches

        return batches(rows, tokens=self.batch_tokens, overhead=self.overhead)

    def _forward(self, batch: Batch, *, keep: int) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Logits (rows, keep, vocabulary) of the last `keep` positions, in as many parts as memory takes."""
        yield from self._surviving(batch, lambda part: self._logits(part, keep))

    def _logits(self, batch: Batch, keep: int) -> torch.Tensor:
        import torch

        with torch.inference_mode(), self.switch():
            return self._prefill(batch, keep)[0]

    def _prefill(self, batch: Batch, keep: int) -> tuple[torch.Tensor, Any]:
        """Logits of the last `keep` positions and the cache; what all rows begin with is computed once."""
        import torch

        ids = torch.from_numpy(batch.rows).to(self.device)
        shared = min(batch.shared, ids.shape[1] - keep)
        cache: Any = None
        pays = shared >= _SHARED_FROM and len(ids) > 1 and (len(ids) - 1) * shared > self.overhead
        if pays and getattr(self.model, "has_cache", True):
            self.budget.spend(shared)
            out = self.model(input_ids=ids[:1, :shared], use_cache=True, logits_to_keep=1)
            cache = getattr(out, "past_key_values", None)
        if hasattr(cache, "batch_repeat_interleave"):
            cache.batch_repeat_interleave(len(ids))
            ids = ids[:, shared:]
        else:
            cache = None
        self.budget.spend(ids.numel())
        out = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=keep)
        return out.logits[:, -keep:], getattr(out, "past_key_values", None)

    def _surviving(self, batch: Batch, ask: Callable[[Batch], Any]) -> Iterator[tuple[Batch, Any]]:
        """`ask(batch)`, or of its halves where memory runs out."""
        import torch

        try:
            answer = ask(batch)
        except (torch.OutOfMemoryError, MemoryError):
            if len(batch.rows) == 1:
                raise
            answer = None
        if answer is not None:
            yield batch, answer
            return
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        self.batch_tokens = max(1, min(self.batch_tokens, batch.rows.size // 2))
        self.progress.note(f"out of memory: batches of {self.batch_tokens:,} tokens from here on")
        for half in batch.halves():
            yield from self._surviving(half, ask)


def _none(dimensions: int) -> Floats:
    import numpy as np

    return np.empty((0,) * dimensions, dtype=np.float32)


def _numpy(values: torch.Tensor) -> Floats:
    array: Floats = values.cpu().numpy()
    return array
