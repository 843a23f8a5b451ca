"""The MLflow model registry: which version a reference means, its files, its tags and its aliases.

Spoken to through the genuine client (extra `mlflow`), so every kind of artifact store it knows works.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ftsec_audit.errors import SourceError
from ftsec_audit.sources.references import MlflowReference

_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # an audit tells nobody what it looks at
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # seven would take minutes to say that nobody answers
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""What the client reads from the environment, unless it is set there."""


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One version of a registered model; versions are numbered and keep their number."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True, kw_only=True)
class Registry:
    """A registry at an address."""

    uri: str

    @classmethod
    def from_environment(cls) -> Registry:
        """MLFLOW_REGISTRY_URI, or else MLFLOW_TRACKING_URI; raises SourceError when neither is set."""
        uri = os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            raise SourceError(
                "which MLflow registry is not said", hint="set MLFLOW_TRACKING_URI=https://mlflow.example"
            )
        return cls(uri=uri)

    def find(self, reference: MlflowReference) -> ModelVersion:
        """The version that a number or an alias means now; raises SourceError."""
        with self._asking(str(reference)) as client:
            if reference.alias:
                found = client.get_model_version_by_alias(reference.name, reference.alias)
            else:
                found = client.get_model_version(reference.name, reference.version)
        return ModelVersion(name=reference.name, version=str(found.version))

    def download(self, version: ModelVersion, folder: str, into: Path) -> Path:
        """The files of a version, or of one folder of it, below `into`; raises SourceError."""
        with self._asking(str(version)) as client:
            address = str(client.get_model_version_download_uri(version.name, version.version))
            self._refuse_local(address, version)
            from mlflow.artifacts import download_artifacts

            wanted = f"{address.rstrip('/')}/{folder}" if folder else address
            found = download_artifacts(artifact_uri=wanted, dst_path=str(into), tracking_uri=self.uri)
        path = Path(found).resolve()
        if not path.is_relative_to(into.resolve()):
            raise SourceError("its files were not downloaded to where they belong", where=str(version))
        return path

    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags on a version; raises SourceError."""
        with self._asking(str(version)) as client:
            for key, value in tags.items():
                client.set_model_version_tag(version.name, version.version, key, value)

    def point(self, alias: str, version: ModelVersion) -> None:
        """Make an alias mean this version; raises SourceError."""
        with self._asking(str(version)) as client:
            client.set_registered_model_alias(version.name, alias, version.version)

    def aliases(self, version: ModelVersion) -> tuple[str, ...]:
        """The aliases that mean this version now; raises SourceError."""
        with self._asking(str(version)) as client:
            return tuple(client.get_model_version(version.name, version.version).aliases)

    def _refuse_local(self, address: str, version: ModelVersion) -> None:
        """A registry elsewhere must not choose which files of this machine are read."""
        if urlsplit(self.uri).scheme in ("http", "https") and urlsplit(address).scheme in ("", "file"):
            raise SourceError(
                f"the registry keeps it at {address[:200]!r}, a path of some machine",
                where=str(version),
                hint="if that is this machine, name the folder itself",
            )

    @contextmanager
    def _asking(self, where: str) -> Iterator[Any]:
        """The client; its errors, and those of what it is built on, become SourceError."""
        for key, value in _DEFAULTS.items():
            os.environ.setdefault(key, value)
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise SourceError(
                "the MLflow client is not installed", where=where, hint="pip install 'ftsec-audit[mlflow]'"
            ) from error
        try:
            yield MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        except (MlflowException, OSError, ValueError) as error:
            text = (str(error) or type(error).__name__).replace(self.uri, self._shown()).splitlines()[0]
            raise SourceError(f"the registry at {self._shown()} says: {text[:300]}", where=where) from error

    def _shown(self) -> str:
        """The address without the user and password that it may carry."""
        parts = urlsplit(self.uri)
        host = parts.hostname or ""
        return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"
