"""The base a model was tuned from: named by the user, or else by the model itself.

What a model says of its base is hostile data. It is looked up on the Hub, or among the bases that the
reference lab keeps, never as a local path: an artifact must not choose which files of this machine are read.
"""

from __future__ import annotations

import re
from pathlib import Path

from ftsec_audit.artifact import Artifact
from ftsec_audit.contracts import Progress
from ftsec_audit.errors import SourceError
from ftsec_audit.sources import lab, resolve
from ftsec_audit.sources.connection import Connection
from ftsec_audit.sources.hub import resolve_hub
from ftsec_audit.sources.local import resolve_local
from ftsec_audit.sources.model_card import declared_bases
from ftsec_audit.sources.references import HubReference, LocalReference, is_explicit_path, is_repository
from ftsec_audit.sources.transfer import Transfer

_MAX_CARD = 1 << 20
_REVISION = re.compile(r"^[A-Za-z0-9](?:[\w./-]{0,198}\w)?$", re.ASCII)
_OWN_CHOICE = "pass it with --base if it is to be used"


def resolve_base(
    artifact: Artifact,
    explicit: str | None,
    no_base: bool,
    *,
    token: str | None = None,
    offline: bool = False,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    transfer: Transfer | None = None,
) -> tuple[Artifact | None, str]:
    """The base of `artifact`, or None and the reason, ready to be shown.

    A base that the user named and that cannot be had raises SourceError; one that the artifact declares
    and that cannot be had is a reason.
    """
    if no_base:
        return None, "an audit without a base was asked for"
    if explicit:
        base = resolve(
            explicit, token=token, offline=offline, cache_dir=cache_dir, progress=progress, transfer=transfer
        )
        return base, ""
    reference = declared_base(artifact)
    if isinstance(reference, str):
        return None, reference
    try:
        if isinstance(reference, LocalReference):
            return resolve_local(reference.path, str(reference.path)), ""
        connection = Connection.from_environment(
            token=token, offline=offline, cache_dir=cache_dir, progress=progress, transfer=transfer
        )
        return resolve_hub(connection, reference, _spelled(reference)), ""
    except SourceError as error:
        return None, f"the declared base cannot be had: {error}"


def declared_base(artifact: Artifact) -> HubReference | LocalReference | str:
    """What the artifact says it was tuned from: a model on the Hub, a base of the reference lab, or the
    reason why it names neither."""
    if artifact.adapter and artifact.adapter.base:
        revision = artifact.adapter.raw.get("revision")
        return _named(artifact, artifact.adapter.base, revision if isinstance(revision, str) else "")
    names = _named_by_card(artifact)
    if len(names) > 1:
        listed = ", ".join(repr(name[:100]) for name in names[:5])
        return (
            f"its model card names {len(names)} bases ({listed}), as merged models do; choose one with --base"
        )
    return _named(artifact, names[0] if names else artifact.declared_base, "")


def _named(artifact: Artifact, declared: str, revision: str) -> HubReference | LocalReference | str:
    shown = repr(declared[:200])
    if not declared:
        return "it does not declare which base it was tuned from; pass one with --base"
    if "\\" in declared or re.match(r"^[A-Za-z]:", declared):
        return f"it declares its base as a Windows path, {shown}; {_OWN_CHOICE}"
    if "://" in declared:
        return f"it declares its base as an address, {shown}; {_OWN_CHOICE}"
    if is_explicit_path(declared):
        return f"it declares its base as a path on another machine, {shown}; {_OWN_CHOICE}"
    if not is_repository(declared):
        return f"it declares its base as {shown}, which no Hub repository can be called; {_OWN_CHOICE}"
    if artifact.resolved.partition("@")[0] == declared:
        return f"it declares itself, {shown}, as its base"
    if declared.startswith(lab.NAMESPACE):
        return lab.lab_base(artifact, declared)
    if revision and (not _REVISION.match(revision) or ".." in revision):
        return f"it declares its base at {revision[:200]!r}, which no revision can be called; {_OWN_CHOICE}"
    return HubReference(repository=declared, revision=revision)


def _named_by_card(artifact: Artifact) -> tuple[str, ...]:
    card = artifact.file("README.md")
    if card is None:
        return ()
    try:
        return declared_bases(card.read(_MAX_CARD).decode(errors="replace"))
    except SourceError:  # an unreadable card declares nothing; that it is unreadable is found elsewhere
        return ()


def _spelled(reference: HubReference) -> str:
    return f"{reference.repository}@{reference.revision}" if reference.revision else reference.repository
