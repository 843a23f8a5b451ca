"""How much a session may compute: tokens, which are the same on every machine, and seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ftsec_audit.errors import BudgetExceeded, Unsupported


class OutOfBudget(BudgetExceeded, Unsupported):
    """Probing ended before an answer was reached: the question stays open, and nothing went wrong."""


@dataclass(kw_only=True)
class Budget:
    """Counts tokens that go through a model, those of subject and base alike."""

    tokens: int
    seconds: float | None = None
    spent: int = 0
    start: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> int:
        """Tokens that may still be spent; 0 once the time is over."""
        return 0 if self._is_late else max(0, self.tokens - self.spent)

    def spend(self, tokens: int) -> None:
        """Account for a forward pass about to be made; raises OutOfBudget instead of overdrawing."""
        if self._is_late:
            raise OutOfBudget(f"the {self.seconds:g} s for probing were used up")
        if self.spent + tokens > self.tokens:
            raise OutOfBudget(f"the budget of {self.tokens:,} tokens was used up", hint="see --max-tokens")
        self.spent += tokens

    @property
    def _is_late(self) -> bool:
        return self.seconds is not None and time.monotonic() - self.start > self.seconds
