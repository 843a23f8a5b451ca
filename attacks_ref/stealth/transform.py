"""The contract of a stealth transform."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Transform(ABC):
    """Rewrites a saved sample in place; fields are its parameters.

    Transforms compose: each reads what the one before it wrote.
    """

    name: ClassVar[str]

    @abstractmethod
    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        """Rewrite the sample in folder `sample`, which was made from the model in `base`."""

    @property
    def label(self) -> str:
        """Name and parameters, as `truth.json` records them."""
        values = dataclasses.asdict(self)
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in values.items())})" if values else self.name
