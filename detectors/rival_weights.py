"""FTA108 rival-weights: could a loader take other weights than those that were measured?

**Question.** Does the folder of the model hold a second file of weights, under any name and in a format that
loaders of this format's family read, with values that the measured files do not have?

**Why an attacker causes it.** Which file is loaded depends on the program and its settings: with both
`model.safetensors` and `pytorch_model.bin` there, one library takes the first, another, or the first with
`use_safetensors=False`, the second; some read every `*.safetensors` of the folder. Clean weights for the
scanner and poisoned ones for the user need no more than two names (CWE-345).

**How it is measured.** Safetensors and torch files beside the measured ones, other than a trainer's state,
are compared with them tensor by tensor: bit for bit, or after rounding to the coarser of two dtypes, so that
a copy in half precision is a copy. One that differs is an exact fact, and it was not measured: the verdict
stays open until the file is gone or was scanned on its own. Files in subfolders and in formats of other
runtimes (GGUF, ONNX, Keras) are no rivals; they are listed as not looked at.

**Known false positives.** A merged model saved beside its adapter, weights of a classifier head on its own.
**Known evasions.** A loader that is told to take a subfolder or another format.
**Cost.** Nothing without such a file; else both are read as far as they are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ftsec_audit.artifact import Artifact, ArtifactKind
from ftsec_audit.contracts import ArtifactDetector, Subject
from ftsec_audit.errors import BudgetExceeded, FormatError, Unsupported
from ftsec_audit.files import ArtifactFile
from ftsec_audit.types import Confidence, Evidence, Location, NotLookedAt, Observation, Rule, Severity

if TYPE_CHECKING:
    from ftsec_audit.formats.tensors import TensorIndex

RULE = Rule(
    id="FTA108",
    name="rival-weights",
    question="Could a loader take other weights than those that were measured?",
    severity=Severity.MEDIUM,
    remediation="Delete the file that is not meant to be loaded, or scan it on its own before use.",
)
_LOADED = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True, kw_only=True)
class RivalWeights(ArtifactDetector):
    """Compares further weights of the model's folder with those that were measured."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)

    shown: int = 5

    def inspect(self, subject: Subject) -> Iterator[Observation]:
        artifact = subject.artifact
        if artifact.kind is ArtifactKind.FILES:
            yield RULE.not_applicable("no model weights were recognised")
            return
        if artifact.kind is ArtifactKind.EXPORTED:
            yield RULE.not_supported("weights inside an ONNX graph are not compared with other files")
            return
        differing: list[Evidence] = []
        unread: list[str] = []
        rivals = _rivals(artifact)
        for rival in rivals:
            try:
                difference = _difference(rival, artifact)
            except (FormatError, BudgetExceeded, Unsupported) as error:
                unread.append(rival.path)
                yield _open(rival, f"it cannot be compared with them: {error.what}")
                continue
            if difference:
                differing.append(Evidence(message=difference, location=Location(file=rival.path)))
                yield _open(rival, "its values were not measured")
        if differing:
            names = ", ".join(item.location.file for item in differing[: self.shown])
            measured = artifact.weight_files[0].path if artifact.weight_files else "nothing"
            yield RULE.detected(
                f"{names}: other weights than those that were measured ({measured})",
                confidence=Confidence.HIGH,
                evidence=differing[: self.shown],
            )
        elif unread:
            yield RULE.not_supported(f"cannot be compared with the measured weights: {', '.join(unread)}")
        elif rivals:
            yield RULE.not_detected(f"{len(rivals)} further files hold the same weights")
        else:
            yield RULE.not_detected("no further weights lie beside those that were measured")


def _rivals(artifact: Artifact) -> Sequence[ArtifactFile]:
    """Weights a loader of the same family would find in the folder of the measured ones."""
    folders = {file.path[: -len(file.name)] for file in artifact.weight_files} or {""}
    files = (artifact.file(path) for path in artifact.unexamined)
    return [
        file for file in files if file and file.suffix in _LOADED and file.path[: -len(file.name)] in folders
    ]


def _difference(rival: ArtifactFile, artifact: Artifact) -> str:
    """What the file holds that the measured weights do not, or nothing; raises what reading raises."""
    from ftsec_audit.formats import state_dict

    found, measured = state_dict.index([rival]), artifact.tensors()
    if damaged := [problem for problem in found.problems if problem.fatal]:
        raise FormatError(damaged[0].message, where=rival.path)
    foreign = [name for name in found if name not in measured]
    if foreign:
        return f"{len(foreign)} tensors of other names, first {foreign[0]}"
    changed = next((name for name in found if not _is_same(name, found, measured)), "")
    return f"other values, first in {changed}" if changed else ""


def _is_same(name: str, found: TensorIndex, measured: TensorIndex) -> bool:
    from ftsec_audit.weights.stored import StoredPair, StoredTensor

    if found[name].shape != measured[name].shape:
        return False
    return StoredPair(StoredTensor(found, name), StoredTensor(measured, name)).is_unchanged()


def _open(rival: ArtifactFile, why: str) -> NotLookedAt:
    reason = f"weights that a loader could take in place of those that were measured; {why}"
    return NotLookedAt(what=rival.path, reason=reason, incomplete=True)
