"""Registered models of MLflow as artifacts: `models:/name/version` and `models:/name@alias`.

The files of a version are downloaded to a folder that lasts as long as the artifact does, and are read
there like any other folder. An alias is resolved to its version first; the report names the version.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ftsec_audit.artifact import Artifact
from ftsec_audit.contracts import Progress
from ftsec_audit.errors import SourceError
from ftsec_audit.files import ByteReader, FileOpener
from ftsec_audit.sources.local import resolve_local
from ftsec_audit.sources.mlflow_registry import Registry
from ftsec_audit.sources.references import MlflowReference


@dataclass(frozen=True)
class KeptOpener:
    """Opens a file, and keeps the folder it was downloaded to while anybody may still open it."""

    opener: FileOpener
    folder: TemporaryDirectory[str]

    def __call__(self, path: str) -> ByteReader:
        return self.opener(path)


def resolve_mlflow(
    reference: MlflowReference, spelled: str, *, offline: bool = False, progress: Progress | None = None
) -> Artifact:
    """The artifact behind a reference to the registry; raises SourceError."""
    if offline:
        raise SourceError(
            "a registry cannot be asked, this audit is offline", where=spelled, hint="name a folder"
        )
    registry = Registry.from_environment()
    version = registry.find(reference)
    if progress is not None:
        progress.note(f"downloading {version}")
    folder = TemporaryDirectory(prefix="ftsec-audit-mlflow-")
    path = registry.download(version, reference.folder, Path(folder.name))
    artifact = resolve_local(path, spelled)
    files = tuple(replace(file, source=KeptOpener(file.source, folder)) for file in artifact.files)
    resolved = f"{version}/{reference.folder}" if reference.folder else str(version)
    found = Artifact.of(spelled, resolved, files, local_dir=artifact.local_dir)
    return replace(found, problems=tuple(dict.fromkeys((*found.problems, *artifact.problems))))
