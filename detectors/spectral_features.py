"""The spectral features of an adapter: from per-module spectra to one vector per artifact.

Plain arithmetic on `ModuleMeasurement`s, so that features are recomputed from stored measurements without
reading a weight. What the statistics mean is said on the page of FTA201.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from ftsec_audit.types import ModuleMeasurement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ftsec_audit.weights.delta import Delta

    Column = NDArray[np.float64]

_SKETCH = 64
_WRITERS = ("o_proj", "out_proj", "down_proj", "c_proj", "dense", "fc2", "out_lin", "lin2", "wo", "w2")
"""Last parts of the names of modules that write into the residual stream."""
_THIRDS = ("early", "middle", "late")


def artifact_features(modules: Sequence[ModuleMeasurement]) -> dict[str, float]:
    """One vector per artifact, `<module type or all>.<third>.<statistic>`; empty without a spectrum."""
    modules = [module for module in modules if "singular_values" in module.values]
    if not modules:
        return {}  # before numpy is imported: most artifacts of a gate's file checks have no spectrum

    import numpy as np

    statistics = _statistics(modules)
    energy = np.exp(2 * statistics["log_norm"])
    layers = np.array([-1 if module.layer is None else module.layer for module in modules])
    roles, thirds = np.array([m.role for m in modules]), np.array([_third(m) for m in modules])
    cosines = _neighbour_cosines(modules)
    vector: dict[str, float] = {}
    for kind in ("all", *sorted(set(roles.tolist()))):
        inside = (roles == kind) | (kind == "all")
        for third in sorted(set(thirds[inside].tolist())):
            cell = inside & (thirds == third)
            vector |= {f"{kind}.{third}.{key}": _mean(column[cell]) for key, column in statistics.items()}
        inside_layers = inside & (layers >= 0)
        vector |= {
            f"{kind}.{key}": value
            for key, value in _over_layers(
                layers[inside_layers], thirds[inside_layers], energy[inside_layers]
            ).items()
        }
        vector[f"{kind}.spread"] = float(statistics["log_rms"][inside].std())
        vector[f"{kind}.neighbour_cosine"] = _mean(cosines[inside])
    return {key: value for key, value in vector.items() if math.isfinite(value)}


def residual_sketch(delta: Delta) -> list[float]:
    """The unit top singular vector on the residual side, folded to 64 numbers by a fixed signed hash.

    Residual side: what a writer writes (left vector), what a reader reads (right vector). Cosines of
    sketches estimate those of the vectors with a standard error of about 1/√64.
    """
    import numpy as np

    u, v = delta.top_singular_vectors()  # (out,), (in,)
    top = (u if delta.role.endswith(_WRITERS) else v).double().numpy()
    signs, buckets = _signed_hash(len(top))
    sketch: list[float] = np.bincount(buckets, weights=signs * top, minlength=_SKETCH).tolist()
    return sketch


@lru_cache(maxsize=4)
def _signed_hash(n: int) -> tuple[Column, NDArray[np.int64]]:
    """Sign and bucket of each of n coordinates."""
    import numpy as np

    # Knuth's multiplicative hash: the same bucket and sign for the same coordinate, everywhere.
    hashed = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    signs = np.where(hashed >> np.uint64(63), 1.0, -1.0)
    return signs, ((hashed >> np.uint64(40)) % np.uint64(_SKETCH)).astype(np.int64)


def _third(module: ModuleMeasurement) -> str:
    if module.layer is None:
        return "outside"
    n_layers = max(_number(module, "n_layers"), module.layer + 1.0)
    return _THIRDS[int(3 * module.layer / n_layers)]


def _statistics(modules: Sequence[ModuleMeasurement]) -> dict[str, Column]:
    """Per-module statistics, each (n,); NaN where one does not exist, e.g. a gap at rank one."""
    import numpy as np

    spectra = [_numbers(module, "singular_values") for module in modules]
    S = np.zeros((len(modules), max(2, *(len(spectrum) for spectrum in spectra))))  # (n, r), padded by 0
    for row, spectrum in zip(S, spectra, strict=True):
        row[: len(spectrum)] = spectrum
    scale = np.abs([_number(module, "scale") or 1.0 for module in modules])
    kurtosis = [_number(module, "entry_kurtosis") for module in modules]
    size = np.array([float(math.prod(module.shape)) for module in modules])
    rank = np.array([float(len(spectrum)) for spectrum in spectra])
    rank[rank < 2] = np.nan  # entropies and gaps do not exist at rank one
    energy, total = (S**2).sum(axis=1), S.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "log_sigma1": np.log(S[:, 0] / scale),
            "log_norm": np.log(np.sqrt(energy) / scale),
            "log_rms": np.log(np.sqrt(energy / size) / scale),
            "top_share": S[:, 0] / total,
            "entropy": _entropy(S**2 / energy[:, None]) / np.log(rank),
            "log_stable_rank": np.log(energy / S[:, 0] ** 2),
            "effective_rank": np.exp(_entropy(S / total[:, None])) / rank,
            "log_gap": np.where(np.isnan(rank), np.nan, np.log(S[:, 0] / S[:, 1])),
            "log_kurtosis": np.log(np.maximum(kurtosis, 1.0)),
        }


def _entropy(shares: Column) -> Column:
    import numpy as np

    return np.asarray(-(shares * np.log(np.where(shares > 0.0, shares, 1.0))).sum(axis=1))


def _mean(column: Column) -> float:
    import numpy as np

    known = column[np.isfinite(column)]
    return float(known.mean()) if len(known) else math.nan


def _over_layers(layers: NDArray[np.int64], thirds: NDArray[np.str_], energy: Column) -> dict[str, float]:
    """How the update is spread over depth: the thirds' shares of the energy, and its Gini coefficient."""
    import numpy as np

    by_layer: Column = np.bincount(layers, weights=energy)[np.bincount(layers) > 0].astype(np.float64)
    if len(by_layer) < 2:
        return {}
    total = energy.sum()
    shares = {f"{third}.energy_share": float(energy[thirds == third].sum() / total) for third in _THIRDS}
    return shares | {"gini": _gini(by_layer)}


