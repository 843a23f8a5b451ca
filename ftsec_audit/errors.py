"""What can go wrong, said so that a person can act: what happened, where, and what to do next."""

from __future__ import annotations


class FtsecError(Exception):
    """Base of every error ftsec-audit raises on purpose.

    `str(error)` is one or two sentences ready to be shown: what, where, and the way out.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} ({self.hint})" if self.hint else text


class UsageError(FtsecError):
    """The command line, the policy or another file written by the user is wrong."""


class SourceError(FtsecError):
    """A reference could not be resolved or its bytes could not be fetched."""


class FormatError(FtsecError):
    """A file is not what it claims to be, or is damaged. Never raised for what is merely unusual."""


class BudgetExceeded(FtsecError):
    """A bound on bytes, members, nesting, time or tokens was reached before the work was done."""


class NotApplicable(FtsecError):
    """Raised by a detector when its question makes no sense for this subject."""


class Unsupported(FtsecError):
    """Raised by a detector or a reader when the question makes sense but cannot be answered here."""
