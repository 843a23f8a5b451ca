"""What every module of a model receives from a single token, in arithmetic of its own.

A token that is the whole text attends to itself alone: attention brings its own value, so queries, keys and
positions by rotation have no say, and a pass is a few products with the stored matrices. Among other tokens
attention brings a mixture of theirs; what it brings on average, the mean value over the vocabulary, stands in
for that. No code of the model and no library's model classes take part. Tokens go in chunks, matrices in
blocks of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ftsec_audit.errors import Unsupported
from ftsec_audit.weights.moments import BLOCK_ELEMENTS
from ftsec_audit.weights.named_weights import NamedWeights, model_type
from ftsec_audit.weights.naming import layer_of, role_of
from ftsec_audit.weights.stored import StoredTensor
from ftsec_audit.weights.token_space import TokenSpace

_LLAMAS = frozenset({"llama", "mistral", "qwen2", "qwen3", "mixtral"})
_CHUNK = 1024
"""Tokens that go through the layers together."""
_MOST_WORK = 4e12
"""Multiplications beyond which a pass of the whole vocabulary is refused: some 100 s on two cores."""
_ACTIVATIONS = {
    "silu": torch.nn.functional.silu,
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "gelu_new": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
}


@dataclass(frozen=True)
class TokenPass:
    """Single-token texts through the layers of one model.

    Raises Unsupported for architectures other than Llama's, GPT-2's and those that copy them, for layers
    with parts it does not know, and where the work would be too much.
    """

    space: TokenSpace
    own: float = 1.0
    """Share of a token's own value in what attention brings it: 1 where it is the whole text, exactly what
    the model computes; 0 where it stands among many others."""

    at: int | None = 0
    """The position it stands at, where positions are learned and added: the first, where it is the whole
    text; None for the mean of all, as it may stand anywhere."""

    def along(self, module: str, directions: Tensor) -> Tensor:
        """Products (|V|, k) of what `module` receives from each token with the columns of (in, k)."""
        products = torch.empty(self.space.embedding.shape[0], directions.shape[1])
        for start, received in self.received(module):
            if received.shape[1] != len(directions):
                raise Unsupported(f"{module} receives {received.shape[1]} numbers, not {len(directions)}")
            products[start : start + len(received)] = received @ directions.float()
        return products

    def cosines(self, module: str, directions: Tensor) -> Tensor:
        """Cosines (|V|, k) of what `module` receives, less the mean over tokens, with unit columns."""
        cosines = torch.empty(self.space.embedding.shape[0], directions.shape[1])
        mean = self._sampled(module).mean(dim=0)
        for start, received in self.received(module):
            if received.shape[1] != len(directions):
                raise Unsupported(f"{module} receives {received.shape[1]} numbers, not {len(directions)}")
            centred = received - mean
            products = centred @ directions.float()
            norms = centred.norm(dim=1, keepdim=True).clamp(min=1e-12)
            cosines[start : start + len(received)] = products / norms
        return cosines

    def received(self, module: str) -> Iterator[tuple[int, Tensor]]:
        """(first id, inputs (k, in) of `module`) chunk by chunk."""
        prefix, layer, path = _split(module)
        self._check_work(layer)
        if self.own < 1:
            self._sampled(module)  # before any chunk: the mean values come from the sample
        for start, rows in self.space.rows():
            for offset in range(0, len(rows), _CHUNK):
                state = self._below(prefix, layer, rows[offset : offset + _CHUNK])
                yield start + offset, self._inside(f"{prefix}.{layer}", path, state)

    def _sampled(self, module: str) -> Tensor:
        """Inputs (k, in) of `module` from evenly spaced tokens."""
        prefix, layer, path = _split(module)
        self._check_work(layer)
        count = self.space.embedding.shape[0]
        rows = self.space.embedding.rows(range(0, count, math.ceil(count / _CHUNK)))
        return self._inside(f"{prefix}.{layer}", path, self._below(prefix, layer, rows))

    def _below(self, prefix: str, layer: int, rows: Tensor) -> Tensor:
        """What a block receives from tokens with these embeddings."""
        state = self._entered(rows)
        for below in range(layer):
            state = self._block(f"{prefix}.{below}", state)
        return state

    @cached_property
    def _means(self) -> dict[str, Tensor]:
        """Block → mean value over the first tokens that go through."""
        return {}

    @cached_property
    def _is_llama(self) -> bool:
        kind = model_type(self._weights.config)
        if kind not in _LLAMAS | {"gpt2"}:
            raise Unsupported(f"how a token passes through a model of type {kind or 'unknown'} is not known")
        return kind != "gpt2"

    @property
    def _weights(self) -> NamedWeights:
        return self.space.weights

    def _check_work(self, layer: int) -> None:
        layers = ((layer_of(name), entry) for name, entry in self._weights.index.items())
        values = sum(math.prod(entry.shape) for n, entry in layers if n is not None and n <= layer)
        if values * self.space.embedding.shape[0] > _MOST_WORK:
            raise Unsupported("passing the vocabulary through the layers below takes too long")

    def _entered(self, rows: Tensor) -> Tensor:
        if self._is_llama:
            return rows
        positions = self._stored("wpe")
        if positions.shape[1] != rows.shape[1] or not positions.shape[0]:
            raise Unsupported("positions and tokens have embeddings of different widths")
        return rows + (self._mean_position if self.at is None else positions.rows([self.at]))

    @cached_property
    def _mean_position(self) -> Tensor:
        stored = self._stored("wpe")
        sums = torch.zeros(1, stored.shape[1])
        for block in stored.blocks(BLOCK_ELEMENTS):
            sums += block.float().sum(dim=0)
        return sums / stored.shape[0]

    def _block(self, block: str, state: Tensor) -> Tensor:
        attended = state + self._attention(block, state)
        return attended + self._mlp(block, attended)

    def _inside(self, block: str, path: str, state: Tensor) -> Tensor:
        """What the module at `path` of a block receives where the block receives `state`."""
        role, attention, mlp = role_of(path), *self._norms(block)
        if path.startswith(("self_attn.", "attn.")):
            read = self._norm(attention, state)
            return self._values(block, read) if role in ("o_proj", "c_proj") else read
        read = self._norm(mlp, state + self._attention(block, state))
        if role in ("down_proj", "w2") or path == "mlp.c_proj":
            return self._hidden(f"{block}.{path.rpartition('.')[0]}", read)
        return read

    def _norms(self, block: str) -> tuple[str, str]:
        names = ("input_layernorm", "post_attention_layernorm") if self._is_llama else ("ln_1", "ln_2")
        return f"{block}.{names[0]}", f"{block}.{names[1]}"

    def _attention(self, block: str, state: Tensor) -> Tensor:
        values = self._values(block, self._norm(self._norms(block)[0], state))
        if self.own < 1:
            mean = self._means.setdefault(block, values.mean(dim=0, keepdim=True))
            values = self.own * values + (1 - self.own) * mean
        return self._linear(f"{block}.self_attn.o_proj" if self._is_llama else f"{block}.attn.c_proj", values)

    def _values(self, block: str, read: Tensor) -> Tensor:
        """The heads' values of the token itself, (k, heads · width of a head)."""
        if not self._is_llama:
            return self._linear(f"{block}.attn.c_attn", read)[:, -read.shape[1] :]
        values = self._linear(f"{block}.self_attn.v_proj", read)
        heads, groups = self._number("num_attention_heads"), self._number("num_key_value_heads", default=0)
        groups = groups or heads
        width = self._stored(f"{block}.self_attn.o_proj").shape[1]
        if heads % groups or values.shape[1] % groups or values.shape[1] * (heads // groups) != width:
            raise Unsupported(f"{heads} heads do not share {groups} values of {values.shape[1]} numbers")
        grouped = values.reshape(len(values), groups, -1)
        return grouped.repeat_interleave(heads // groups, dim=1).reshape(len(values), -1)

    def _mlp(self, block: str, state: Tensor) -> Tensor:
        read = self._norm(self._norms(block)[1], state)
        if not self._is_llama:
            return self._linear(f"{block}.mlp.c_proj", self._hidden(f"{block}.mlp", read))
        router = self._router(block)
        if router is None:
            return self._linear(f"{block}.mlp.down_proj", self._hidden(f"{block}.mlp", read))
        return self._experts(router, read)

    def _hidden(self, mlp: str, read: Tensor) -> Tensor:
        if not self._is_llama:
            return self._activated(self._linear(f"{mlp}.c_fc", read), "activation_function", "gelu_new")
        gate, up = ("w1", "w3") if self._weights.find(f"{mlp}.w1") else ("gate_proj", "up_proj")
        opened = self._activated(self._linear(f"{mlp}.{gate}", read), "hidden_act", "silu")
        return opened * self._linear(f"{mlp}.{up}", read)

    def _router(self, block: str) -> str | None:
        names = (f"{block}.block_sparse_moe.gate", f"{block}.mlp.gate")
        return next((name for name in names if self._weights.find(name)), None)

    def _experts(self, router: str, read: Tensor) -> Tensor:
        """Mixtral's mixture: the best experts of each token, weighted by their softmax among themselves."""
        logits = self._linear(router, read)
        best = logits.topk(min(self._number("num_experts_per_tok"), logits.shape[1]), dim=1)
        shares = torch.zeros_like(logits).scatter(1, best.indices, best.values.softmax(dim=1))
        mixed = torch.zeros_like(read)
        for number in range(logits.shape[1]):
            expert = f"{router.removesuffix('.gate')}.experts.{number}"
            mixed += shares[:, number : number + 1] * self._linear(f"{expert}.w2", self._hidden(expert, read))
        return mixed

    def _norm(self, name: str, state: Tensor) -> Tensor:
        if self._is_llama:
            epsilon = self._real("rms_norm_eps", 1e-6)
            scaled = state * (state.square().mean(dim=1, keepdim=True) + epsilon).rsqrt()
            return scaled * self._vector(name, state.shape[1])
        epsilon = self._real("layer_norm_epsilon", 1e-5)
        normed = torch.nn.functional.layer_norm(state, state.shape[1:], eps=epsilon)
        return normed * self._vector(name, state.shape[1]) + self._vector(f"{name}.bias", state.shape[1])

    def _linear(self, module: str, x: Tensor) -> Tensor:
        """x Wᵀ + b, (k, out)."""
        weight, transposed = self._stored(module), bool(self._weights.transposed(module))
        rows, columns = weight.shape
        if x.shape[1] != (rows if transposed else columns):
            raise Unsupported(f"{module} has the shape {[rows, columns]} and receives {x.shape[1]} numbers")
        product, start = torch.zeros(len(x), columns if transposed else rows), 0
        for block in weight.blocks(BLOCK_ELEMENTS):
            here = slice(start, start + len(block))
            if transposed:
                product += x[:, here] @ block.float()
            else:
                product[:, here] = x @ block.float().mT
            start += len(block)
        has_bias = self._weights.find(f"{module}.bias") is not None
        return product + self._vector(f"{module}.bias", product.shape[1]) if has_bias else product

    def _stored(self, module: str) -> StoredTensor:
        stored = self._weights.find(module)
        if stored is None or not stored.dtype.is_floating_point:
            raise Unsupported(f"the model has no readable {module}")
        return stored

    def _vector(self, name: str, length: int) -> Tensor:
        stored = self._stored(name)
        if stored.shape != (1, length):
            raise Unsupported(f"{name} has the shape {list(stored.shape)} and not the length {length}")
        return stored.index.read(stored.name).float().flatten()

    def _activated(self, x: Tensor, key: str, default: str) -> Tensor:
        name = self._weights.config.get(key) or default
        if not isinstance(name, str) or name not in _ACTIVATIONS:
            raise Unsupported(f"the activation {str(name)[:40]!r} is not known")
        activated: Tensor = _ACTIVATIONS[name](x)
        return activated

    def _number(self, key: str, default: int | None = None) -> int:
        value = self._weights.config.get(key)
        if type(value) is int and 0 < value < 1 << 16:
            return value
        if default is None:
            raise Unsupported(f"the configuration states no {key}")
        return default

    def _real(self, key: str, default: float) -> float:
        value = self._weights.config.get(key)
        return float(value) if isinstance(value, (int, float)) and 0 <= value < 1 else default


def _split(module: str) -> tuple[str, int, str]:
    """`model.layers.3.mlp.down_proj` → (`model.layers`, 3, `mlp.down_proj`)."""
    parts = module.split(".")
    place = next((i for i, part in enumerate(parts) if part.isdecimal()), 0)
    if not 0 < place < len(parts) - 1 or len(parts[place]) > 5:
        raise Unsupported(f"{module} is in no numbered layer")
    return ".".join(parts[:place]), int(parts[place]), ".".join(parts[place + 1 :])
