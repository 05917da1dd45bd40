"""iALS: matrix factorisation of implicit feedback by alternating least squares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from modalign.core import seeds
from modalign.core.interfaces import Config, Queries, Recommender
from modalign.core.sparse import ranges
from modalign.core.view import TrainView
from modalign.models._registry import register

CELLS = 2**21
"""Numbers of gathered vectors that are held at a time: 8 MB in float32."""
STEPS = 64
"""Maximum number of steps of the encoder's conjugate gradients."""


class IALSConfig(Config):
    """Options of iALS; penalty and weight are those of the 2022 revisit for MovieLens-20M."""

    embedding_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Width of a user or item vector; quality still grows at hundreds."""
    reg: Annotated[float, Field(gt=0)] = 0.003
    """Weight of the squared vectors, times their frequency to the power of reg_exponent."""
    reg_exponent: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Power of the frequency in the penalty, nu: 1 scales with it, 0 is the same for all."""
    unobserved_weight: Annotated[float, Field(gt=0)] = 0.1
    """Weight of the squared scores of all pairs, alpha_0."""
    sweeps: Annotated[int, Field(ge=1)] = 16
    """Number of times that all items, then all users, are solved for."""
    start_std: Annotated[float, Field(gt=0)] = 0.1
    """Length of the random vectors of users at the start, divided by the root of their width."""


@register(
    "ials",
    config=IALSConfig,
    toy={"embedding_size": 4, "reg": 0.1, "sweeps": 8},
    family="baseline",
    paper="Hu et al., ICDM 2008; Rendle et al., RecSys 2022",
    variants={"tuned": {"reg": 0.03}},
)
class IALS(Recommender):
    """Vectors of users and items that fit all pairs by least squares, one side at a time.

    With S the training pairs, n_u and n_i the interactions of a user and an item, N the items and
    M the users, the vectors minimise

        sum_S (<p_u, q_i> - 1)^2 + alpha_0 sum over all u, i of <p_u, q_i>^2
          + reg (sum_u (n_u + alpha_0 N)^nu |p_u|^2 + sum_i (n_i + alpha_0 M)^nu |q_i|^2)

    Given the items, each user solves one linear system of the size of a vector:

        (alpha_0 Q'Q + sum over u's items of q_i q_i' + reg (n_u + alpha_0 N)^nu I) p_u
            = sum over u's items of q_i

    and the other way round. A user's vector is a function of the history and of Q, so that new
    users are folded in exactly; only Q is stored, and scores are `<p(history), q_i>`.

    A system has min(n, d) unknowns: it takes n d min(n, d) operations to write down and
    min(n, d)^3 / 3 to solve, so that time is linear in the interactions, and memory is that of
    the vectors.

    Limits: an item without training interactions has a vector of zeros.

    Source: Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM
    2008; Rendle, Krichene, Zhang and Koren, "Revisiting the performance of iALS on item
    recommendation benchmarks", RecSys 2022, equations 1 to 5.

    Example:
        >>> view = TrainView(2, 3, users=torch.tensor([0, 1]), items=torch.tensor([0, 1]))
        >>> model = IALS(IALSConfig(embedding_size=4), view)
        >>> model.solve(view)
        >>> model.items[2].tolist()
        [0.0, 0.0, 0.0, 0.0]
    """

    needs = ("history",)
    unseen_users = True
    factorised = False

    items: Tensor
    gram: Tensor

    def __init__(self, config: IALSConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: IALSConfig = config
        size = config.embedding_size
        self.start = int(torch.randint(2**62, ()))
        self.register_buffer("items", torch.zeros(view.n_items, size))
        self.register_buffer("gram", torch.zeros(size, size))

    def solve(self, view: TrainView) -> None:
        """Solve for items and users in turn, from random vectors of users."""
        size = self.config.embedding_size
        rng = seeds.torch_generator(self.start, "users")
        users = torch.randn(view.n_users, size, generator=rng).mul_(
            self.config.start_std / size**0.5
        )
        of_users = _lists(view.users, view.items, view.n_users)
        of_items = _lists(view.items, view.users, view.n_items)
        for _ in range(self.config.sweeps):
            items = self._side(*of_items, users, users.T @ users)
            users = self._side(*of_users, items, items.T @ items)
        self.items.copy_(items)
        self.gram.copy_(items.T @ items)

    def _side(self, starts: Tensor, members: Tensor, table: Tensor, gram: Tensor) -> Tensor:
        """Vectors of one side given those of the other, `table`, and its Gram matrix.

        Args:
            starts: first member of each row, and their number, (n + 1,).
            members: rows of the table, int64, (nnz,).
            table: (m, d).
            gram: `table' table`.
        """
        size, counts = table.shape[1], starts.diff()
        # In the axes of the Gram matrix the part of a system that all rows share is diagonal.
        shared, axes = torch.linalg.eigh(gram)
        shared = self.config.unobserved_weight * shared.clamp(min=0.0)
        padded = torch.cat([table @ axes, table.new_zeros(1, size)])
        result = table.new_zeros(len(counts), size)
        penalty = self._penalty(counts.to(table.dtype), len(table))
        for rows in _blocks(counts, size):
            places = _padded(starts[rows], counts[rows], members, len(table))
            result[rows] = _solved(padded[places], shared + penalty[rows, None])
        vectors: Tensor = result @ axes.T
        return vectors

    def _penalty(self, counts: Tensor, n_others: int) -> Tensor:
        """`reg (n + alpha_0 N)^nu`."""
        config = self.config
        frequency = counts + config.unobserved_weight * n_others
        return config.reg * frequency.pow(config.reg_exponent)

    def score(self, queries: Queries) -> Tensor:
        """Scores of all items from the histories alone, (B, n_items)."""
        history = queries.histories()
        starts, members = history.crow_indices().long(), history.col_indices().long()
        return self._side(starts, members, self.items, self.gram) @ self.items.T

    def history_encoder(self) -> HistorySolution:
        """The fold-in of one history, for ONNX."""
        return HistorySolution(self)

    def history_items(self) -> Tensor:
        """Item vectors, (n_items, embedding_size)."""
        return self.items


class HistorySolution(nn.Module):
    """From rows of items, int64, (n,), to the user's vector, (embedding_size,).

    ONNX has no solver of linear systems: it takes as many steps of conjugate gradients as the
    vector has entries, at most 64.

    Args:
        model: its vectors are used, not copied.
    """

    def __init__(self, model: IALS) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: Tensor) -> Tensor:
        """The vector of a history; see the class."""
        m = self.model
        rows = m.items[items]
        penalty = m._penalty(torch.ones_like(items, dtype=rows.dtype).sum(), m.n_items)
        found = torch.zeros_like(rows[0])
        residual = direction = rows.sum(0)
        squares = residual.square().sum()
        for _ in range(min(m.config.embedding_size, STEPS)):
            image = m.config.unobserved_weight * (m.gram @ direction)
            image = image + (rows @ direction) @ rows + penalty * direction
            step = squares / (direction @ image).clamp(min=1e-30)
            found = found + step * direction
            residual = residual - step * image
            before, squares = squares, residual.square().sum()
            direction = residual + (squares / before.clamp(min=1e-30)) * direction
        return found


