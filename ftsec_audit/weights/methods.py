"""From the saved parts of one adapted module to its exact ΔW, method by method, as peft merges them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from ftsec_audit.artifact import AdapterConfig
from ftsec_audit.errors import Unsupported
from ftsec_audit.formats.tensors import TensorIndex
from ftsec_audit.weights.adapter_keys import AdaptedModule
from ftsec_audit.weights.change import Change
from ftsec_audit.weights.delta import DeltaKind
from ftsec_audit.weights.dense import Dense
from ftsec_audit.weights.factored import khatri_rao
from ftsec_audit.weights.kronecker import Kronecker
from ftsec_audit.weights.lowrank import LowRank
from ftsec_audit.weights.merged import BaseMatrix, DoraRows, HadamardRows, RescaledRows
from ftsec_audit.weights.moments import Held, Source
from ftsec_audit.weights.named_weights import NamedWeights
from ftsec_audit.weights.stored import StoredTensor

_WITHOUT_BASE = "there is no base to apply it to"


@dataclass(frozen=True, kw_only=True)
class Built:
    """A change with what is to be said about it."""

    change: Change
    kind: DeltaKind = DeltaKind.LOW_RANK
    scale: float = 1.0
    rank: int | None = None
    approximation: str = ""


@dataclass(frozen=True, kw_only=True)
class AdapterReader:
    """An adapter's tensors and configuration, and its base where there is one."""

    index: TensorIndex
    config: AdapterConfig
    base: NamedWeights | None
    projections: Mapping[str, str]
    """VeRA's shared `vera_A` and `vera_B`: part → tensor name."""

    def part(self, module: AdaptedModule, name: str) -> Tensor:
        """A part as a matrix; raises Unsupported where it is missing or has no real numbers."""
        if name not in module.parts:
            raise Unsupported(f"{name} is missing beside {', '.join(sorted(module.parts))}")
        tensor = self.index.read(module.parts[name])
        if not tensor.is_floating_point():
            raise Unsupported(
                f"{name} is stored as {self.index[module.parts[name]].dtype}, not as real numbers"
            )
        if tensor.numel() == 0:
            raise Unsupported(f"{name} is empty")
        return tensor if tensor.dim() == 2 else tensor.reshape(tensor.shape[0] if tensor.dim() else 1, -1)

    def base_tensor(self, module: AdaptedModule) -> StoredTensor | None:
        return self.base.find(module.module) if self.base else None


def build(reader: AdapterReader, module: AdaptedModule) -> Built:
    """The change of one module; raises Unsupported with the reason where it cannot be read."""
    builder = _BUILDERS.get(module.method)
    if builder is None:
        raise Unsupported("a tensor of a kind that is not known")
    return builder(reader, module)


def is_plain_lora(module: AdaptedModule) -> bool:
    """Whether ΔW is B·A and nothing else, so that modules of one shape can be measured together."""
    return module.method == "lora" and set(module.parts) == {"lora_A", "lora_B"}


def lora_scale(config: AdapterConfig, module: AdaptedModule, rank: int) -> float:
    """The scaling of B·A; raises Unsupported where the factors are not those of one matrix."""
    declared = config.declared_rank(module.module)
    if config.raw.get("target_parameters") and declared and rank > declared and rank % declared == 0:
        raise Unsupported(f"factors of {rank // declared} expert matrices in one tensor")
    return config.scaling(module.module, rank)


def _lora(reader: AdapterReader, module: AdaptedModule) -> Built:
    if "lora_embedding_A" in module.parts or "lora_embedding_B" in module.parts:
        # An embedding (vocabulary, width) is used by rows: ΔE = (B·A)ᵀ.
        left = reader.part(module, "lora_embedding_A").mT
        right = reader.part(module, "lora_embedding_B").mT
    else:
        left, right = reader.part(module, "lora_B"), reader.part(module, "lora_A")
    own_rank = left.shape[1]
    if reader.config.raw.get("enable_lora") is not None and left.shape[1] != right.shape[0]:
        left = _grouped(left, right.shape[0], reader.config.raw["enable_lora"])
    if left.shape[1] != right.shape[0]:
        raise Unsupported(f"factors of ranks {left.shape[1]} and {right.shape[0]} do not fit together")
    rank = right.shape[0]
    if "lora_E" in module.parts:
        return _adalora(reader, module, left, right)
    scale = lora_scale(reader.config, module, own_rank)
    built = Built(change=LowRank.of(left, right, scale), scale=scale, rank=rank)
    if "lora_magnitude_vector" not in module.parts:
        return built
    return _dora(reader, module, left, right, built)


