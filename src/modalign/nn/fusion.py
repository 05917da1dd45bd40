"""Fusion of unit vectors along great circles: slerp, its nested forms, and linear alternatives.

All functions work on the last axis and treat the others as a batch. Positions are constants and
get no gradient. Source: Zhou et al. 2025 (CM3), the nested formula of its spherical Bézier
fusion; Shoemake 1985 for slerp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from modalign.nn._slerp import Arc, chords
from modalign.nn.rows import wide

Blend = Callable[[Tensor, Tensor, Tensor], Tensor]

OPPOSITE = math.pi - 1e-3
"""Angle in radians from which two vectors count as antiparallel: their arc is not unique."""
_ILL_CONDITIONED = 2.9
_NUDGE = 1e-2


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle between vectors of equal length, `2 atan2(|a - b|, |a + b|)`, in [0, pi].

    Accurate to rounding for all angles; the arc cosine of a float32 inner product cannot resolve
    angles below 3e-4 radians. Half precision is widened to float32.

    Args:
        a: shape (..., d).
        b: shape (..., d), of the same norms.

    Returns:
        Radians, shape (...).

    Example:
        >>> round(angle(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1e-6])).item() * 1e6, 3)
        1.0
    """
    a, b = wide(a), wide(b)
    return 2 * torch.atan2(*chords(a, b))


def slerp(a: Tensor, b: Tensor, position: Tensor) -> Tensor:
    """The point of the arc from `b` (position 0) to `a` (position 1).

    `sin(p t) / sin(t) a + sin((1 - p) t) / sin(t) b` with `t` the angle between them, computed
    with sinc, so that it tends to the linear blend as `t` goes to 0. Where the vectors are
    antiparallel (`OPPOSITE`) the arc is not unique: `b` is shifted by 0.01 towards the coordinate
    axis furthest from `a`, so that position 0 is only near `b` there.

    Args:
        a: unit vectors, shape (..., d) with d at least 2.
        b: unit vectors, shape (..., d).
        position: in [0, 1], any shape that broadcasts to (...).

    Returns:
        Unit vectors, shape (..., d), float32 or wider even under autocast.

    Example:
        >>> a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
        >>> [round(x, 4) for x in slerp(a, b, torch.tensor(1 / 3)).tolist()]
        [0.5, 0.866]
    """
    a, b = torch.broadcast_tensors(wide(a), wide(b))
    shape, width = a.shape, a.shape[-1]
    position = position.to(a.dtype).expand(shape[:-1]).reshape(-1)
    a, b = a.reshape(-1, width), b.reshape(-1, width)
    with torch.no_grad():
        x, y = chords(a, b)
        theta = 2 * torch.atan2(x, y)
        opposite, steep = theta > OPPOSITE, theta > _ILL_CONDITIONED
    if bool(opposite.any()):
        b = torch.where(opposite[:, None], _nudged(a, b), b)
        with torch.no_grad():
            x, y = chords(a, b)
    out: Tensor = Arc.apply(a, b, position, x, y)  # type: ignore[no-untyped-call]
    # Near pi the weights grow like 1 / sin(t), and rounding of the angle changes the length.
    if bool(steep.any()):
        out = torch.where(steep[:, None], functional.normalize(out, dim=-1), out)
    return out.view(shape)


def lerp(a: Tensor, b: Tensor, position: Tensor) -> Tensor:
    """The linear blend `p a + (1 - p) b`, not normalised to unit length.

    For unit vectors at angle `t`, its direction is `slerp` at position
    `atan2(p sin t, 1 - p + p cos t) / t`: the same arc with another parametrisation.

    Args:
        a: shape (..., d).
        b: shape (..., d).
        position: p in [0, 1], shape (...).

    Example:
        >>> lerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor(0.25)).tolist()
        [0.25, 0.75]
    """
    a, b = wide(a), wide(b)
    position = position.to(a.dtype)[..., None]
    return position * a + (1 - position) * b