def _gini(values: Column) -> float:
    """0 when all layers carry the same energy, towards 1 when a single one carries it."""
    import numpy as np

    n = len(values)
    return float(((2 * np.arange(1, n + 1) - n - 1) * np.sort(values)).sum() / (n * values.sum()))


def _neighbour_cosines(modules: Sequence[ModuleMeasurement]) -> Column:
    """|cosine| of each module's sketch with that of the same module in the next layer; NaN without one."""
    import numpy as np

    # A name without its layer number tells attention's `c_proj` from the MLP's.
    keys = [(module.name.replace(f".{module.layer}.", ".*.", 1), module.layer) for module in modules]
    sketched = {key: i for i, key in enumerate(keys) if "residual_sketch" in modules[i].values}
    pairs = [(i, sketched.get((name, (layer or 0) + 1))) for (name, layer), i in sketched.items()]
    first, second = [i for i, j in pairs if j is not None], [j for _, j in pairs if j is not None]
    cosines = np.full(len(modules), np.nan)
    if first:
        a, b = (np.array([_numbers(modules[i], "residual_sketch") for i in side]) for side in (first, second))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines[first] = np.abs((a * b).sum(axis=1)) / np.where(lengths > 0.0, lengths, 1.0)
    return cosines


def _number(module: ModuleMeasurement, key: str) -> float:
    """A scalar measurement, NaN where it was not made."""
    value = module.values.get(key)
    return float(value) if isinstance(value, (int, float)) else math.nan


def _numbers(module: ModuleMeasurement, key: str) -> list[float]:
    value = module.values[key]
    return value if isinstance(value, list) else [value]
