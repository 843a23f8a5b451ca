"""The changes that an adapter makes, module by module, factors of equal shape measured together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftsec_audit.adapter_config import AdapterConfig
from ftsec_audit.artifact import Artifact
from ftsec_audit.errors import FormatError, Unsupported
from ftsec_audit.formats.tensors import TensorEntry, TensorIndex
from ftsec_audit.weights.adapter_keys import AdaptedModule, adapted_modules
from ftsec_audit.weights.change import Change
from ftsec_audit.weights.comparison import compare
from ftsec_audit.weights.declared import is_declared
from ftsec_audit.weights.delta import Delta, DeltaKind
from ftsec_audit.weights.dense import Dense
from ftsec_audit.weights.factors import Factors, Scratch, StoredFactors
from ftsec_audit.weights.kronecker import Kronecker
from ftsec_audit.weights.lowrank import FactorBatch, LowRank
from ftsec_audit.weights.methods import AdapterReader, Built, build, is_plain_lora, lora_scale
from ftsec_audit.weights.moments import Held, Source
from ftsec_audit.weights.named_weights import NamedWeights, layer_count, layers_reached
from ftsec_audit.weights.stored import StoredPair, StoredTensor

_WINDOW_BYTES = 96 << 20
"""Factors looked at together, so that those of one shape can be measured at once."""
_HELD_BYTES = 48 << 20
"""The same where they are kept in memory, as reading them again would be slow."""

_FACTORS = ("lora_B", "lora_A")
_FACTOR_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})


def adapter_deltas(artifact: Artifact, base: NamedWeights | None, reason: str) -> Iterator[Delta]:
    """One delta per module of the adapter; `reason` says why there is no base."""
    index = artifact.tensors()
    modules = adapted_modules(index)
    projections = next((module.parts for module in modules if module.method == "vera-shared"), {})
    stream = _AdapterStream(
        reader=AdapterReader(
            index=index, config=artifact.adapter or AdapterConfig(), base=base, projections=projections
        ),
        reason=reason,
        n_layers=max(
            layers_reached(module.module for module in modules), layer_count(base.config) if base else 0
        ),
    )
    size = _WINDOW_BYTES if index.is_local() else _HELD_BYTES
    for window in _windows(modules, index, size):
        yield from stream.window(window)


@dataclass(frozen=True, kw_only=True)
class _AdapterStream:
    reader: AdapterReader
    reason: str
    n_layers: int
    scratch: Scratch = field(default_factory=Scratch)

    def window(self, modules: Sequence[AdaptedModule]) -> Iterator[Delta]:
        """The deltas of some modules, in order."""
        batched = self._batched(modules)
        for module in modules:
            yield batched.get(id(module)) or self._single(module)

    def _batched(self, modules: Iterable[AdaptedModule]) -> dict[int, Delta]:
        """Plain LoRA modules by identity, measured together with those of equal shapes."""
        groups: dict[tuple[object, ...], list[AdaptedModule]] = defaultdict(list)
        for module in modules:
            if is_plain_lora(module):
                left, right = (self.reader.index[module.parts[part]] for part in _FACTORS)
                key = left.shape, left.dtype, left.stride, right.shape, right.dtype, right.stride
                groups[key].append(module)
        found: dict[int, Delta] = {}
        for group in groups.values():
            if not _is_product(*(self.reader.index[group[0].parts[part]] for part in _FACTORS)):
                continue
            try:
                found |= self._batch(group)
            except (FormatError, Unsupported):
                continue  # each is read on its own then, which says which one is damaged
        return found

    def _batch(self, modules: Sequence[AdaptedModule]) -> dict[int, Delta]:
        index = self.reader.index
        rank = index[modules[0].parts["lora_A"]].shape[0]
        scales = [lora_scale(self.reader.config, module, rank) for module in modules]
        batch = FactorBatch(self._factors(modules, "lora_B"), self._factors(modules, "lora_A"), scales)
        batch.grams  # noqa: B018 - reads every factor, and raises where one cannot be read
        found = {}
        for position, (module, scale) in enumerate(zip(modules, scales, strict=True)):
            change = LowRank(batch, position)
            found[id(module)] = self._described(
                module,
                kind=DeltaKind.LOW_RANK,
                shape=change.shape,
                scale=scale,
                rank=rank,
                change=change,
                before=self._before(module, change),
            )
        return found

    def _factors(self, modules: Sequence[AdaptedModule], part: str) -> Factors:
        names = [module.parts[part] for module in modules]
        index = self.reader.index
        stored = StoredFactors(index, names, wide=part == "lora_A", scratch=self.scratch)
        return stored if index.is_local() else stored.held()

    def _single(self, module: AdaptedModule) -> Delta:
        try:
            if module.method in ("saved", "prompt"):
                return self._saved(module)
            if module.method == "tokens":
                return self._rows(module)
            if module.method == "vera-shared":
                return self._described(module, kind=DeltaKind.VECTOR, change=None)
            return self._delta(module, build(self.reader, module))
        except (FormatError, Unsupported) as error:
            return self._described(module, kind=DeltaKind.UNREADABLE, reason=error.what)

    def _saved(self, module: AdaptedModule) -> Delta:
        """A whole tensor that came with the adapter, against the base's."""
        (tensor,) = module.parts.values()
        base = self.reader.base
        found = base.find(module.module) if base and module.method == "saved" else None
        reason = "" if found else self.reason or "the base has no such tensor"
        comparison = compare(StoredTensor(self.reader.index, tensor), found, reason)
        return self._described(module, **comparison.fields(transposed=self._is_transposed(module)))

    def _rows(self, module: AdaptedModule) -> Delta:
        """Trained rows of an embedding; the rows' numbers are in the configuration."""
        numbers = self._row_numbers(module.module)
        after = self.reader.part(module, "trainable_tokens_delta")
        if len(numbers) != len(after):
            raise Unsupported(f"{len(after)} rows were saved, the configuration numbers {len(numbers)}")
        found = self.reader.base_tensor(module)
        before = None
        if found is not None and found.shape[1] == after.shape[1]:
            try:
                before = found.rows(numbers)
            except IndexError as error:
                raise Unsupported(f"the base has {error}") from error
        return self._described(
            module,
            kind=DeltaKind.ROWS,
            shape=tuple(after.shape),
            change=Dense(Held(after, before)),
            reason="" if before is not None else self.reason or "the base has no such rows",
            row_numbers=numbers,
        )

    def _row_numbers(self, module: str) -> tuple[int, ...]:
        for key, numbers in self.reader.config.trainable_token_indices.items():
            if module == key or module.endswith(f".{key}"):
                return numbers
        listed = self.reader.config.raw.get("token_indices")
        if isinstance(listed, list) and all(type(row) is int and row >= 0 for row in listed):
            return tuple(listed)
        return ()

    def _delta(self, module: AdaptedModule, built: Built) -> Delta:
        change = built.change
        return self._described(
            module,
            kind=built.kind,
            shape=change.shape,
            scale=built.scale,
            rank=built.rank,
            approximation=built.approximation,
            change=change,
            before=self._before(module, change),
        )

    def _before(self, module: AdaptedModule, change: Change) -> Source | None:
        """The base's own matrix of a module whose change is known without it."""
        found = self.reader.base_tensor(module) if isinstance(change, LowRank | Kronecker) else None
        return None if found is None else StoredPair(found)

    def _is_transposed(self, module: AdaptedModule) -> bool:
        return bool(self.reader.base and self.reader.base.transposed(module.module))

    def _described(
        self, module: AdaptedModule, *, kind: DeltaKind, shape: tuple[int, ...] | None = None, **fields: Any
    ) -> Delta:
        """A delta with what is known of every module of the adapter."""
        tensors = tuple(module.parts.values())
        entry = self.reader.index[tensors[0]]
        return Delta(
            name=module.name,
            kind=kind,
            shape=entry.shape if shape is None else shape,
            tensors=tensors,
            file=entry.file.path,
            n_layers=self.n_layers,
            declared=is_declared(self.reader.config, module),
            **fields,
        )


def _windows(
    modules: Sequence[AdaptedModule], index: TensorIndex, most: int
) -> Iterator[list[AdaptedModule]]:
    """Runs of modules whose tensors make up a window, at least one module each."""
    window: list[AdaptedModule] = []
    size = 0
    for module in modules:
        weight = sum(index[tensor].nbytes for tensor in module.parts.values())
        if window and size + weight > most:
            yield window
            window, size = [], 0
        window.append(module)
        size += weight
    if window:
        yield window


def _is_product(left: TensorEntry, right: TensorEntry) -> bool:
    """Whether B (out, r, 1…) and A (r, in, …) are two real factors of one matrix."""
    return (
        {left.dtype, right.dtype} <= _FACTOR_DTYPES
        and len(left.shape) >= 2
        and len(right.shape) >= 2
        and left.shape[1] == right.shape[0]
        and set(left.shape[2:]) <= {1}
        and 0 not in left.shape + right.shape
        and left.stride is right.stride is None
    )