def fold(vectors: Sequence[Tensor], positions: Tensor, blend: Blend = slerp) -> Tensor:
    """Left fold: start from the first vector and blend it with each next one in turn.

    `h = v[0]`, then `h = blend(v[m], h, positions[m - 1])` for m = 1, 2, ... For three or more
    vectors the order matters: at positions of 1/2 the last one has a weight of about a half.

    Args:
        vectors: M tensors of shape (..., d); unit vectors for `slerp`.
        positions: (M - 1, ...); or (1, ...), used at all levels.
        blend: `slerp` or `lerp`.

    Returns:
        Shape (..., d).

    Example:
        >>> x, y = torch.eye(2)
        >>> fold([x, y, x], torch.tensor([1.0, 1.0])).tolist()
        [1.0, 0.0]
    """
    state = wide(vectors[0])
    shared = len(positions) == 1
    for level, vector in enumerate(vectors[1:]):
        state = blend(vector, state, positions[0 if shared else level])
    return state


def casteljau(vectors: Sequence[Tensor], position: Tensor, blend: Blend = slerp) -> Tensor:
    """De Casteljau's scheme: blend all neighbours repeatedly at one position.

    The point at `position` of the spherical Bézier curve whose control points are the
    vectors, from the first (0) to the last (1). It takes M (M - 1) / 2 blends where `fold`
    takes M - 1; for one or two vectors both give the same result.

    Args:
        vectors: M tensors of shape (..., d); unit vectors for `slerp`.
        position: shape (...), shared by all levels.
        blend: `slerp` or `lerp`.

    Returns:
        Shape (..., d).

    Example:
        >>> x, y = torch.eye(2)
        >>> casteljau([x, y, x], torch.tensor(1.0)).tolist()
        [1.0, 0.0]
    """
    points = [wide(vector) for vector in vectors]
    while len(points) > 1:
        points = [blend(points[i + 1], points[i], position) for i in range(len(points) - 1)]
    return points[0]


def beta_positions(
    alpha: float, shape: tuple[int, ...], rng: torch.Generator | None = None
) -> Tensor:
    """Independent draws of Beta(alpha, alpha), float32, on the generator's device.

    Jöhnk's rejection method: of two uniform numbers u, v take `x = u^(1/alpha)`,
    `y = v^(1/alpha)`, and keep `x / (x + y)` if `x + y` is at most 1. Exact, and computed with
    logarithms, so that a tiny `alpha` does not underflow. At least half of the pairs are kept.

    Args:
        alpha: in (0, 1]; 1 is uniform, smaller values concentrate the mass at both ends.
        shape: shape of the result.
        rng: generator; None uses torch's global one.

    Raises:
        ValueError: `alpha` is not in (0, 1].

    Source: Jöhnk 1964; Devroye 1986, chapter IX.3.

    Example:
        >>> draws = beta_positions(0.5, (1000,), torch.Generator().manual_seed(0))
        >>> round(draws.mean().item(), 1), bool((draws >= 0).all() and (draws <= 1).all())
        (0.5, True)
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must lie in (0, 1]; got {alpha}")
    device = rng.device if rng is not None else torch.device("cpu")
    out = torch.empty(math.prod(shape), dtype=torch.float64, device=device)
    todo = torch.arange(len(out), device=device)
    while len(todo):
        u = torch.rand((2, len(todo)), generator=rng, dtype=torch.float64, device=device)
        log_x, log_y = torch.log1p(-u) / alpha
        log_sum = torch.logaddexp(log_x, log_y)
        kept = log_sum <= 0
        out[todo[kept]] = (log_x - log_sum)[kept].exp()
        todo = todo[~kept]
    return out.to(torch.float32).view(shape)


def _nudged(a: Tensor, b: Tensor) -> Tensor:
    """`unit(b + 0.01 q)`, q a unit vector orthogonal to `a`: the axis where `a` is smallest."""
    if a.shape[-1] < 2:
        raise ValueError("expected vectors with two or more columns, got one: there is no arc")
    axis = functional.one_hot(a.detach().abs().argmin(dim=-1), a.shape[-1]).to(a.dtype)
    q = functional.normalize(axis - (axis * a).sum(-1, keepdim=True) * a, dim=-1)
    return functional.normalize(b + _NUDGE * q, dim=-1)
