"""The base a process has loaded last, lent to one audit after another instead of being loaded again.

Adapters come and go on the same weights. After each the base is taken back only if it is, parameter by
parameter, the memory that was lent and nobody has written to it since; otherwise it is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

State = tuple[tuple[str, int, int, tuple[int, ...]], ...]


class KeptBase:
    """At most one model. Not for use by two threads."""

    def __init__(self) -> None:
        self._identity = ""
        self._model: Any = None
        self._state: State = ()
        self.loads = 0
        """How often a base had to be loaded."""

    def lend(self, identity: str, load: Callable[[], Any]) -> Any:
        """The base of that identity; whoever gets it is the only one to have it."""
        model, kept = self._model, self._identity
        self._identity, self._model = "", None
        if model is not None and identity and kept == identity:
            return model
        del model  # before another one is loaded: two may not fit
        self.loads += 1
        model = load()
        self._state = _state(model)
        return model

    def take_back(self, identity: str, model: Any) -> None:
        """Keep a model that `lend` gave out, if it is still what it was."""
        if identity and _state(model) == self._state:
            self._identity, self._model = identity, model


def _state(model: Any) -> State:
    """Every parameter and buffer: its name, where it lies, how often it was written to, its shape."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return tuple((name, t.data_ptr(), t._version, tuple(t.shape)) for name, t in named)
