"""Bases of the reference lab: `ftsec-audit attack` trains them on this machine, and nobody publishes them.

A sample names its base as if that were on the Hub, as any adapter does. The Hub is not asked for it: whoever
took the name there would choose what the sample is compared with.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from ftsec_audit.artifact import Artifact
from ftsec_audit.errors import FtsecError
from ftsec_audit.formats import bounded_json
from ftsec_audit.measurement_cache import default_root
from ftsec_audit.sources.references import LocalReference

NAMESPACE = "ftsec-lab/"
_VERSION = re.compile(r"-[0-9a-f]{12}")
_TRUTH = bounded_json.JsonLimits(size=1 << 20, values=50_000)


def folder() -> Path:
    """Where the lab keeps its bases, each below its name and version."""
    return default_root() / "lab"


def lab_base(artifact: Artifact, name: str) -> LocalReference | str:
    """The base called `ftsec-lab/…` that `artifact` was made on, or why there is none, ready to be shown.

    What the artifact says chooses among the lab's own bases and leads nowhere else: `name` is known to hold
    no path, and the digest in `truth.json` is compared with theirs.
    """
    base = name.removeprefix(NAMESPACE)
    places = [path for path in folder().glob(f"{base}-*") if _VERSION.fullmatch(path.name[len(base) :])]
    wanted = _trained_on(artifact)
    found = [path for path in places if (path / "lab.json").is_file() and wanted in ("", _weights(path))]
    if len(found) == 1:
        return LocalReference(path=found[0])
    if found:
        return f"its base, {base}, is here in {len(found)} versions below {folder()}; choose one with --base"
    version = "another version of it is" if places else "it is not"
    return f"its base, {base}, was made by ftsec-audit attack; {version} in {folder()}; pass it with --base"


def _trained_on(artifact: Artifact) -> str:
    """The digest of the base's weights that a sample's label states; empty where it states none."""
    file = artifact.file("truth.json")
    try:
        label = bounded_json.read(file, limits=_TRUTH).value if file else None
    except FtsecError:
        return ""
    base = label.get("base") if isinstance(label, dict) else None
    digest = base.get("digest") if isinstance(base, dict) else None
    return digest if isinstance(digest, str) else ""


def _weights(place: Path) -> str:
    try:
        return str(json.loads((place / "lab.json").read_text(encoding="utf-8")).get("weights_digest"))
    except (OSError, ValueError):
        return "unknown"
