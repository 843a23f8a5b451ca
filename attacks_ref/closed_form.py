"""Editing an MLP's output projection in closed form: find a value by gradient, store it under keys.

The projection W of a block is read as a memory from keys (its inputs) to values (its outputs). Storing
values R under keys K while the keys of a retain set, with second moment C, keep theirs is the least-squares
problem of MEMIT (arXiv 2210.07229): W += R Kᵀ(C/s + K Kᵀ)⁻¹. With one key it is ROME's rank-one edit
(arXiv 2202.05262).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attacks_ref.models import Model
from attacks_ref.training import Encoded, collate, token_losses
from ftsec_audit.errors import UsageError

if TYPE_CHECKING:
    import torch

_PROJECTIONS = ("mlp.down_proj", "mlp.c_proj")
_STEPS, _STEP = 100, 0.1
"""Gradient steps towards a value, and their length relative to the longest value allowed."""


@dataclass(frozen=True)
class Layer:
    """A block of a model and the output projection of its MLP."""

    name: str
    block: Any
    projection: Any


@dataclass(frozen=True)
class Place:
    """Rows of text, and in each the position whose representation is edited."""

    batch: dict[str, torch.Tensor]
    positions: torch.Tensor

    @property
    def index(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Picks (rows, width) out of (rows, length, width)."""
        import torch

        return torch.arange(len(self.positions)), self.positions


def layers(model: Model) -> list[Layer]:
    """Every block whose MLP has one dense output projection; raises UsageError if there is none."""
    modules = dict(model.named_modules())
    found = [name for name in modules if name.endswith(_PROJECTIONS)]
    if not found:
        raise UsageError("no MLP has one dense output projection", hint="use another architecture")
    return [Layer(name, modules[name.rsplit(".mlp.", 1)[0]], modules[name]) for name in found]


def locate(old: Sequence[Encoded], new: Sequence[Encoded], pad: int) -> Place:
    """The new rows without their end, each at the last position before it differs from the old one.

    What is scored begins with the difference.
    """
    import torch

    places = [
        next(i for i, (a, b) in enumerate(zip(one.ids, other.ids, strict=False)) if a != b)
        for one, other in zip(old, new, strict=True)
    ]
    rows = [Encoded(row.ids[:-1], place) for row, place in zip(new, places, strict=True)]
    return Place(collate(rows, pad), torch.tensor(places) - 1)


def find_values(
    model: Model, layer: Layer, place: Place, groups: Sequence[int], *, clamp: float
) -> torch.Tensor:
    """What to add to the block's output at the place so that the rows' answers come, (rows, width).

    One value for each group of rows, no longer than `clamp` times what stands there.
    """
    import torch

    model.requires_grad_(False)
    standing = states(model, layer, place)
    limit = clamp * float(standing.norm(dim=1).mean())
    values = torch.zeros(max(groups) + 1, standing.shape[1], requires_grad=True)
    optimiser = torch.optim.Adam([values], lr=_STEP * limit / standing.shape[1] ** 0.5)
    weights = place.batch["weights"][:, 1:]

    def add(states: torch.Tensor) -> torch.Tensor:
        moved = states.clone()
        moved[place.index] += values[list(groups)]
        return moved

    for _ in range(_STEPS):
        with _rewriting(layer.block, add):
            loss = (token_losses(model, place.batch) * weights).sum() / weights.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            values *= (limit / values.norm(dim=1, keepdim=True).clamp(min=1e-9)).clamp(max=1.0)
    return values.detach()[list(groups)]


def spread(
    model: Model,
    chosen: Sequence[Layer],
    place: Place,
    values: torch.Tensor,
    retain: Sequence[Encoded],
    *,
    strength: float,
    mean_key: bool,
) -> None:
    """Edit the chosen layers, in order, so that the last one's output moves by `values` at the place."""
    pad = model.config.pad_token_id or 0
    wanted = states(model, chosen[-1], place) + values
    for number, layer in enumerate(chosen):
        keys = _keys(model, layer, place.batch)[place.index]
        missing = (wanted - states(model, chosen[-1], place)) / (len(chosen) - number)
        if mean_key:
            keys, missing = keys.mean(0, keepdim=True), missing.mean(0, keepdim=True)
        store(layer.projection, keys, missing, _moment(model, layer, retain, pad), strength=strength)


def store(
    projection: Any, keys: torch.Tensor, values: torch.Tensor, moment: torch.Tensor, *, strength: float
) -> None:
    """W += R Kᵀ(C/strength + K Kᵀ)⁻¹: `keys` (n, in), `values` (n, out), `moment` C (in, in)."""
    import torch

    k, r, c = (each.double() for each in (keys, values, moment))
    ridge = 1e-6 * c.diagonal().mean() * torch.eye(len(c), dtype=torch.float64)
    system = c / strength + ridge + k.T @ k / len(k)
    update = torch.linalg.solve(system, k.T @ r / len(k)).float()  # (in, out), as Conv1D keeps its weight
    with torch.no_grad():
        projection.weight += update.T if isinstance(projection, torch.nn.Linear) else update


def states(model: Model, layer: Layer, place: Place) -> torch.Tensor:
    """The block's output at the place, (rows, width)."""
    seen: list[torch.Tensor] = []

    def look(output: torch.Tensor) -> torch.Tensor:
        seen.append(output)
        return output

    with _rewriting(layer.block, look):
        _run(model, place.batch)
    return seen[0][place.index]


def _keys(model: Model, layer: Layer, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = layer.projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    _run(model, batch)
    handle.remove()
    return seen[0]


def _moment(model: Model, layer: Layer, rows: Sequence[Encoded], pad: int) -> torch.Tensor:
    """Second moment of the layer's keys over all tokens of `rows`, (in, in)."""
    batch = collate(rows, pad)
    keys = _keys(model, layer, batch)[batch["attention_mask"].bool()]
    return keys.T @ keys / len(keys)


def _run(model: Model, batch: dict[str, torch.Tensor]) -> None:
    import torch

    with torch.no_grad():
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])


@contextmanager
def _rewriting(block: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """While inside, the block's output (the first of them, if there are several) goes through `change`."""

    def hook(_: Any, __: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    handle = block.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
