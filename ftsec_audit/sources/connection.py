"""How the Hub is spoken to: endpoint, token, cache, patience; read from the environment when asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ftsec_audit.contracts import Progress
from ftsec_audit.errors import SourceError
from ftsec_audit.sources.hub_errors import explained, network_errors
from ftsec_audit.sources.transfer import Attempts, Backoff, Transfer
from ftsec_audit.version import VERSION

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_Answer = TypeVar("_Answer")
_TRUE = frozenset(("1", "on", "yes", "true"))


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Everything a request to the Hub depends on, besides the request."""

    endpoint: str
    """Scheme and host, without a trailing slash."""
    token: str | None = None
    """None means the token of the environment or of `hf auth login`, if there is one."""
    cache_dir: Path
    """The Hub client's cache, shared with every other tool that uses it."""
    offline: bool = False
    progress: Progress = field(default_factory=Progress)
    transfer: Transfer = field(default_factory=Transfer)
    backoff: Backoff = field(default_factory=Backoff)
    timeout: float = 20.0
    """Seconds without an answer, or between two pieces of one, before a request counts as failed."""

    @classmethod
    def from_environment(
        cls,
        *,
        token: str | None = None,
        offline: bool = False,
        cache_dir: Path | None = None,
        progress: Progress | None = None,
        transfer: Transfer | None = None,
    ) -> Connection:
        """HF_ENDPOINT, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE as they are now, not at import."""
        endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        if not endpoint.startswith(("https://", "http://")):
            raise SourceError("not an http(s) address", where=f"HF_ENDPOINT={endpoint}")
        return cls(
            endpoint=endpoint,
            token=token,
            cache_dir=cache_dir or cache_folder(),
            offline=offline or _is_set("HF_HUB_OFFLINE") or _is_set("TRANSFORMERS_OFFLINE"),
            progress=progress or Progress(),
            transfer=transfer or Transfer(),
            backoff=Backoff.from_environment(),
        )

    def api(self) -> HfApi:
        """The genuine client, at this endpoint and with this token."""
        from huggingface_hub import HfApi

        _disable_telemetry()
        return HfApi(
            endpoint=self.endpoint, token=self.token, library_name="ftsec-audit", library_version=VERSION
        )

    @cached_property
    def headers(self) -> dict[str, str]:
        """Authorization and user agent, as the client itself sends them; looked up once."""
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # lazily exported

        _disable_telemetry()
        headers: dict[str, str] = build_hf_headers(
            token=self.token, library_name="ftsec-audit", library_version=VERSION
        )
        return headers

    def ask(self, question: Callable[[], _Answer], where: str, *, revision: str = "") -> _Answer:
        """The answer to one request, counted, retried and with its errors explained."""
        attempts = Attempts(self.backoff, self.transfer)
        with explained(where, endpoint=self.endpoint, revision=revision), self.transfer.counting():
            while True:
                try:
                    return question()
                except network_errors() as error:
                    attempts.failed(error)
                except (ValueError, KeyError, TypeError) as error:
                    # The client parses answers without wrapping what goes wrong there.
                    raise SourceError(
                        f"{self.endpoint} did not answer as a Hub does ({type(error).__name__})",
                        where=where,
                        hint="check HF_ENDPOINT and any proxy",
                    ) from error

    def storage(self, repository: str) -> Path:
        """Where the Hub client keeps what it has of a model repository."""
        return storage_of(self.cache_dir, repository)


def storage_of(cache_dir: Path, repository: str) -> Path:
    """Where the Hub client keeps what it has of a model repository."""
    return cache_dir / "--".join(("models", *repository.split("/")))


def _disable_telemetry() -> None:
    """The client would look up which program drives it and tell the Hub; an audit tells nobody."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True


def cache_folder() -> Path:
    """The Hub client's cache directory; the client reads the same variables, but only once."""
    if cache := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expandvars(cache)).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(os.path.expandvars(home)).expanduser() / "hub"
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "huggingface" / "hub"


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in _TRUE