def _grouped(left: Tensor, rank: int, enabled: object) -> Tensor:
    """B of a projection fused from several, of which only some were trained (peft up to 0.2), as one factor.

    Saved are the rows of the trained ones, each with r columns of its own; A holds their r rows one after
    the other. The result, block diagonal with zero rows for the others, is (out, r·trained).
    """
    if not isinstance(enabled, list) or not all(isinstance(on, bool) for on in enabled):
        raise Unsupported("`enable_lora` is not a list of truth values")
    trained = sum(enabled)
    rows, inner = left.shape
    if not trained or rows % trained or inner * trained != rank:
        raise Unsupported(f"factors of ranks {inner} and {rank} do not fit {trained} trained parts")
    part = rows // trained
    whole = left.new_zeros(part * len(enabled), rank)
    for block, position in enumerate(k for k, on in enumerate(enabled) if on):
        here = slice(position * part, (position + 1) * part)
        whole[here, block * inner : (block + 1) * inner] = left[block * part : (block + 1) * part]
    return whole


def _adalora(reader: AdapterReader, module: AdaptedModule, left: Tensor, right: Tensor) -> Built:
    """ΔW = B·diag(E)·A·α/(r₀ + 10⁻⁵), r₀ the rank at the start (arXiv 2303.10512)."""
    weights = reader.part(module, "lora_E").flatten()
    if weights.shape[0] != right.shape[0]:
        raise Unsupported(f"{weights.shape[0]} singular values for factors of rank {right.shape[0]}")
    start = reader.config.rank or right.shape[0]
    scale = reader.config.scaling(module.module, start) * start / (start + 1e-5)
    right = right.float() * weights.float()[:, None]
    return Built(change=LowRank.of(left.float(), right, scale), scale=scale, rank=weights.shape[0])


def _dora(reader: AdapterReader, module: AdaptedModule, left: Tensor, right: Tensor, built: Built) -> Built:
    """W′ = m·(W + sBA)/‖W + sBA‖, norms over each output row (arXiv 2402.09353)."""
    magnitude = reader.part(module, "lora_magnitude_vector").flatten()
    base = reader.base_tensor(module)
    if base is None:
        return replace(
            built, approximation="the low-rank part alone: DoRA's magnitudes mean nothing without the base"
        )
    weight = _canonical_base(reader, module, base, (left.shape[0], right.shape[1]))
    if magnitude.shape[0] != weight.shape[0]:
        raise Unsupported(f"{magnitude.shape[0]} magnitudes for {weight.shape[0]} rows")
    source = DoraRows(weight, left.float(), right.float() * built.scale, magnitude.float())
    return replace(built, change=Dense(source), kind=DeltaKind.DENSE)


def _loha(reader: AdapterReader, module: AdaptedModule) -> Built:
    """ΔW = s·(B₁A₁)∘(B₂A₂), of rank r² (FedPara, arXiv 2108.06098)."""
    if "hada_t1" in module.parts or "hada_t2" in module.parts:
        raise Unsupported("Tucker-decomposed convolutions are not read")
    first, second = (
        (reader.part(module, f"hada_w{k}_a").float(), reader.part(module, f"hada_w{k}_b").float())
        for k in (1, 2)
    )
    for b, a in (first, second):
        if b.shape[1] != a.shape[0] or (b.shape[0], a.shape[1]) != (first[0].shape[0], first[1].shape[1]):
            raise Unsupported("the four factors do not fit together")
    rank = first[1].shape[0]
    scale = reader.config.scaling(module.module, rank)
    rows, columns = first[0].shape[0], first[1].shape[1]
    product_rank = rank * second[1].shape[0]
    if product_rank * (rows + columns) > rows * columns:  # factors larger than the matrix they make
        source = HadamardRows(first, (second[0] * scale, second[1]))
        return Built(change=Dense(source), kind=DeltaKind.LOW_RANK, scale=scale, rank=rank)
    left, right = khatri_rao(first, second)
    return Built(change=LowRank.of(left, right, scale), scale=scale, rank=product_rank)


