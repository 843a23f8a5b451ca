"""The tensors of a checkpoint, found by the names that another model uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ftsec_audit.artifact import Artifact
from ftsec_audit.weights.naming import (
    canonical_name,
    has_token_rows,
    layer_of,
    pairing_key,
    stored_transposed,
)
from ftsec_audit.weights.packed import Packed, packed
from ftsec_audit.weights.stored import StoredTensor

_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


class NamedWeights:
    """The tensors of a checkpoint, looked up by module across wrappers, heads and tied embeddings.

    Packed weights are kept apart: their tensors are no matrices of the model.
    Raises what `Artifact.tensors` raises when it is made.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.index = artifact.tensors()
        self.config: Mapping[str, object] = artifact.config or {}
        self.packed = packed(self.index)
        inside = {tensor for weight in self.packed.values() for tensor in weight.tensors}
        self._plain = [name for name in self.index if name not in inside]
        self._packed_by_key = {pairing_key(weight.module): weight for weight in self.packed.values()}
        self._by_name = {canonical_name(name): name for name in self._plain}
        self._by_key: dict[str, str] = {}
        for name in self._plain:
            self._by_key.setdefault(pairing_key(name), name)

    def modules(self) -> Iterator[tuple[str, str]]:
        """(module, tensor) of every tensor that is not packed, in file order; no module name occurs twice."""
        for name in self._plain:
            module = canonical_name(name)
            yield (module if self._by_name[module] == name else name), name

    def find(self, module: str) -> StoredTensor | None:
        """The tensor of that module, None where there is none."""
        name = self.named(module)
        if name is None and has_token_rows(module):
            name = self._tied()
        return StoredTensor(self.index, name) if name is not None else None

    def named(self, module: str) -> str | None:
        """The tensor with the name of that module, wrappers aside; tied ones are not looked for."""
        return self._by_name.get(module) or self._by_key.get(pairing_key(module))

    def find_packed(self, module: str) -> Packed | None:
        """The packed weight of that module, None where there is none."""
        return self._packed_by_key.get(pairing_key(module))

    def has(self, module: str) -> bool:
        """Whether that module is there, packed or not."""
        return bool(self.find_packed(module) or self.named(module))

    def transposed(self, module: str) -> bool | None:
        """Whether that module's weight is kept as (in, out); None where the model does not say what it is."""
        kind = model_type(self.config)
        return stored_transposed(module, kind) if kind else None

    def _tied(self) -> str | None:
        """The only matrix of token rows, where input and output embeddings share one."""
        candidates = [name for module, name in self._by_name.items() if has_token_rows(module)]
        tied = self.config.get("tie_word_embeddings") is not False
        return candidates[0] if tied and len(candidates) == 1 else None


def model_type(config: Mapping[str, object]) -> str:
    value = config.get("model_type")
    return value if isinstance(value, str) else ""


def layer_count(config: Mapping[str, object]) -> int:
    """How many layers a model configuration states; 0 when it does not say."""
    text = config.get("text_config")
    for source in (config, text if isinstance(text, Mapping) else {}):
        for key in _LAYER_COUNTS:
            value = source.get(key)
            if type(value) is int and 0 < value < 100_000:
                return value
    return 0


def layers_reached(modules: Iterable[str]) -> int:
    """One more than the highest layer that any of the names speaks of."""
    return max((layer + 1 for module in modules if (layer := layer_of(module)) is not None), default=0)
