"""Whether a model may be loaded, decided from its headers and small files before any loader sees it.

Loaders of this field run code that a repository brings (`auto_map`), import modules that a configuration
names (`megatron_config`, `auto_mapping`), unpickle weights and fetch kernels. What needs any of that is not
loaded; the rules that need its behaviour say so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ftsec_audit.artifact import Artifact, ArtifactKind
from ftsec_audit.contracts import Subject
from ftsec_audit.errors import NotApplicable, Unsupported

_BYTES = 4
"""Of a float32 parameter, as models are held on a CPU."""
_CODE_NAMES = ("auto_map", "auto_mapping", "megatron_config", "custom_pipelines")
_WHOLE = (ArtifactKind.CHECKPOINT, ArtifactKind.EXPORTED)
_SHARING = frozenset({"lora", "rslora", "dora", "adalora", "loha", "lokr", "ia3", "vera"})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large a model may be."""

    parameters: int | None = None
    """At most so many; None: as many as fit."""
    memory_share: float = 0.6
    """Of the memory that is free now."""


def admit(subject: Subject, limits: Limits, *, free_bytes: int, bytes_each: int = _BYTES) -> int:
    """Parameters that loading `subject` with its base would take; raises Unsupported or NotApplicable."""
    artifact, base = subject.artifact, subject.base
    if artifact.kind is ArtifactKind.FILES:
        raise NotApplicable("holds no model that could be asked anything")
    if artifact.kind is ArtifactKind.ADAPTER and base is None:
        raise Unsupported(f"an adapter cannot be run without its base: {subject.base_reason}")
    if artifact.kind is ArtifactKind.ADAPTER and base is not None and base.kind is ArtifactKind.EXPORTED:
        raise Unsupported("an adapter cannot be attached to an exported graph")
    full = [part for part in (artifact, base) if part is not None and part.kind in _WHOLE]
    for part in filter(None, (artifact, base)):
        if part.kind is not ArtifactKind.EXPORTED:
            _refuse_code(part)
        if part.kind is ArtifactKind.CHECKPOINT:
            _refuse_quantised(part)
    count = max(map(parameters, full), default=0)
    if limits.parameters is not None and count > limits.parameters:
        raise Unsupported(
            f"{count:,} parameters; this profile probes up to {limits.parameters:,} on this device",
            hint="use --device cuda or --profile deep",
        )
    copies = len(full) + (artifact.kind is ArtifactKind.ADAPTER and not shares_weights(artifact))
    need, may = count * bytes_each * copies, int(free_bytes * limits.memory_share)
    if need > may:
        raise Unsupported(f"needs {need:,} bytes of memory, of which {may:,} may be used")
    return count


def shares_weights(adapter: Artifact) -> bool:
    """Whether switching the adapter off gives the base again, so that one copy serves both.

    It does not where biases are trained in place, or where the adapter was initialised from the base's own
    weights (PiSSA, OLoRA, CorDA, LoftQ) and takes that part out of them.
    """
    config = adapter.adapter
    if config is None or config.method not in _SHARING or config.bias != "none":
        return False
    start = config.raw.get("init_lora_weights", True)
    return isinstance(start, bool) or start == "gaussian"


def parameters(artifact: Artifact) -> int:
    """Stored weights of a checkpoint or exported graph, from the headers alone."""
    if artifact.kind is ArtifactKind.EXPORTED:
        return artifact.graph.elements
    return sum(entry.numel for entry in artifact.tensors().values())


def free_memory() -> int:
    """Bytes of main memory that are free now."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _refuse_code(artifact: Artifact) -> None:
    where = artifact.reference
    for name, document in _documents(artifact):
        for key in _CODE_NAMES:
            if document.get(key):
                raise Unsupported(f"{name} has {key!r}, which makes loaders run code", where=where)
    for file in artifact.weight_files:
        if file.suffix != ".safetensors":
            raise Unsupported(f"{file.path} is no safetensors file; only those are loaded", where=where)
        if "/" in file.path or "\\" in file.path:
            raise Unsupported("weights in a subfolder are not loaded", where=where)
    if not artifact.weight_files:
        raise Unsupported("has no weights", where=where)


def _documents(artifact: Artifact) -> Iterator[tuple[str, Mapping[str, object]]]:
    if artifact.config is not None:
        yield "config.json", artifact.config
    if artifact.adapter is not None:
        yield "adapter_config.json", artifact.adapter.raw


def _refuse_quantised(artifact: Artifact) -> None:
    config = artifact.config or {}
    if not config:
        raise Unsupported("has no config.json", where=artifact.reference)
    if config.get("quantization_config"):
        raise Unsupported("quantised weights are not run", where=artifact.reference)
