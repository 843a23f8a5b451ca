"""What a set of files is: an adapter, a checkpoint, or neither; and its tensors, configuration and card.

Classification reads configuration files, and the header of a weight file where no configuration tells.
Nothing is executed and no odd content raises: it becomes a problem that the report can show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ftsec_audit.adapter_config import AdapterConfig
from ftsec_audit.errors import SourceError
from ftsec_audit.files import ArtifactFile, sha256
from ftsec_audit.types import ArtifactCard, FileRecord

if TYPE_CHECKING:
    from ftsec_audit.formats.onnx import OnnxModel
    from ftsec_audit.formats.tensors import TensorIndex

__all__ = ["AdapterConfig", "Artifact", "ArtifactKind"]

_HASHED_UNASKED = 1 << 30  # bytes; a second of hashing


class ArtifactKind(StrEnum):
    ADAPTER = "adapter"
    CHECKPOINT = "checkpoint"
    EXPORTED = "exported"
    """A causal model as an ONNX graph: it can be asked, its weights cannot be compared."""
    FILES = "files"
    """No model was recognised."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Artifact:
    """Files with their meaning. Two artifacts are equal only when they are the same object."""

    reference: str
    resolved: str
    files: tuple[ArtifactFile, ...]
    kind: ArtifactKind
    adapter: AdapterConfig | None = None
    config: Mapping[str, object] | None = None
    """`config.json`."""
    declared_base: str = ""
    """The base as the artifact names it: a Hub id, a path on somebody's machine, or anything else."""
    weight_files: tuple[ArtifactFile, ...] = ()
    """The files a loader would take the weights from."""
    shard_index: ArtifactFile | None = None
    unexamined: tuple[str, ...] = ()
    """Paths of further weights that `tensors()` leaves out: other formats, copies, models in subfolders."""
    problems: tuple[str, ...] = ()
    local_dir: Path | None = None
    composition: tuple[str, ...] = ()
    """The adapters, each with its factor, that were put together into this one; none for one as it is."""

    @classmethod
    def of(
        cls,
        reference: str,
        resolved: str,
        files: Sequence[ArtifactFile],
        *,
        local_dir: Path | None = None,
    ) -> Artifact:
        """Recognise what the files are; raises SourceError and nothing else."""
        from ftsec_audit.recognition import recognise

        return recognise(reference, resolved, tuple(files), local_dir=local_dir)

    def file(self, path: str) -> ArtifactFile | None:
        """The file at `path`, exactly as the artifact spells it."""
        return self._by_path.get(path)

    @cached_property
    def _by_path(self) -> dict[str, ArtifactFile]:
        return {file.path: file for file in self.files}

    def tensors(self) -> TensorIndex:
        """The tensors of the weight files, indexed once; raises FormatError, BudgetExceeded, Unsupported."""
        return self._tensors

    @cached_property
    def _tensors(self) -> TensorIndex:
        from ftsec_audit.formats import state_dict

        return state_dict.index(self.weight_files, shard_index=self.shard_index)

    @cached_property
    def graph(self) -> OnnxModel:
        """What the graph of an exported model is made of; raises FormatError, BudgetExceeded, SourceError."""
        from ftsec_audit.formats import onnx

        file = self.weight_files[0]
        return onnx.read(file.open(), where=file.path)

    def exported(self) -> Artifact | None:
        """The same files, with the model exported to ONNX as their model; None where there is none."""
        from ftsec_audit.recognition import graph_beside

        if self.kind is ArtifactKind.EXPORTED:
            return self
        graph = graph_beside(self)
        if graph is None:
            return None
        return replace(
            self, kind=ArtifactKind.EXPORTED, weight_files=(graph,), adapter=None, shard_index=None
        )

    @cached_property
    def digest(self) -> str:
        """`sha256:…` over the sorted (path, size, SHA-256 of the content) of all files, or nothing.

        It covers every byte of every file, so it identifies the artifact. It is empty when more than 1 GiB
        of content is not yet known by digest: a local checkpoint is not hashed unless `exact_digest` asks.
        Computed when first read.
        """
        unknown = sum(file.size for file in self.files if not file.digest)
        return self.exact_digest() if unknown <= _HASHED_UNASKED else ""

    def exact_digest(self) -> str:
        """`digest`, whatever it costs."""
        summary = hashlib.sha256()
        for file in sorted(self.files, key=lambda file: file.path):
            for part in (file.path, str(file.size), self.digests()[file.path]):
                summary.update(part.encode("utf-8", "surrogateescape") + b"\0")
        return f"sha256:{summary.hexdigest()}"

    def digests(self) -> Mapping[str, str]:
        """Path → `sha256:…` of every file; reads, once, each whose digest the source does not know.

        A file that the source refuses to open (a pipe, a link out of the directory) counts by the reason.
        """
        return self._digests

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {file.path: file.digest or _sha256(file) for file in self.files}

    def card(self, *, with_digest: bool = True, exact: bool = False) -> ArtifactCard:
        """What the report says about the artifact; computes `digest` unless told not to, or if `exact`,
        `exact_digest`.
        """
        digest = (self.exact_digest() if exact else self.digest) if with_digest else ""
        known = self.digests() if digest else {file.path: file.digest for file in self.files}
        records = (
            FileRecord(
                path=file.path,
                size=file.size,
                digest=known[file.path] if known[file.path].startswith("sha256:") else "",
                format=file.suffix.removeprefix("."),
            )
            for file in self.files
        )
        return ArtifactCard(
            reference=self.reference,
            resolved=self.resolved,
            digest=digest,
            kind=self.kind.value,
            description=self.describe(),
            base_reference=self.declared_base,
            files=tuple(records),
        )

    def describe(self) -> str:
        """One line for people, e.g. `LoRA r=16 (q_proj,v_proj)` or `LlamaForCausalLM, 32 layers × 4096`."""
        if self.adapter is not None:
            return self.adapter.describe()
        if self.kind is ArtifactKind.CHECKPOINT:
            return _described_checkpoint(self.config or {})
        if self.kind is ArtifactKind.EXPORTED:
            return f"{_described_checkpoint(self.config or {})}, exported to ONNX"
        return f"{len(self.files)} files"


def _sha256(file: ArtifactFile) -> str:
    try:
        return sha256(file.open())
    except SourceError as error:
        if file.size:
            raise
        return f"refused: {error.what}"


def _described_checkpoint(config: Mapping[str, object]) -> str:
    architectures = config.get("architectures")
    first = (
        architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type")
    )
    parts = [str(first)[:60] if first else "checkpoint without configuration"]
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    width = config.get("hidden_size", config.get("n_embd"))
    if isinstance(layers, int) and isinstance(width, int):
        parts.append(f"{layers} layers × {width}")
    quantization = config.get("quantization_config")
    if isinstance(quantization, dict):
        parts.append(f"quantised ({str(quantization.get('quant_method', 'unknown method'))[:20]})")
    return ", ".join(parts)
