"""Exact statistics of ΔW = B·A from its thin factors, for many modules of one shape at once.

Shapes: `left` B is (n, rows, r), `right` A is (n, r, columns), one slice per module. Nothing of size
rows × columns is ever formed. All that is needed is the r × r Gram matrix of each factor: ‖BA‖² is
⟨BᵀB, AAᵀ⟩, and the singular values of BA are the square roots of the eigenvalues of Mᵀ(AAᵀ)M with
BᵀB = MMᵀ. Every answer is invariant to the gauge (B, A) → (BG, G⁻¹A).

Accuracy: a float32 Gram matrix loses singular directions below σ₁·10⁻⁴, so where one is ill-conditioned
the factor is first preconditioned by a shifted Cholesky factor and measured again (shifted CholeskyQR2,
Fukaya et al., SIAM J. Sci. Comput. 2020, arXiv 1809.11085). Singular values are then good to about
1–3e-5 relative down to σ₁·10⁻⁴, which is what a float32 Householder QR gives, at a third of its cost.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 17
"""Elements converted to float32 at a time: 512 KiB, so that a block is still in cache when it is used."""

_WELL_CONDITIONED = 500.0
"""‖G‖·‖G⁻¹‖ of a Gram matrix up to which float32 products leave every σ good to 1e-5."""

_SHIFT = 1e-6
"""Relative shift of the preconditioner: above float32 round-off of the Gram matrix."""


def gram(factor: Tensor) -> Tensor:
    """XᵀX of each (d, r) slice of an (n, d, r) tensor of any floating dtype, as float64 (n, r, r).

    Accurate relative to the smaller singular values too, not only to the largest. Slices with
    non-finite entries give NaN; so does nothing else, whatever the magnitude.
    """
    product = _plain_gram(factor)
    trace = product.diagonal(dim1=-2, dim2=-1).sum(-1)  # (n,)
    # Squares that left the range of float32; NaN and zero factors come here too and stay what they are.
    extreme = ~((trace > 1e-30) & (trace < 1e30))
    if bool(extreme.any()):
        wide = factor[extreme].double()
        product[extreme] = wide.mT @ wide
        trace = product.diagonal(dim1=-2, dim2=-1).sum(-1)
    lower, inverse = _shifted_cholesky(product, trace)
    condition = product.norm(dim=(-2, -1)) * (inverse.mT @ inverse).norm(dim=(-2, -1))
    hard = ~extreme & (condition > _WELL_CONDITIONED)
    if bool(hard.any()):
        # X·L⁻ᵀ has columns of nearly equal length, nearly orthogonal: float32 does for its Gram matrix.
        tame = lower @ _plain_gram(factor, inverse.mT.float()) @ lower.mT
        product = torch.where(hard[:, None, None], tame, product)
    return product


def frobenius_norms(left_gram: Tensor, right_gram: Tensor) -> Tensor:
    """‖BA‖_F of each module, float64 (n,), from BᵀB and AAᵀ."""
    return (left_gram * right_gram).sum((-2, -1)).clamp(min=0).sqrt()


def singular_values(left_root: Tensor, right_gram: Tensor) -> Tensor:
    """The r singular values of each BA, descending, float64 (n, r); NaN where a factor is not finite."""
    core, broken = _core(left_root, right_gram)
    energies: Tensor = torch.linalg.eigvalsh(core)  # ascending
    values = energies.clamp(min=0).sqrt().flip(-1)
    values[broken] = torch.nan
    return values


def top_singular_vectors(
    left: Tensor, right: Tensor, left_root: Tensor, right_gram: Tensor
) -> tuple[Tensor, Tensor]:
    """The leading pair of each BA, float32 (n, rows) and (n, columns), without a thin QR.

    Signs as in `svd`. Zero vectors for a zero update, NaN where a factor is not finite.
    """
    core, broken = _core(left_root, right_gram)
    reader = left_root @ torch.linalg.eigh(core).eigenvectors[:, :, -1:]  # Aᵀ·reader = σ₁v₁
    writer = right_gram @ reader  # B·writer = σ₁²u₁
    u, v = _products(left, writer), _products(right.mT, reader)
    u, v = (torch.nn.functional.normalize(x, dim=-1, eps=torch.finfo(torch.float32).tiny) for x in (u, v))
    signs = u.gather(-1, u.abs().argmax(-1, keepdim=True)).sign()
    signs[broken] = torch.nan
    return u * signs, v * signs


def _products(factor: Tensor, vectors: Tensor) -> Tensor:
    """X·x of each (d, r) slice and (r, 1) vector, float32 (n, d)."""
    vectors = vectors.float()
    product = torch.empty(factor.shape[:2])
    for some, rows, block in blocks(factor):
        product[some, rows] = (block.float() @ vectors[some])[..., 0]
    return product


def _core(left_root: Tensor, right_gram: Tensor) -> tuple[Tensor, Tensor]:
    """Mᵀ(AAᵀ)M with BᵀB = MMᵀ, whose eigenvalues are σ²; and which of them are broken (and set to 0)."""
    core = left_root.mT @ right_gram @ left_root
    broken = ~core.isfinite().all(-1).all(-1)
    core[broken] = 0
    return core, broken


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


def blocks(factor: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """(which slices, which rows, their values) of an (n, d, r) tensor, a block that fits the cache at a time.

    Values are float32, float64 if the factor is, in memory that the next block overwrites.
    """
    n, depth, rank = factor.shape
    modules = max(1, BLOCK_ELEMENTS // max(1, depth * rank))
    step = depth if modules > 1 else max(1, BLOCK_ELEMENTS // max(1, rank))
    scratch = torch.empty(0)
    for first in range(0, n, modules):
        for start in range(0, depth, step):
            some, rows = slice(first, first + modules), slice(start, start + step)
            block = factor[some, rows]
            if block.dtype not in (torch.float32, torch.float64):
                block = _converted(block, scratch)
            yield some, rows, block


def _converted(block: Tensor, scratch: Tensor) -> Tensor:
    """The block as float32 in the memory of `scratch`, warm from the last one, with its own order of axes."""
    turned = not block.is_contiguous() and block.mT.is_contiguous()
    source = block.mT if turned else block
    if scratch.numel() < source.numel():
        scratch.resize_(source.numel())
    copy = scratch[: source.numel()].view(source.shape).copy_(source)
    return copy.mT if turned else copy


def _plain_gram(factor: Tensor, transform: Tensor | None = None) -> Tensor:
    """(XT)ᵀXT of each slice, products in float32 (float64 for float64 input)."""
    n, _, rank = factor.shape
    product = torch.zeros(n, rank, rank, dtype=torch.float64)
    moved = torch.empty(0, dtype=torch.float64 if factor.dtype == torch.float64 else torch.float32)
    for some, _, block in blocks(factor):
        if transform is not None:
            block = torch.matmul(block, transform[some].to(block.dtype), out=moved.resize_(0))
        product[some] += block.mT @ block
    return product


def _shifted_cholesky(product: Tensor, trace: Tensor) -> tuple[Tensor, Tensor]:
    """L and L⁻¹ with LLᵀ = G + shift; the identity where G is zero or not finite."""
    eye = torch.eye(product.shape[-1], dtype=torch.float64)
    sound = torch.isfinite(trace) & (trace > 0)
    shifted = torch.where(sound[:, None, None], product + _SHIFT * trace[:, None, None] * eye, eye)
    lower = torch.linalg.cholesky_ex(shifted).L
    return lower, torch.linalg.solve_triangular(lower, eye.expand_as(lower), upper=False)
