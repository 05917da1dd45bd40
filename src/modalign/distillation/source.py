"""What a model teaches from: scores of any user and item, and vectors where it has them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from modalign.core import devices, seeds
from modalign.core.interfaces import Factors, PairScorer, Queries, Recommender
from modalign.core.view import TrainView
from modalign.errors import ConfigError

BLOCK = 512
"""Users scored at a time by a source without vectors."""


class Source(Protocol):
    """A frozen teacher.

    Attributes:
        name: for people.
        vectors: final vectors of users (n_users, d) and items (n_items, d), or None.
        origin: hash of the options and weights of the model it was, None where there was none.
    """

    name: str
    n_users: int
    n_items: int
    vectors: tuple[Tensor, Tensor] | None
    origin: str | None

    def score(self, users: Tensor) -> Tensor:
        """Scores of all items for distinct users, (B, n_items)."""
        ...

    def at(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores of items (B, K) for users (B,), repeats allowed."""
        ...

    def to(self, device: torch.device) -> Source:
        """The same on another device, which then computes its answers."""
        ...


class VectorSource:
    """A teacher with vectors, which were computed once."""

    def __init__(
        self, users: Tensor, items: Tensor, name: str = "teacher", origin: str | None = None
    ) -> None:
        self.name, self.origin = name, origin
        self.n_users, self.n_items = len(users), len(items)
        self.vectors: tuple[Tensor, Tensor] | None = (users.detach(), items.detach())

    def score(self, users: Tensor) -> Tensor:
        """A matrix product."""
        of_users, of_items = self._both()
        return of_users[users] @ of_items.T

    def at(self, users: Tensor, items: Tensor) -> Tensor:
        """A product of rows."""
        of_users, of_items = self._both()
        found: Tensor = torch.linalg.vecdot(of_users[users].unsqueeze(1), of_items[items])
        return found

    def to(self, device: torch.device) -> VectorSource:
        """Both tables on the device."""
        of_users, of_items = self._both()
        return VectorSource(of_users.to(device), of_items.to(device), self.name, self.origin)

    def _both(self) -> tuple[Tensor, Tensor]:
        assert self.vectors is not None
        return self.vectors


class ScoreSource:
    """A teacher that only scores, such as EASE: blocks of users, computed on demand."""

    def __init__(
        self,
        recommender: Recommender,
        view: TrainView,
        name: str = "teacher",
        origin: str | None = None,
    ) -> None:
        self.name, self.origin = name, origin
        self.n_users, self.n_items = view.n_users, view.n_items
        self.vectors: tuple[Tensor, Tensor] | None = None
        self._scorer = recommender.scorer()
        self._device = devices.of(recommender)
        self._rows = view.rows()

    def score(self, users: Tensor) -> Tensor:
        """The model's own scores, from the users' training items where it reads them."""
        history = self._rows.history(users.cpu()).to(self._device)
        with torch.inference_mode():
            found = self._scorer.score(Queries(users.to(self._device), history))
        return found.to(users.device).clone()

    def at(self, users: Tensor, items: Tensor) -> Tensor:
        """The model's own scores of the pairs, or rows of the distinct users, then the items."""
        if not isinstance(self._scorer, PairScorer):
            distinct, place = torch.unique(users, return_inverse=True)
            return self.score(distinct)[place.unsqueeze(-1), items]
        history = self._rows.history(users.cpu()).to(self._device)
        with torch.inference_mode():
            queries = Queries(users.to(self._device), history)
            found = self._scorer.score_pairs(queries, items.to(self._device))
        return found.to(users.device).clone()

    def to(self, device: torch.device) -> ScoreSource:
        """Itself: it moves its answers to the device of the question."""
        return self


class MixedSource:
    """Several teachers: the weighted mean of their scores, each standardised user by user.

        score(u, i) = sum_k w_k (s_k(u, i) - mean_i s_k(u, i)) / std_i s_k(u, i)

    Scores of different models have different scales, which also differ from user to user;
    standardised scores can be added. Weights are normalised to sum to one.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]) -> None:
        fine = all(math.isfinite(one) and one >= 0 for one in weights) and sum(weights) > 0
        if len(sources) != len(weights) or not fine:
            expected = f"{len(sources)} weights, none below 0 and not all 0"
            raise ConfigError(expected, str(list(weights)), "give one weight for each teacher")
        self.sources = list(sources)
        self.weights = [w / sum(weights) for w in weights]
        self.name = " + ".join(one.name for one in sources)
        self.origin: str | None = None
        self.n_users, self.n_items = sources[0].n_users, sources[0].n_items
        self.vectors: tuple[Tensor, Tensor] | None = None
        self._moments: dict[int, tuple[Tensor, Tensor]] = {}

    def score(self, users: Tensor) -> Tensor:
        """All teachers' rows, standardised and mixed."""
        pairs = zip(self.sources, self.weights, strict=True)
        return torch.stack([w * standardised(one.score(users)) for one, w in pairs if w]).sum(0)

    def at(self, users: Tensor, items: Tensor) -> Tensor:
        """Each teacher's scores of the pairs; a user's mean and deviation are computed once."""
        total = torch.zeros(items.shape, device=users.device)
        for place, (one, weight) in enumerate(zip(self.sources, self.weights, strict=True)):
            if weight:
                mean, spread = self._of_rows(place, users.device)
                scores = one.at(users, items)
                total += weight * (scores - mean[users, None]) / spread[users, None]
        return total

    def _of_rows(self, place: int, device: torch.device) -> tuple[Tensor, Tensor]:
        if place not in self._moments:
            source = self.sources[place]
            both = [_mean_and_spread(source.score(block)) for block in blocks(self.n_users, device)]
            self._moments[place] = (
                torch.cat([mean for mean, _ in both]).squeeze(1),
                torch.cat([spread for _, spread in both]).squeeze(1),
            )
        return self._moments[place]

    def to(self, device: torch.device) -> MixedSource:
        """All of them on the device."""
        return MixedSource([one.to(device) for one in self.sources], self.weights)


