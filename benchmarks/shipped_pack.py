"""Build the calibration pack that ships with the program from a folder of real, presumed-benign adapters.

    python benchmarks/shipped_pack.py DATA OUT VERSION

DATA holds `manifest.json`, a list of objects with `dir`, `repo`, `commit`, `path`, `sha256`, `licence` and
`base`, one per adapter. OUT is the pack to write; features and origins go into it, weights do not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from detectors.registry import detectors
from ftsec_audit.artifact import Artifact
from ftsec_audit.calibration.build import build_pack
from ftsec_audit.calibration.pack import Provenance
from ftsec_audit.sources import resolve
from ftsec_audit.weights.stream import deltas


def main(data: Path, out: Path, version: str) -> None:
    built = build_pack(
        _artifacts(data),
        [detector() for detector in detectors(third_party=False)],
        stream=deltas,
        name="real-adapters",
        version=version,
        description="Public PEFT adapters from Hub and GitHub repositories, presumed benign, none proven so.",
    )
    built.pack.save(out)
    repositories = {entry.provenance.repository for entry in built.pack.entries}
    print(f"{out}: {len(built.pack.entries)} adapters of {len(repositories)} repositories, "
          f"{out.stat().st_size:,} bytes")  # fmt: skip
    for left in built.left_out:
        print(f"left out: {left.what}: {left.reason}")


def _artifacts(data: Path) -> Iterator[tuple[Artifact, Provenance]]:
    for entry in json.loads((data / "manifest.json").read_text()):
        yield (
            resolve(str(data / entry["dir"])),
            Provenance(
                repository=entry["repo"],
                commit=entry["commit"],
                path=entry["path"],
                sha256=entry["sha256"],
                licence=entry["licence"],
                base=entry["base"] or "",
            ),
        )


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