def _solved(theirs: Tensor, diagonal: Tensor) -> Tensor:
    """`(D + X'X)^-1 X' 1` of each row, (b, d).

    With fewer members than columns it is `D^-1 X' (I + X D^-1 X')^-1 1`, a smaller system.

    Args:
        theirs: X, vectors of the row's members, filled up with zeros, (b, n, d).
        diagonal: of D, (b, d).
    """
    n, size = theirs.shape[1:]
    if n >= size:
        left = theirs.transpose(1, 2) @ theirs
        left.diagonal(dim1=1, dim2=2).add_(diagonal)
        right = theirs.sum(1).unsqueeze(2)
        return torch.cholesky_solve(right, torch.linalg.cholesky(left)).squeeze(2)
    scaled = theirs / diagonal.unsqueeze(1)
    left = scaled @ theirs.transpose(1, 2)
    left.diagonal(dim1=1, dim2=2).add_(1.0)
    ones = theirs.new_ones(len(theirs), n, 1)
    weights = torch.cholesky_solve(ones, torch.linalg.cholesky(left))
    return (scaled * weights).sum(1)


def _lists(owners: Tensor, members: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Start of each owner's members, (n + 1,), and the members in that order."""
    counts = torch.bincount(owners, minlength=n)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return starts, members[torch.argsort(owners, stable=True)]


def _blocks(counts: Tensor, size: int) -> Iterator[Tensor]:
    """Rows with members, longest first, in blocks whose padded vectors fit into `CELLS`."""
    order = counts.argsort(descending=True, stable=True)
    order = order[: int((counts > 0).sum())]
    lengths = counts[order].tolist()
    start = 0
    while start < len(lengths):
        stop = start + max(1, CELLS // (max(lengths[start], size) * size))
        yield order[start:stop]
        start = stop


def _padded(starts: Tensor, counts: Tensor, members: Tensor, filler: int) -> Tensor:
    """Members of each row, filled up with `filler`, (b, longest)."""
    longest = int(counts.max())
    places = members.new_full((len(counts), longest), filler)
    inside = torch.arange(longest, device=counts.device) < counts[:, None]
    places[inside] = members[ranges(starts, counts)]
    return places
