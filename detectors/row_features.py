"""Which rows lie apart from the others in feature space: three scores from the literature on poisoned data.

Features are (rows, width) float arrays; every score is larger for rows that lie further apart.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def spectral_scores(features: Floats) -> Floats:
    """Squared projection on the top singular direction of the centred features (arXiv:1811.00636)."""
    centred = features - features.mean(0)
    _, _, right = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(np.square(centred @ right[0]))


def whitened_scores(features: Floats, *, directions: int, trim: float, alpha: float = 4.0) -> Floats:
    """Quantum-entropy scores after whitening by a trimmed covariance (SPECTRE, arXiv:2104.11315).

    The features are cut down to their `directions` leading directions; the covariance is that of the rows
    left when the `trim` furthest are dropped, so that a small group cannot hide in it. Scores are
    xᵀ exp(α (Σ − I)/(‖Σ‖ − 1)) x of the whitened rows x with covariance Σ.
    """
    centred = features - np.median(features, axis=0)
    _, _, right = np.linalg.svd(centred, full_matrices=False)
    low = centred @ right[:directions].T
    kept = np.ones(len(low), dtype=bool)
    for _ in range(2):
        mean, root = low[kept].mean(0), _inverse_root(np.cov(low[kept], rowvar=False))
        white = (low - mean) @ root
        far = np.square(white).sum(1)
        kept = far <= np.quantile(far, 1 - trim)
    values, vectors = np.linalg.eigh(np.cov(white, rowvar=False))
    spread = max(float(values[-1]) - 1.0, 1e-9)
    weights = np.exp(np.clip(alpha * (values - 1.0) / spread, -50, alpha))
    return np.asarray(np.square(white @ vectors) @ weights)


def small_cluster(features: Floats, *, directions: int, seed: int = 0) -> tuple[npt.NDArray[np.bool_], float]:
    """The smaller of two clusters and its silhouette in [−1, 1] (activation clustering, arXiv:1811.03728)."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    centred = features - features.mean(0)
    _, _, right = np.linalg.svd(centred, full_matrices=False)
    low = centred @ right[:directions].T
    labels = KMeans(n_clusters=2, n_init=4, random_state=seed).fit_predict(low)
    small = labels == (labels.mean() <= 0.5)
    if not 0 < small.sum() < len(small):
        return np.zeros(len(small), dtype=bool), 0.0
    size = min(len(low), 1000)
    return small, float(silhouette_score(low, labels, sample_size=size, random_state=seed))


def _inverse_root(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    floor = max(float(values[-1]) * 1e-9, 1e-12)
    return np.asarray((vectors / np.sqrt(np.clip(values, floor, None))) @ vectors.T)
