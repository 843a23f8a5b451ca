"""The grammar of references: what a user may write to name a model.

    reference  = local path | registered | stored
               | [ "hf://" [ "models/" ] ] repository [ "@" revision ] [ "/" folder ]
    repository = [ organisation "/" ] name
    registered = "models:/" name ( "/" number | "@" alias ) [ "/" folder ]
    stored     = "s3://" bucket [ "/" prefix ] [ "@" state ]
    revision   = branch, tag or commit; "refs/pr/7" is understood, any other "/" is written "%2F"
    state      = 64 hexadecimal digits, as a report names them

A local path wins when it exists or starts with `/`, `./`, `../` or `~`; nothing else is looked up on disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ftsec_audit.errors import SourceError

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):/")
_NAME = r"[A-Za-z0-9](?:[\w.-]{0,94}\w)?"
_REPOSITORY = re.compile(rf"^(?:{_NAME}/)?{_NAME}$", re.ASCII)
_REFS = re.compile(r"^(refs/[^/]+/[^/]+)(?:/(.*))?$")
_REGISTERED = re.compile(
    r"^models:/+(?P<name>[^/@:]+)(?:/(?P<version>[0-9]{1,9})|@(?P<alias>[A-Za-z][\w.-]{0,254}))"
    r"(?:/(?P<folder>.+))?$",
    re.ASCII,
)
_STORED = re.compile(
    r"^s3://(?P<bucket>[A-Za-z0-9][\w.-]{1,253}[A-Za-z0-9])(?:/(?P<prefix>.*?))?(?:@(?P<state>[0-9a-f]{64}))?$",
    re.ASCII | re.DOTALL | re.IGNORECASE,
)
_GRAMMAR_HINT = "write org/model, org/model@revision, hf://org/model@revision/folder or ./path"


@dataclass(frozen=True, kw_only=True)
class LocalReference:
    """A file or directory on this machine."""

    path: Path


@dataclass(frozen=True, kw_only=True)
class HubReference:
    """A model repository on the Hub, at a revision, and perhaps only a folder or a file of it."""

    repository: str
    revision: str = ""
    """Branch, tag or commit; empty means the default branch."""
    folder: str = ""


@dataclass(frozen=True, kw_only=True)
class MlflowReference:
    """A version of a model in an MLflow registry, by number or by alias."""

    name: str
    version: str = ""
    alias: str = ""
    folder: str = ""

    def __str__(self) -> str:
        return f"models:/{self.name}" + (f"@{self.alias}" if self.alias else f"/{self.version}")


@dataclass(frozen=True, kw_only=True)
class S3Reference:
    """The objects below a prefix of a bucket, or one object."""

    bucket: str
    prefix: str = ""
    """Of keys, up to a `/` that is not part of it, or a whole key; empty means the whole bucket."""
    state: str = ""
    """What the objects have to be, by a digest of their listing; empty means whatever they are now."""

    def __str__(self) -> str:
        place = f"s3://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")
        return place + (f"@{self.state}" if self.state else "")


Reference = LocalReference | HubReference | MlflowReference | S3Reference


def parse(reference: str, *, revision: str | None = None) -> Reference:
    """What `reference` names; `revision` is one given beside it (`--revision`). Raises SourceError."""
    if not reference.strip() or "\0" in reference:
        raise SourceError("the reference is empty or holds a zero byte", hint=_GRAMMAR_HINT)
    if is_explicit_path(reference) or (not _SCHEME.match(reference) and _exists(reference)):
        return _local(reference, revision)
    if reference.startswith("models:/"):
        return _registered(reference, revision)
    if is_stored(reference):
        if revision:
            raise SourceError("a bucket has no revision", where=reference, hint=f"leave out {revision}")
        return parse_stored(reference)
    parsed = parse_hub(reference)
    if revision and parsed.revision and revision != parsed.revision:
        raise SourceError(
            f"two revisions are given: {parsed.revision} and {revision}", where=reference, hint="keep one"
        )
    return HubReference(
        repository=parsed.repository, revision=parsed.revision or (revision or ""), folder=parsed.folder
    )


def is_explicit_path(reference: str) -> bool:
    """Whether `reference` can only be meant as a local path."""
    return reference in (".", "..", "~") or reference.startswith(("/", "./", "../", "~/"))


def is_stored(reference: str) -> bool:
    """Whether `reference` is meant as a place in an object store."""
    return reference[:5].lower() == "s3://"


def is_repository(text: str) -> bool:
    """Whether `text` could be the name of a Hub repository."""
    return bool(_REPOSITORY.match(text)) and "--" not in text and ".." not in text


def parse_hub(reference: str) -> HubReference:
    """Parse a reference that is known not to be a path; raises SourceError."""
    scheme = _SCHEME.match(reference)
    if scheme and scheme.group(1).lower() != "hf":
        raise SourceError(f"cannot fetch from {scheme.group(1)}:", where=reference, hint=_GRAMMAR_HINT)
    text = re.sub(r"^hf:/+", "", reference, flags=re.IGNORECASE)
    if scheme:
        text = _without_type(text, reference)
    before, at, after = text.partition("@")
    if at:
        repository, (revision, folder) = before, _split_revision(after)
    else:
        parts = text.split("/", 2)
        repository, revision, folder = "/".join(parts[:2]), "", "".join(parts[2:])
    folder = folder.strip("/")
    if not is_repository(repository) or (at and not revision) or ".." in folder.split("/"):
        raise SourceError(
            "neither an existing path nor the name of a Hub repository", where=reference, hint=_GRAMMAR_HINT
        )
    return HubReference(repository=repository, revision=revision, folder=folder)


def parse_stored(reference: str) -> S3Reference:
    """Parse a reference to an object store; raises SourceError."""
    match = _STORED.match(reference)
    if match is None:
        raise SourceError("no place in a bucket", where=reference, hint="write s3://bucket/prefix")
    prefix = (match["prefix"] or "").removesuffix("/")
    return S3Reference(bucket=match["bucket"], prefix=prefix, state=(match["state"] or "").lower())


def _registered(reference: str, revision: str | None) -> MlflowReference:
    match = _REGISTERED.match(reference)
    folder = (match["folder"] or "").strip("/") if match else ""
    if match is None or ".." in folder.split("/"):
        raise SourceError(
            "no version of a registered model",
            where=reference,
            hint="write models:/name/3 or models:/name@alias",
        )
    if revision:
        raise SourceError("a registered model has no revision", where=reference, hint=f"leave out {revision}")
    return MlflowReference(
        name=match["name"], version=match["version"] or "", alias=match["alias"] or "", folder=folder
    )


def _local(reference: str, revision: str | None) -> LocalReference:
    path = Path(reference).expanduser()
    if not _exists(str(path)):
        raise SourceError("no such file or directory", where=reference)
    if revision:
        raise SourceError("a local path has no revision", where=reference, hint=f"leave out {revision}")
    return LocalReference(path=path)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # e.g. a name too long, or a parent that may not be searched
        return False


def _without_type(text: str, reference: str) -> str:
    """Drop `models/`; other kinds of repository hold no model."""
    first, _, rest = text.partition("/")
    if first in ("datasets", "spaces", "buckets", "kernels"):
        raise SourceError(f"{first} cannot be audited, only models", where=reference)
    return rest if first == "models" and "/" in rest else text


def _split_revision(text: str) -> tuple[str, str]:
    """`main/a/b` → (`main`, `a/b`); `refs/pr/7/a` → (`refs/pr/7`, `a`)."""
    if match := _REFS.match(text):
        return unquote(match.group(1)), match.group(2) or ""
    revision, _, folder = text.partition("/")
    return unquote(revision), folder
