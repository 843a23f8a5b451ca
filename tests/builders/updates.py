"""ΔW of an adapter on disk, as peft loads it and as the audit reads it."""

from __future__ import annotations

from pathlib import Path

import torch

from attacks_ref.workbench import load_model, load_sample
from ftsec_audit.artifact import Artifact
from ftsec_audit.contracts import Subject
from ftsec_audit.files import ArtifactFile, LocalBytes
from ftsec_audit.weights.delta import DeltaKind
from ftsec_audit.weights.stream import deltas

PROBE = torch.arange(3, 27).view(2, 12)


def by_peft(base: Path, sample: Path) -> dict[str, torch.Tensor]:
    """Parameter → what merging the loaded sample adds to it."""
    tuned = load_sample(base, sample)
    tuned = tuned.merge_and_unload() if hasattr(tuned, "merge_and_unload") else tuned
    before = load_model(base).state_dict()
    return {name: value.float() - before[name] for name, value in tuned.state_dict().items()}


def logits(base: Path, sample: Path) -> torch.Tensor:
    """What the loaded sample, not merged, says to a fixed input."""
    with torch.no_grad():
        found: torch.Tensor = load_sample(base, sample)(PROBE).logits
    return found


def by_audit(base: Path, sample: Path) -> dict[str, torch.Tensor]:
    """Canonical module → ΔW (out, in) as the audit measures it, all tensors of a module together."""
    subject = Subject(artifact=artifact(sample), base=artifact(base))
    found: dict[str, torch.Tensor] = {}
    for delta in deltas(subject):
        if len(delta.shape) != 2 or delta.kind is DeltaKind.IDENTICAL or delta.is_zero():
            continue
        left, right = delta.singular_vectors()
        dense = (left * delta.singular_values()) @ right.T
        name = delta.name.removesuffix(".base_layer")
        found[name] = found.get(name, 0) + dense
    return found


def artifact(folder: Path) -> Artifact:
    """A local folder as the audit sees it."""

    def opened(path: str) -> LocalBytes:
        return LocalBytes(folder / path)

    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    listed = tuple(ArtifactFile(str(p.relative_to(folder)), p.stat().st_size, opened) for p in files)
    return Artifact.of(folder.name, str(folder), listed, local_dir=folder)
