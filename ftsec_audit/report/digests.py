"""The digests of files, as evidence formats spell them: in hex, and only where they are SHA-256."""

from __future__ import annotations

import re

from ftsec_audit.types import FileRecord

_SHA256 = re.compile(r"^sha256:([0-9a-f]{64})$")


def sha256_of(digest: str) -> str:
    """The hex digits of `sha256:…`; empty for anything else."""
    match = _SHA256.match(digest)
    return match[1] if match else ""


def unknown(files: tuple[FileRecord, ...]) -> tuple[str, ...]:
    """The paths of the files of which no digest is known."""
    return tuple(file.path for file in files if not sha256_of(file.digest))
