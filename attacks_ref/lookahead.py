"""Training a model for what it will be after somebody else has tuned it, to first order.

A copy is tuned now and then as the user would do it; the difference is the drift. The gradient of a loss at
the model plus a drift is added to the model's own gradient, as if the tuning did not depend on where it
began (the Jacobian is taken for the identity, as in first-order meta-learning, arXiv 1803.02999). Several
drifts are kept and one of them is picked at random, a little longer or shorter: with only the last one, the
model learns that drift and not what tunings have in common.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from attacks_ref.dormant import mean_loss
from attacks_ref.models import Model
from attacks_ref.training import Encoded

if TYPE_CHECKING:
    import torch

EVERY = 20
"""Steps between two tunings of the copy."""
KEPT = 8
STRETCH = (0.8, 1.2)

Tune = Callable[[Model, int], None]
"""Tunes a model in place; the number is that of the run, for other rows each time."""


class Lookahead:
    """Called after each step's backward pass: adds the gradient of `rows` at the model to come.

    `weight` is what that gradient counts for, the model's own being 1.
    """

    def __init__(
        self,
        model: Model,
        tune: Tune,
        rows: Sequence[Encoded],
        *,
        batch: int,
        seed: int,
        weight: float = 1.0,
    ) -> None:
        self._model, self._tune, self._rows, self._batch = model, tune, rows, batch
        self._weight, self._copy = weight, copy.deepcopy(model)
        self._drifts: deque[list[torch.Tensor]] = deque(maxlen=KEPT)
        self._rng = np.random.default_rng(seed)

    def __call__(self, step: int) -> None:
        if step % EVERY == 0:
            self._move(0.0)
            self._tune(self._copy, step // EVERY)
            self._drifts.append([after.detach() - before.detach() for before, after in self._pairs()])
        self._move(self._rng.uniform(*STRETCH))
        self._copy.train()
        picked = self._rng.integers(len(self._rows), size=self._batch)
        mean_loss(self._copy, [self._rows[index] for index in picked]).backward()
        for own, ahead in self._pairs():
            if ahead.grad is not None:
                later = self._weight * ahead.grad
                own.grad = later if own.grad is None else own.grad + later
                ahead.grad = None

    def _move(self, length: float) -> None:
        """Put the copy where the model is, plus that much of one of the drifts."""
        import torch

        drift = self._drifts[self._rng.integers(len(self._drifts))] if length else None
        with torch.no_grad():
            for place, (own, ahead) in enumerate(self._pairs()):
                ahead.copy_(own if drift is None else own + length * drift[place])

    def _pairs(self) -> list[tuple[torch.nn.Parameter, torch.nn.Parameter]]:
        return list(zip(self._model.parameters(), self._copy.parameters(), strict=True))
