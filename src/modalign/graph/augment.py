"""Random smaller versions of a graph: edges dropped by a generator."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

By = Literal["uniform", "degree"]


def kept_edges(
    users: Tensor, items: Tensor, rate: float, rng: torch.Generator, by: By = "uniform"
) -> Tensor:
    """Positions of the edges that stay: `n - round(rate * n)` of them, ascending, int64.

    "uniform" keeps every set of that size with the same probability. "degree" draws the edges
    that stay one after the other without replacement, with probability proportional to
    `1 / sqrt(d_u d_i)`, so that edges between popular nodes are dropped first. Both draw Gumbel
    noise once per edge: the largest keys `log weight + noise` are such a sample.

    Args:
        users: user of each edge, int64, shape (n,).
        items: item of each edge, int64, shape (n,).
        rate: share of edges to drop, in [0, 1).
        rng: a generator on the CPU.
        by: "uniform" or "degree".

    Raises:
        ValueError: the rate is out of bounds, or `by` is unknown.

    Source: Zhou and Shen, "A tale of two graphs" (FREEDOM), MM 2023, section 3.3
    (degree-sensitive edge pruning); Efraimidis and Spirakis 2006 (sampling by keys).

    Example:
        >>> edges = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 2])
        >>> len(kept_edges(*edges, rate=0.5, rng=torch.Generator().manual_seed(1)))
        2
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"expected a share of edges to drop in [0, 1), got {rate}")
    keys = -torch.log(-torch.log(_open_uniform(len(users), rng)))
    if by == "degree":
        degree_of_user = torch.bincount(users).double()[users]
        degree_of_item = torch.bincount(items).double()[items]
        keys -= 0.5 * torch.log(degree_of_user * degree_of_item)
    elif by != "uniform":
        raise ValueError(f"expected edges to be dropped by uniform or degree, got {by!r}")
    n_kept = len(users) - round(rate * len(users))
    return torch.topk(keys, n_kept, sorted=False).indices.sort().values


def _open_uniform(n: int, rng: torch.Generator) -> Tensor:
    """Uniform float64 numbers in the open interval (0, 1)."""
    draw = torch.rand(n, generator=rng, dtype=torch.float64)
    return draw.clamp(min=torch.finfo(torch.float64).tiny)
