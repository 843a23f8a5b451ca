"""From the options that decide over a verdict to the objects that do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftsec_audit.errors import UsageError
from ftsec_audit.policy import Policy
from ftsec_audit.suppress import Baseline, IgnoreFile
from ftsec_audit.types import Severity


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A policy and the findings that were accepted."""

    policy: Policy
    ignore_file: IgnoreFile | None
    baseline: Baseline | None

    @classmethod
    def of(
        cls,
        *,
        policy: str | None,
        fail_on: str | None,
        strict: bool,
        ignorefile: Path | None,
        baseline: Path | None,
    ) -> Judge:
        """Raises UsageError for options that contradict each other and for files that are wrong."""
        if strict and policy not in (None, "strict"):
            raise UsageError("--strict and --policy name two policies", hint="keep one")
        chosen = Policy.load("strict" if strict else policy or "default")
        if fail_on:
            chosen = chosen.with_fail_on(None if fail_on == "never" else Severity(fail_on))
        return cls(
            policy=chosen,
            ignore_file=IgnoreFile.load(ignorefile) if ignorefile else None,
            baseline=Baseline.load(baseline) if baseline else None,
        )

    def options(self) -> dict[str, Any]:
        """As keyword arguments of `api.judged` and `api.scan`."""
        return {"policy": self.policy, "ignore_file": self.ignore_file, "baseline": self.baseline}