def standardised(scores: Tensor) -> Tensor:
    """Each row minus its mean, over its standard deviation; a constant row becomes zeros.

    Example:
        >>> standardised(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
        tensor([[-1.,  1.],
                [ 0.,  0.]])
    """
    mean, spread = _mean_and_spread(scores)
    return (scores - mean) / spread


def _mean_and_spread(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row, (B, 1); the spread of a constant row counts as 1."""
    mean = scores.mean(dim=1, keepdim=True)
    spread = (scores - mean).square_().mean(dim=1, keepdim=True).sqrt()
    return mean, torch.where(spread > 0, spread, 1.0)


def source_of(recommender: Recommender, view: TrainView, name: str = "teacher") -> Source:
    """A frozen teacher: the recommender in evaluation mode, its vectors computed once.

    Args:
        recommender: a trained model.
        view: the training data, whose items it reads as histories.
        name: for people.
    """
    scorer = recommender.scorer()
    if isinstance(scorer, Factors):
        return VectorSource(scorer.users.clone(), scorer.items.clone(), name, _origin(recommender))
    return ScoreSource(recommender, view, name, _origin(recommender))


def factors(source: Source, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Vectors of width `size` whose products are nearest to a source's scores.

    The best rank-`size` approximation of the score matrix S in the Frobenius norm, its singular
    values split evenly, `U sqrt(s)` and `V sqrt(s)`. Exact where the source has vectors (their
    own where the width is `size`): two thin QR decompositions and one small SVD. Otherwise by
    subspace iteration over blocks of users; S is never held whole.

    Args:
        source: the teacher.
        size: width of the vectors.
        seed: of the subspace iteration's start; unused where the source has vectors.

    Returns:
        Vectors of users (n_users, size) and of items (n_items, size).

    Example:
        >>> users, items = torch.rand(5, 3), torch.rand(4, 3)
        >>> few = factors(VectorSource(users, items), 4)
        >>> bool((few[0] @ few[1].T - users @ items.T).abs().max() < 1e-5)
        True
    """
    if source.vectors is not None:
        users, items = source.vectors
        if users.shape[1] == size:
            return users, items
        (q_u, r_u), (q_i, r_i) = torch.linalg.qr(users), torch.linalg.qr(items)
        left, values, right = torch.linalg.svd(r_u @ r_i.T, full_matrices=False)
        left, right = q_u @ left, q_i @ right.T
    else:
        left, values, right = _subspace(source, min(size, source.n_items, source.n_users), seed)
    root = values[:size].sqrt()
    pad = (0, size - min(size, len(root)))
    of_users, of_items = left[:, :size] * root, right[:, :size] * root
    return torch.nn.functional.pad(of_users, pad), torch.nn.functional.pad(of_items, pad)


def blocks(n_users: int, device: torch.device | None = None) -> Iterator[Tensor]:
    """Rows of all users, some at a time."""
    yield from torch.arange(n_users, device=device).split(BLOCK)


def _subspace(source: Source, size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = seeds.fixed_generator(seed)
    wide = min(size + 16, source.n_items, source.n_users)
    basis = torch.linalg.qr(torch.randn(source.n_items, wide, generator=rng))[0]
    for _ in range(4):
        total = torch.zeros_like(basis)
        for users in blocks(source.n_users):
            scores = source.score(users)
            total += scores.T @ (scores @ basis)
        basis = torch.linalg.qr(total)[0]
    image = torch.cat([source.score(users) @ basis for users in blocks(source.n_users)])
    left, values, right = torch.linalg.svd(image, full_matrices=False)
    return left, values, basis @ right.T


def _origin(recommender: Recommender) -> str:
    """A hash of what was learned: values computed from it depend on the number of threads."""
    options = recommender.config.model_dump_json()
    digest = hashlib.sha256(f"{type(recommender).__name__} {options}".encode())
    for name, value in sorted(recommender.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
