"""How unusual is one artifact among benign ones? Nonconformity scores and conformal p-values.

A conformal p-value needs no model of the benign distribution, only that the subject would be
exchangeable with the bank if it were benign. Artifacts of one repository resemble each other more
than they resemble anybody else's, so the unit of exchangeability is the *group* (a repository):
members of a group share one vote (hierarchical conformal prediction, arXiv:2306.06342), and whatever
is scored is scored against other groups only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

Nonconformity = Callable[["Matrix", "Matrix"], "Matrix"]
"""`score(reference (n, p), points (k, p)) → (k,)`: larger is stranger. Must not depend on row order."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The nonconformity of a subject and, computed in the same way, of each bank member."""

    subject: float
    bank: tuple[float, ...]
    groups: tuple[str, ...]

    @property
    def n_groups(self) -> int:
        return len(set(self.groups))

    def p_value(self) -> float:
        """The group-weighted conformal p-value of the subject."""
        return p_value(self.subject, self.bank, self.groups)

    def quantile(self) -> float:
        """Share of the bank below the subject, each group weighing the same, 0..1."""
        return 1.0 - _share_at_least(self.subject, self.bank, self.groups)

    def band(self) -> tuple[float, float]:
        """5th and 95th percentile of the bank members' own scores."""
        import numpy as np

        low, high = np.quantile(self.bank, [0.05, 0.95])
        return float(low), float(high)


def p_value(score: float, bank: Sequence[float], groups: Sequence[str] | None = None) -> float:
    """P(a benign artifact scores at least this high), valid in finite samples under exchangeability.

    p = (1 + Σ_g mean_{i∈g} 1[bank_i ≥ score]) / (G + 1); with every member its own group (the default)
    this is the familiar (1 + #{bank ≥ score}) / (n + 1). A score that is not finite counts as the
    largest possible. Never below 1/(G + 1): a small bank cannot be made to say more than it knows.
    """
    groups = list(groups) if groups is not None else [str(i) for i in range(len(bank))]
    n_groups = len(set(groups))
    return (1.0 + n_groups * _share_at_least(score, bank, groups)) / (n_groups + 1.0)


def widened(p: float, level: int, *, factor: float = 2.0) -> float:
    """A p-value against a population that is less comparable than it should be: p · factorˡᵉᵛᵉˡ, at most 1.

    Still valid wherever p was, and weaker the wider the population: a fallback costs power, never honesty.
    """
    return min(1.0, p * factor**level)


def _share_at_least(score: float, bank: Sequence[float], groups: Sequence[str]) -> float:
    members: dict[str, list[bool]] = {}
    for value, group in zip(bank, groups, strict=True):
        # Not `value >= score`: comparisons with NaN are false, and an unknown score must not look rare.
        members.setdefault(group, []).append(not value < score)
    return sum(sum(hits) / len(hits) for hits in members.values()) / len(members) if members else 1.0


def conformal_scores(
    bank: Matrix, subject: Matrix, groups: Sequence[str], score: Nonconformity, *, folds: int = 20
) -> Scores:
    """Conformal scores of `subject` (p,) and of every row of `bank` (n, p).

    Each is scored against everything outside its own group, the subject included, so subject and
    members are treated alike; scoring members against a bank that contains them would make them look too
    ordinary and the subject too strange. With up to `folds` groups this is full conformal prediction and
    the p-value is exact. With more, `folds` fits serve them all: members are then scored against slightly
    fewer others than the subject is, look slightly stranger, and the p-value errs on the safe side.
    """
    import numpy as np

    fold_of = {group: index % folds for index, group in enumerate(sorted(set(groups)))}
    membership = np.array([fold_of[group] for group in groups])
    own = np.empty(len(bank))
    for fold in range(min(folds, len(fold_of))):
        held_out = membership == fold
        reference = np.vstack([bank[~held_out], subject[None]])
        own[held_out] = score(reference, bank[held_out])
    return Scores(
        subject=float(score(bank, subject[None])[0]), bank=tuple(own.tolist()), groups=tuple(groups)
    )


def mahalanobis(reference: Matrix, points: Matrix) -> Matrix:
    """Distance √((x−μ)ᵀ Σ⁻¹ (x−μ)) in standardised columns, Σ by Ledoit–Wolf shrinkage."""
    import numpy as np

    z, points = _standardise(reference, points)  # (n, p), (k, p): columns of mean 0, variance 1
    centred = points - z.mean(axis=0)
    solved = np.linalg.solve(ledoit_wolf(z), centred.T)  # (p, k)
    return np.asarray(np.sqrt(np.maximum(np.einsum("kp,pk->k", centred, solved), 0.0)))


def nearest_neighbours(reference: Matrix, points: Matrix, *, k: int = 5) -> Matrix:
    """Mean Euclidean distance to the k nearest reference rows, in standardised columns."""
    import numpy as np

    z, points = _standardise(reference, points)
    squared = ((points[:, None, :] - z[None, :, :]) ** 2).mean(axis=2)  # (k, n)
    k = min(k, len(z))
    return np.asarray(np.sqrt(np.partition(squared, k - 1, axis=1)[:, :k]).mean(axis=1))


def ledoit_wolf(z: Matrix) -> Matrix:
    """Covariance (p, p) of centred rows z (n, p), shrunk towards μI so that it can always be inverted.

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices" (2004).
    """
    import numpy as np

    n, p = z.shape
    z = z - z.mean(axis=0)
    sample = z.T @ z / n  # (p, p)
    mu = np.trace(sample) / p
    if mu <= 0.0:
        return np.eye(p)
    distance = ((sample - mu * np.eye(p)) ** 2).sum() / p
    noise = (((z**2).T @ (z**2) / n) - sample**2).sum() / (n * p)
    # With as many columns as rows the optimal intensity can come out at 0; a floor keeps it invertible.
    intensity = max(min(noise / distance, 1.0) if distance > 0 else 1.0, 1.0 / (n + 1))
    return np.asarray((1.0 - intensity) * sample + intensity * mu * np.eye(p))


def _standardise(reference: Matrix, points: Matrix) -> tuple[Matrix, Matrix]:
    import numpy as np

    mean, std = reference.mean(axis=0), reference.std(axis=0)
    # A column constant over the bank says nothing about spread: leave it in its own unit.
    floor = 1e-6 * np.maximum(np.abs(mean), 1.0)
    std = np.where(std > floor, std, 1.0)
    return (reference - mean) / std, (points - mean) / std
