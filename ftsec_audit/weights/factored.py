"""Exact statistics of ΔW = B·A from its thin factors, for many modules of one shape at once.

Shapes: `left` B is (n, rows, r), `right` Aᵀ is (n, columns, r), one slice per module. Nothing of size
rows × columns is ever formed. All that is needed is the r × r Gram matrix of each factor: ‖BA‖² is
⟨BᵀB, AAᵀ⟩, and the squared singular values of BA are the eigenvalues of Mᵀ(AAᵀ)M with BᵀB = MMᵀ. Every
answer is invariant to the gauge (B, A) → (BG, G⁻¹A).

Accuracy: a Gram matrix squares the condition of its factor. Float32 products leave an absolute error of some
5·10⁻⁵·σ₁ in the smallest singular values, which no statistic of a spectrum notices; float64 products are
good to 1e-5 relative down to σ₁·10⁻⁵. `grams` takes float32 for long factors, where it costs a third, and
float64 wherever its own check says that rounding could show.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ftsec_audit.weights import kernels
from ftsec_audit.weights.factors import BLOCK_ELEMENTS, Factors, StoredFactors

_LONG = 1 << 15
"""Entries of a pair of factors from which on float32 is worth its rounding."""

_CANCELLATION = 2.0
"""(Σᵢ‖bᵢ‖‖aᵢ‖)² may exceed r·‖BA‖² this many times in float32. Above, B and A were scaled against each
other (a gauge), and what is left of them in the product could be rounding."""

_FLOAT32_TRACES = (1e-30, 1e30)
"""Traces of Gram matrices between which no square has left the range of float32."""


def gram(factors: Factors, dtype: torch.dtype = torch.float64) -> Tensor:
    """XᵀX of each factor X (d, r), (n, r, r) in float64.

    Products are taken in `dtype`. In float64, not finite on the diagonal exactly where the factor is not.
    """
    n, _, rank = factors.shape
    found = torch.zeros(n, rank, rank, dtype=dtype)
    for some, _, block in factors.blocks():
        sums = found[some]
        if dtype != torch.float32 or not kernels.add_gram(block, sums):
            values = factors.scratch.converted(block, dtype)
            sums += values.mT @ values
    return found.double()


def grams(left: Factors, right: Factors) -> tuple[Tensor, Tensor]:
    """BᵀB and AAᵀ, float64 (n, r, r) each; by way of float32 where that cannot be noticed."""
    rank = left.shape[2]
    if rank * (left.shape[1] + right.shape[1]) < _LONG:
        return gram(left), gram(right)
    of_left, of_right = _as_read(left, right) or (gram(left, torch.float32), gram(right, torch.float32))
    doubtful = (~_survives_rounding(of_left, of_right)).nonzero()[:, 0].tolist()
    if doubtful:
        of_left[doubtful], of_right[doubtful] = gram(left.chosen(doubtful)), gram(right.chosen(doubtful))
    return of_left, of_right


def _as_read(left: Factors, right: Factors) -> tuple[Tensor, Tensor] | None:
    """Gram matrices of factors in files, multiplied in the order in which the files have them.

    As much is read at once as fits the cache. None where kernels.py has no product for them.
    """
    if not (isinstance(left, StoredFactors) and isinstance(right, StoredFactors)):
        return None
    sides = (right, left)  # as peft writes them: A, then B
    n, _, rank = left.shape
    for side in sides:
        if rank * side.shape[1] > BLOCK_ELEMENTS:
            return None
        if not kernels.multiplies(side.dtype, rank, by_columns=side.wide):
            return None
    sums = torch.zeros(2 * n, rank, rank)
    layouts = [(side.shape[1], side.shape[1] if side.wide else 0) for side in sides]
    factors = [(*layout, n * k + i) for i in range(n) for k, layout in enumerate(layouts)]
    names = [name for pair in zip(right.names, left.names, strict=True) for name in pair]
    memory, as_bytes = left.scratch.take_with_bytes((BLOCK_ELEMENTS,), left.dtype)
    room, following, size = kernels.room(rank), iter(factors), memory.itemsize
    for starts in left.index.read_runs(names, as_bytes):
        placed = [(start // size, *next(following)) for start in starts]
        kernels.add_grams(memory, placed, sums, room)
    doubles = sums.double()
    return doubles[n:], doubles[:n]


def _survives_rounding(left_gram: Tensor, right_gram: Tensor) -> Tensor:
    """Whether float32 kept what matters of each pair: bool (n,); False for anything not finite."""
    least, most = _FLOAT32_TRACES
    lengths = [product.diagonal(dim1=-2, dim2=-1) for product in (left_gram, right_gram)]
    in_range = [(length.sum(-1) > least) & (length.sum(-1) < most) for length in lengths]
    together = (lengths[0] * lengths[1]).clamp(min=0).sqrt().sum(-1)
    energy = frobenius_norms(left_gram, right_gram).square()
    kept = together.square() <= _CANCELLATION * left_gram.shape[-1] * energy
    return in_range[0] & in_range[1] & kept


def frobenius_norms(left_gram: Tensor, right_gram: Tensor) -> Tensor:
    """‖BA‖_F of each module, float64 (n,), from BᵀB and AAᵀ."""
    return (left_gram * right_gram).sum((-2, -1)).clamp(min=0).sqrt()


@dataclass(frozen=True)
class CoreSvd:
    """Singular values of each BA, and how to get at its singular vectors: u_k = B·w_k, v_k = Aᵀ·r_k."""

    sigma: Tensor
    """Descending, float64 (n, r); NaN where a factor is not finite."""
    writers: Tensor
    """Columns w_k, float64 (n, r, r); zero where σ_k is."""
    readers: Tensor
    """Columns r_k."""


def singular_values(left_gram: Tensor, right_gram: Tensor) -> Tensor:
    """The σ of `core_svd` alone, at a tenth of its cost."""
    quick = kernels.core_energies(left_gram, right_gram)
    if quick is None:
        return _singular_values(left_gram, right_gram)
    energies, found = quick
    sigma = energies.clamp_(min=0).sqrt_().sort(descending=True).values
    if not bool(found.all()):
        sigma[~found] = _singular_values(left_gram[~found], right_gram[~found])
    return sigma


def _singular_values(left_gram: Tensor, right_gram: Tensor) -> Tensor:
    core, broken = _core(matrix_root(left_gram), right_gram)
    sigma: Tensor = torch.linalg.eigvalsh(core).clamp(min=0).flip(-1).sqrt()
    sigma[broken] = torch.nan
    return sigma


def _core(root: Tensor, right_gram: Tensor) -> tuple[Tensor, Tensor]:
    """Mᵀ(AAᵀ)M and where it is not finite (set to zero there, which every decomposition survives)."""
    core = root.mT @ right_gram @ root
    broken = ~core.isfinite().flatten(1).all(-1)
    core[broken] = 0
    return core, broken


def core_svd(left_gram: Tensor, right_gram: Tensor) -> CoreSvd:
    """From BᵀB and AAᵀ, (n, r, r) each."""
    root = matrix_root(left_gram)
    core, broken = _core(root, right_gram)
    energies, vectors = torch.linalg.eigh(core)
    energies, vectors = energies.clamp(min=0).flip(-1), vectors.flip(-1)
    inverse = torch.where(energies > 0, 1 / energies, 0.0)[:, None, :]
    readers = (root @ vectors) * inverse.sqrt()  # Aᵀ·M·z = σ·v
    writers = right_gram @ (root @ vectors) * inverse  # B·(AAᵀ)·M·z = σ²·u
    sigma = energies.sqrt()
    for part in (sigma, readers, writers):
        part[broken] = torch.nan
    return CoreSvd(sigma, writers, readers)


def coordinates(factors: Factors, columns: Tensor) -> Tensor:
    """(X·Y)ᵀ of each factor X (d, r) and slice of Y (n, r, k), float32 (n, k, d)."""
    n, depth, _ = factors.shape
    product = torch.empty(n, columns.shape[2], depth)
    turned = columns.mT.float()
    for some, rows, block in factors.blocks():
        product[some, :, rows] = turned[some] @ factors.scratch.converted(block, torch.float32).mT
    return product


def matrix_root(product: Tensor) -> Tensor:
    """Some M with MMᵀ = G for each positive semi-definite (r, r) slice of G; NaN passes through."""
    lower: Tensor
    lower, failed = torch.linalg.cholesky_ex(product)
    singular = failed != 0
    if bool(singular.any()):
        semidefinite = product[singular]
        broken = ~semidefinite.isfinite().all(-1).all(-1)
        semidefinite[broken] = 0
        values, vectors = torch.linalg.eigh(semidefinite)
        root = vectors * values.clamp(min=0).sqrt()[:, None, :]
        root[broken] = torch.nan
        lower[singular] = root
    return lower


def svd(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thin SVD of one BA, B (rows, r), A (r, columns): U (rows, k), σ (k,), V (columns, k), float64.

    k = min(r, rows, columns). Householder QR of both thin factors, SVD of the core. The entry of
    largest size in every column of U is positive, so that equal updates give equal vectors.
    """
    q_left, r_left = torch.linalg.qr(left.double())
    q_right, r_right = torch.linalg.qr(right.double().mT)
    u, sigma, vt = torch.linalg.svd(r_left @ r_right.mT, full_matrices=False)
    u, v = positive_largest(q_left @ u, q_right @ vt.mT)
    return u, sigma, v


def positive_largest(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Singular vectors with the signs that make the entry of largest size in each column of U positive."""
    if not u.numel():
        return u, v
    signs = u.gather(0, u.abs().argmax(0, keepdim=True)).sign()
    return u * signs, v * signs


def row_norms(factor: Tensor, other_gram: Tensor) -> Tensor:
    """‖row‖ of every row of XYᵀ, X (rows, r), from X and YᵀY (r, r): float64 (rows,)."""
    root = matrix_root(other_gram[None])[0]
    norms: Tensor = torch.linalg.vector_norm(factor.double() @ root, dim=-1)
    return norms


def khatri_rao(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Factors of the Hadamard product (B₁A₁)∘(B₂A₂), of rank r₁r₂, without forming either product.

    B₁ (rows, r₁), A₁ (r₁, columns) and so on; rows of B₁ and B₂ and columns of A₁ and A₂ are multiplied
    face to face (Slyusar's face-splitting product).
    """
    (b1, a1), (b2, a2) = left, right
    rows, columns = b1.shape[0], a1.shape[1]
    b = (b1[:, :, None] * b2[:, None, :]).reshape(rows, -1)
    a = (a1[:, None, :] * a2[None, :, :]).reshape(-1, columns)
    return b, a