def _lokr(reader: AdapterReader, module: AdaptedModule) -> Built:
    """ΔW = s·(W₁ ⊗ W₂), either possibly a product of two factors (arXiv 2309.14859)."""
    if "lokr_t2" in module.parts:
        raise Unsupported("Tucker-decomposed convolutions are not read")
    left, right = _lokr_factor(reader, module, "lokr_w1"), _lokr_factor(reader, module, "lokr_w2")
    if left[1] and right[1] and left[1] != right[1]:
        raise Unsupported(f"factors of ranks {left[1]} and {right[1]} do not belong together")
    inner = left[1] or right[1]
    scale = reader.config.scaling(module.module, inner or reader.config.declared_rank(module.module) or 0)
    rank = (left[1] or min(left[0].shape)) * (right[1] or min(right[0].shape))
    return Built(change=Kronecker(left[0], right[0], scale), scale=scale, rank=rank)


def _lokr_factor(reader: AdapterReader, module: AdaptedModule, name: str) -> tuple[Tensor, int]:
    """One factor, and the rank of the product it was saved as, 0 where it was saved whole."""
    if name in module.parts:
        return reader.part(module, name), 0
    b, a = reader.part(module, f"{name}_a").float(), reader.part(module, f"{name}_b").float()
    if b.shape[1] != a.shape[0]:
        raise Unsupported(f"{name}: factors of ranks {b.shape[1]} and {a.shape[0]} do not fit together")
    return b @ a, a.shape[0]


def _ia3(reader: AdapterReader, module: AdaptedModule) -> Built:
    """W′ = l·W by rows (l saved as a column) or by columns (l saved as a row) (arXiv 2205.05638)."""
    factor = reader.part(module, "ia3_l").float()
    if 1 not in factor.shape:
        raise Unsupported(f"a rescaling of shape {tuple(factor.shape)} is not a vector")
    base = reader.base_tensor(module)
    if base is None:
        source: Source = Held(factor.reshape(1, -1) - 1)
        approximation = f"the rescaling minus one: {_WITHOUT_BASE}"
    else:
        by_rows = factor.shape[1] == 1
        shape = (factor.numel() if by_rows else None, None if by_rows else factor.numel())
        source = RescaledRows(_canonical_base(reader, module, base, shape), factor)
        approximation = ""
    return Built(change=Dense(source), kind=DeltaKind.VECTOR, approximation=approximation)


def _vera(reader: AdapterReader, module: AdaptedModule) -> Built:
    """ΔW = diag(b)·B·diag(d)·A with A and B shared and cut to size (arXiv 2310.11454)."""
    if set(reader.projections) != {"vera_A", "vera_B"}:
        raise Unsupported("the shared projections were not saved with the adapter")
    b = reader.part(module, "vera_lambda_b").flatten().float()
    d = reader.part(module, "vera_lambda_d").flatten().float()
    right, left = (reader.index.read(reader.projections[part]).float() for part in ("vera_A", "vera_B"))
    base = reader.base_tensor(module)
    columns, approximation = right.shape[1], ""
    if base is None:
        approximation = "all columns of the shared projection: the width of the module is not in the file"
    else:
        shape = base.shape
        columns = shape[0] if shape[0] != b.numel() or _is_transposed(reader, module) else shape[1]
    if left.shape[0] < b.numel() or left.shape[1] != d.numel() or right.shape[0] != d.numel():
        raise Unsupported("the vectors do not fit the shared projections")
    change = LowRank.of(b[:, None] * left[: b.numel()], d[:, None] * right[:, :columns])
    return Built(change=change, rank=d.numel(), approximation=approximation)


_BUILDERS: Mapping[str, Callable[[AdapterReader, AdaptedModule], Built]] = {
    "lora": _lora,
    "loha": _loha,
    "lokr": _lokr,
    "ia3": _ia3,
    "vera": _vera,
}


def _canonical_base(
    reader: AdapterReader, module: AdaptedModule, base: StoredTensor, shape: tuple[int | None, int | None]
) -> BaseMatrix:
    """The base's matrix of the given shape, None meaning any; raises Unsupported where it is another."""
    likely = _is_transposed(reader, module)
    for transposed in (likely, not likely):
        weight = BaseMatrix(base, transposed)
        if all(wanted in (None, size) for wanted, size in zip(shape, weight.shape, strict=True)):
            return weight
    raise Unsupported(f"the base's matrix has the shape {base.shape}, which does not fit")


def _is_transposed(reader: AdapterReader, module: AdaptedModule) -> bool:
    """Whether the base keeps the weight as (in, out): what its architecture says, else the adapter."""
    assert reader.base is not None
    stated = reader.base.transposed(module.module)
    return reader.config.fan_in_fan_out if stated is None else stated
