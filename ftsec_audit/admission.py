"""May this artifact be deployed? Answered from signed evidence, without scanning again.

The evidence is the in-toto statements of a scan. It has to be signed by a key that is trusted, to claim
the properties that are asked for, and to name exactly the files that are there, each with its digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ftsec_audit import signing
from ftsec_audit.artifact import Artifact
from ftsec_audit.errors import UsageError
from ftsec_audit.report import intoto

PASSED = "FTSEC_AUDIT_POLICY_PASSED"
_MAX_EVIDENCE = 256 << 20


def objections(
    evidence: Path, signature: Path, public_key: Path, artifact: Artifact, properties: Sequence[str]
) -> tuple[str, ...]:
    """Why it may not be deployed; empty when it may. Raises SignatureRefused and UsageError."""
    signing.verify(evidence, signature, public_key)
    statement = _verification(evidence)
    claimed = statement["predicate"]["properties"]
    missing = [f"{name} is not claimed" for name in properties if name not in claimed]
    return (*missing, *_differences(statement["subject"], artifact))


def _differences(subjects: Sequence[Mapping[str, Any]], artifact: Artifact) -> Iterator[str]:
    stated = {subject["name"]: subject["digest"]["sha256"] for subject in subjects}
    for path, digest in artifact.digests().items():
        wanted = stated.pop(path, None)
        if wanted is None:
            yield f"{path}: was not there when it was scanned"
        elif digest != f"sha256:{wanted}":
            yield f"{path}: has other bytes than when it was scanned"
    for path in stated:
        yield f"{path}: was scanned and is not there"


def _verification(evidence: Path) -> dict[str, Any]:
    """The Simple Verification Result among the statements; its shape is checked as far as it is used."""
    if evidence.stat().st_size > _MAX_EVIDENCE:
        raise UsageError(f"is larger than {_MAX_EVIDENCE:,} bytes", where=str(evidence))
    try:
        statements = [json.loads(line) for line in evidence.read_text(encoding="utf-8").splitlines()]
        [found] = [s for s in statements if s["predicateType"] == intoto.VERIFICATION]
        assert all(isinstance(s["digest"]["sha256"], str) for s in found["subject"])
        assert isinstance(found["predicate"]["properties"], list)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise UsageError(
            "holds no Simple Verification Result of one artifact",
            where=str(evidence),
            hint="scan one artifact with -f intoto=PATH",
        ) from error
    result: dict[str, Any] = found
    return result
