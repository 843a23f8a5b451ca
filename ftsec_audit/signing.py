"""Signatures of model-signing (extra `sign`): over an artifact before it is scanned, and over evidence after.

They are sigstore bundles with a list of file digests, made with an elliptic-curve key; the command line of
model-signing reads what is written here and the other way round. Signing without a key (sigstore) is left
to that command line: it needs a browser or the identity of a build service.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftsec_audit.errors import FtsecError, UsageError

if TYPE_CHECKING:
    from ftsec_audit.artifact import Artifact

SUFFIX = ".sig"
IN_FOLDER = "model.sig"
"""Where model-signing puts the signature of a folder."""
_MAX_SIGNATURE = 64 << 20


class SignatureRefused(FtsecError):
    """There is no signature by this key, or the bytes are not those that were signed."""


@dataclass(frozen=True, kw_only=True)
class RequiredSignature:
    """A public key by which an artifact has to be signed."""

    public_key: Path
    signature: Path | None = None
    """Default: `model.sig` in the folder, or beside the file with `.sig` appended."""

    def check(self, artifact: Artifact) -> None:
        """Raises SignatureRefused for an artifact that is not signed, UsageError for one that is not here."""
        path = artifact.local_dir or Path(artifact.resolved)
        if not path.is_absolute() or not path.exists():
            raise UsageError(
                "a signature is over files of this machine",
                where=artifact.reference,
                hint="download it first, e.g. hf download, and name the folder",
            )
        default = path / IN_FOLDER if path.is_dir() else path.with_name(path.name + SUFFIX)
        verify(path, self.signature or default, self.public_key)


def sign(path: Path, private_key: Path) -> Path:
    """Sign a file or a folder; the new signature is beside the file, or in the folder. Raises UsageError."""
    signing, hashing = _library()
    signature = path / IN_FOLDER if path.is_dir() else path.with_name(path.name + SUFFIX)
    try:
        config = signing.signing.Config().use_elliptic_key_signer(private_key=private_key)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"no private key that can be used: {error}", where=str(private_key)) from error
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[signature]))
    config.sign(path, signature)
    return signature


def verify(path: Path, signature: Path, public_key: Path) -> None:
    """Raises SignatureRefused unless exactly the bytes at `path` are signed with the key's other half."""
    signing, hashing = _library()
    try:
        config = signing.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (OSError, ValueError) as error:
        raise UsageError(f"no public key that can be used: {error}", where=str(public_key)) from error
    if not signature.is_file():
        raise SignatureRefused("is not signed", where=str(path), hint=f"there is no {signature}")
    if signature.stat().st_size > _MAX_SIGNATURE:
        raise SignatureRefused("the signature is too large to be one", where=str(signature))
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[signature]))
    try:
        with redirect_stdout(sys.stderr):  # the library warns there
            config.verify(path, signature)
    except Exception as error:  # a hostile bundle may make the library raise anything
        reason = str(error) or "it was made with another key"
        raise SignatureRefused(f"the signature does not hold: {reason[:500]}", where=str(path)) from error


def _library() -> tuple[Any, Any]:
    try:
        import model_signing
        from model_signing import hashing
    except ImportError as error:
        raise UsageError("model-signing is not installed", hint="pip install 'ftsec-audit[sign]'") from error
    return model_signing, hashing
