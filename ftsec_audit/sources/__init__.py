"""Where artifacts come from: a reference in, an `Artifact` pinned to a commit or a directory out.

The only package that talks to the network. Nothing is fetched before it is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ftsec_audit.contracts import Progress
from ftsec_audit.sources.references import LocalReference, MlflowReference, S3Reference, parse

if TYPE_CHECKING:
    from ftsec_audit.artifact import Artifact
    from ftsec_audit.sources.transfer import Transfer


def resolve(
    reference: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    offline: bool = False,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    transfer: Transfer | None = None,
) -> Artifact:
    """What `reference` names: a directory, a file, `org/model@rev`, `hf://org/model@rev/folder`,
    `models:/name/3`, or `s3://bucket/prefix`.

    `transfer` counts what came over the network, also later when files are opened. Raises SourceError.
    """
    parsed = parse(reference, revision=revision)
    if isinstance(parsed, LocalReference):
        from ftsec_audit.sources.local import resolve_local

        return resolve_local(parsed.path, reference)
    if isinstance(parsed, MlflowReference):
        from ftsec_audit.sources.mlflow import resolve_mlflow

        return resolve_mlflow(parsed, reference, offline=offline, progress=progress)
    if isinstance(parsed, S3Reference):
        from ftsec_audit.sources.s3 import resolve_s3

        return resolve_s3(parsed, reference, offline=offline, progress=progress, transfer=transfer)
    from ftsec_audit.sources.connection import Connection
    from ftsec_audit.sources.hub import resolve_hub

    connection = Connection.from_environment(
        token=token, offline=offline, cache_dir=cache_dir, progress=progress, transfer=transfer
    )
    return resolve_hub(connection, parsed, reference)
