"""Which models the Hub lists for a query; each pinned to the commit that was listed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ftsec_audit.sources.connection import Connection
from ftsec_audit.sources.listing import is_commit
from ftsec_audit.sources.references import is_repository


@dataclass(frozen=True, kw_only=True)
class HubQuery:
    """All conditions hold at once; the most recently changed models come first."""

    author: str = ""
    filters: tuple[str, ...] = ()
    """Tags, as on the Hub's own pages: `peft`, `lora`, `language:de`."""
    base_model: str = ""
    """`org/model`: what names it as its base, in whatever relation."""
    since: datetime | None = None
    """With a time zone; models last changed before it are left out."""
    limit: int | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.author or self.filters or self.base_model or self.since)


def search(connection: Connection, query: HubQuery) -> tuple[str, ...]:
    """References, `hf://org/model@commit`; raises SourceError."""
    tags = [*query.filters, *([f"base_model:{query.base_model}"] if query.base_model else [])]

    def question() -> tuple[str, ...]:
        listed = connection.api().list_models(
            author=query.author or None,
            filter=tags or None,
            sort="last_modified",
            limit=query.limit,
            expand=["sha", "lastModified"],
        )
        found = []
        for model in listed:
            if query.since and model.last_modified and model.last_modified < query.since:
                break
            if is_repository(str(model.id)):
                found.append(_pinned(model))
        return tuple(dict.fromkeys(found))

    connection.progress.start("search the Hub")
    return connection.ask(question, "the list of models")


def _pinned(model: Any) -> str:
    commit = str(model.sha or "")
    return f"hf://{model.id}@{commit}" if is_commit(commit) else f"hf://{model.id}"
