"""One stage of distillation: a target learns the ranking and imitates a frozen source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from modalign.core.interfaces import (
    Batch,
    Config,
    OptimizerSettings,
    Phase,
    Queries,
    Recommender,
    Student,
)
from modalign.core.view import TrainView, UserRows
from modalign.core.vital_signs import STUDENT
from modalign.distillation.source import Source, blocks, factors
from modalign.errors import ConfigError
from modalign.evaluate.protocol import frozen
from modalign.nn.losses.distillation import (
    crossed_infonce,
    divergence_of_logits,
    margin_logits,
    transported_logits,
    transported_masses,
)
from modalign.nn.losses.pairwise import bpr_loss, l2_penalty

WATCHED = 256
"""Users, evenly spaced, on whom the agreement with the source is measured."""
FOLLOWED = 20
"""Best items of a user that are compared."""


class DistillConfig(Config):
    """How a source teaches; the same in both stages. Ranges in brackets are the paper's."""

    logit: Literal["sinkhorn", "sort", "masses", "kl", "bernoulli", "raw", "paired"] = "sinkhorn"
    """Loss between the logits of source and target: debiased Sinkhorn or exact transport by
    sorting of logits as locations on the line; transport of masses over a user's candidates;
    KL inside a group; or one of the pairwise controls."""
    logit_weight: Annotated[float, Field(ge=0)] = 10.0
    """Weight of the logit loss, lambda_1 [1e-5, 1e2]."""
    embedding_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the contrast between the vectors of both models, lambda_2 [1e-5, 1e2]."""
    p: Annotated[float, Field(ge=1, le=8)] = 2.0
    """Exponent of the transport cost `|x - y|^p / p`."""
    eps: Annotated[float, Field(gt=0)] = 0.01
    """Entropic regularisation of Sinkhorn, of locations."""
    mass_eps: Annotated[float, Field(gt=0)] = 0.05
    """Entropic regularisation of "masses", in units of 1 - cosine."""
    value: Literal["dual", "sharp"] = "dual"
    """Value of the entropic problem; sharp is that of the paper's algorithm."""
    root: bool = False
    """Take the p-th root of the transport cost."""
    group: Literal["batch", "user"] = "batch"
    """Logits that are compared as one set: those of a batch, or those of one user's negatives."""
    max_points: Annotated[int, Field(ge=2)] = 8
    """Number of logits in a group that a batch is cut into."""
    negatives: Annotated[int, Field(ge=1, le=1000)] = 1
    """Negatives of a pair whose logits are compared."""
    hard: Annotated[int, Field(ge=0)] = 0
    """Number of the source's best items to draw the compared negatives from; 0: all unseen."""
    kl_temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of "kl" and of the softmaxes of "masses"."""
    reduction: Literal["mean", "sum"] = "mean"
    """Ranking loss and contrast as means over a batch, or as sums, as the paper prints them."""
    contrast: Literal["all", "batch"] | Annotated[int, Field(ge=1)] = 128
    """Items that a pair is contrasted with: all, the batch's own, or this many random ones."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the contrast, tau_e."""
    normalize: bool = False
    """Contrast unit vectors."""
    vectors: Literal["final", "ego"] = "final"
    """Vectors of the target that are contrasted: its final ones, or those it starts from."""
    warm_start: bool = True
    """Start the target's tables from the source: its vectors, or the best of that width."""


class DistillTask(nn.Module):
    """Ranking loss of the target, plus two losses that tie its logits and vectors to the source.

        L = L_bpr + logit_weight L_logit + embedding_weight L_emb

    Only the target is trained. The source gives scores and, where it has them, vectors; it is
    never run again. Where the widths of the vectors differ a linear map on the
    target's side, dropped afterwards, brings them together. A source that only scores teaches
    by its logits alone.

    Args:
        target: the model to train.
        source: what it imitates.
        config: the losses.
        view: training data.
        validate: measures the target on validation; with a start from the source, the log then
            says how far training has come since the start from the teacher.
        teacher: of the first stage, where the source is the assistant that it taught; None if the
            source is the teacher itself.

    Source: TARec (Zhuang et al. 2025), equations 4 and 5.
    """

    vital_signs = STUDENT

    watched: Tensor
    followed: Tensor

    def __init__(
        self,
        target: Recommender,
        source: Source,
        config: DistillConfig,
        view: TrainView,
        validate: Callable[[Recommender], Mapping[str, float]] | None = None,
        teacher: Source | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(target, Student):
            raise ConfigError(
                "a model that gives vectors of single rows, as lightgcn and mlprec do",
                type(target).__name__,
                "choose one of these as assistant or student",
            )
        self.target, self.config, self.source = target, config, source
        self.rows = view.rows()
        self.n_items = view.n_items
        self.pool = torch.nonzero(view.item_counts()).flatten()
        self.projector: nn.Linear | None = None
        width = target.ego_tables()[0].shape[1]
        theirs = 0 if source.vectors is None else source.vectors[0].shape[1]
        self.contrasts = config.embedding_weight > 0 and theirs > 0
        if self.contrasts and theirs != width:
            self.projector = nn.Linear(width, theirs, bias=False)
        self.ground: Tensor | None = None
        if config.logit == "masses" and config.logit_weight:
            _, items = source.vectors or factors(source, width)
            self.ground = items
        self.best: Tensor | None = None
        if config.hard:
            self.best = best_unseen(source, view, config.hard)
        self.start: Mapping[str, float] = {}
        if config.warm_start and validate is not None and teacher is not None:
            self._begin_from(teacher)
            self.start = validate(target)
        if config.warm_start:
            self._begin_from(source)
            if validate is not None and teacher is None:
                self.start = validate(target)
        step = -(-view.n_users // WATCHED)
        self.register_buffer("watched", torch.arange(0, view.n_users, step), persistent=False)
        followed = top_unseen(source.score(self.watched), self.watched, self.rows, FOLLOWED)
        self.register_buffer("followed", followed, persistent=False)
        self._drawn: Tensor | None = None
        self._places: Tensor | None = None

    def _begin_from(self, source: Source) -> None:
        tables = self.target.ego_tables()
        for mine, given in zip(tables, factors(source, tables[0].shape[1]), strict=True):
            mine.data.copy_(given)

    @property
    def recommender(self) -> Recommender:
        """The target."""
        return self.target

    @property
    def n_negatives(self) -> int:
        """As many as are compared, unless these come from the source's list."""
        return 1 if self.config.hard else self.config.negatives

    def phases(self) -> Sequence[Phase]:
        """One phase: the target's parameters, and the map between widths where there is one."""
        params = [p for p in self.parameters() if p.requires_grad]
        return [Phase("main", params, OptimizerSettings.of(self.target.config))]

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Prepares the target's epoch and draws for the first step."""
        device = self.target.ego_tables()[0].device
        self.source = self.source.to(device)
        if self.ground is not None:
            self.ground = self.ground.to(device)
        self.target.on_epoch(epoch, rng)
        self._draw(rng)

    def after_step(self, step: int, batch: Batch, rng: torch.Generator) -> None:
        """Draws for the next step.

        Args:
            step: number of the step that has ended, from 0.
            batch: of that step.
            rng: the epoch's generator.
        """
        self.target.after_step(step, batch, rng)
        self._draw(rng)

    def _draw(self, rng: torch.Generator) -> None:
        """Items to contrast with, and places in the source's list; a loss draws nothing."""
        if isinstance(self.config.contrast, int) and self.contrasts:
            count = min(self.config.contrast, len(self.pool))
            self._drawn = self.pool[torch.randperm(len(self.pool), generator=rng)[:count]]
        if self.best is not None:
            shape = (self.target.config.batch_size, self.config.negatives)
            self._places = torch.randint(self.best.shape[1], shape, generator=rng)

    def diagnostics(self) -> Mapping[str, float]:
        """The target's own numbers, and its agreement with the source on some users."""
        history = self.rows.history(self.watched.cpu()).to(self.watched.device)
        with frozen(self.target) as scorer:
            scores = scorer.score(Queries(self.watched, history)).clone()
            mine = top_unseen(scores, self.watched, self.rows, FOLLOWED)
        same = (mine.unsqueeze(2) == self.followed.unsqueeze(1)).any(2)
        return {**self.target.diagnostics(), "alive/agreement": float(same.float().mean())}

    def after_validation(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """The target's own numbers, and what all stages have added to a start from the teacher."""
        found = dict(self.target.after_validation(metrics))
        name = getattr(self.target.config, "select_by", "recall@20")
        if name in self.start:
            gained = metrics[name] - self.start[name]
            found["alive/improvement"] = min(max(gained / max(metrics[name], 1e-12), 0.0), 1.0)
        return found

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`{"bpr", "reg", "logit", "embedding"}`, those with a weight.

        Raises:
            ValueError: the batch has no pairs with negatives.
        """
        if batch.positives is None or batch.negatives is None:
            raise ValueError("distillation learns from pairs with negatives; the batch lacks one")
        size, config = len(batch), self.config
        negatives = batch.negatives.view(size, -1)
        compared = negatives if self.best is None else self._hard(batch.users)
        ranked = negatives if self.best is None else torch.cat([negatives, compared], dim=1)
        others = self._candidates(batch) if self.contrasts else negatives.new_empty(0)
        items = torch.cat([batch.positives, ranked.T.flatten(), others])
        users, of_items, raw = self.target.at(batch.users, items)
        positive, unseen, candidates = of_items.split([size, ranked.numel(), len(others)])
        positive_scores = torch.linalg.vecdot(users, positive)
        # One row for each negative of a pair, (K, B): the first is the one of the ranking loss.
        scores = torch.linalg.vecdot(users, unseen.view(-1, size, unseen.shape[-1]))
        times = size if config.reduction == "sum" else 1
        parts = {"bpr": times * bpr_loss(positive_scores, scores[0])}
        if self.target.config.reg:
            first = raw[: 3 * size]
            parts["reg"] = self.target.config.reg * l2_penalty(first, batch_size=size)
        if config.logit_weight:
            own = scores[-compared.shape[1] :].T
            parts["logit"] = config.logit_weight * self._logit(
                batch, compared, positive_scores.unsqueeze(1), own
            )
        if self.contrasts:
            if config.vectors == "ego":
                of_items = raw[size:]
                users, positive = raw[:size], of_items[:size]
                candidates = of_items[len(of_items) - len(others) :]
            parts["embedding"] = (
                times
                * config.embedding_weight
                * self._contrast(batch, others, users, positive, candidates)
            )
        return parts

    def _hard(self, users: Tensor) -> Tensor:
        assert self.best is not None
        assert self._places is not None
        places = self._places[: len(users)].to(users.device)
        return self.best.to(users.device)[users].gather(1, places)

    def _candidates(self, batch: Batch) -> Tensor:
        assert batch.positives is not None
        if self.config.contrast == "all":
            return torch.arange(self.n_items, device=batch.users.device)
        if self.config.contrast == "batch":
            own: Tensor = torch.unique(batch.positives)
            return own
        assert self._drawn is not None
        return self._drawn.to(batch.users.device)

    def _logit(self, batch: Batch, compared: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """The loss between logits, from the target's scores (B, 1) and (B, K)."""
        assert batch.positives is not None
        config = self.config
        with torch.no_grad():
            items = torch.cat([batch.positives.unsqueeze(1), compared], dim=1)
            scores = self.source.at(batch.users, items)
        if config.logit == "masses":
            assert self.ground is not None
            return transported_masses(
                scores,
                torch.cat([positive, negative], dim=1),
                self.ground[items],
                temperature=config.kl_temperature,
                eps=config.mass_eps,
            )
        source = margin_logits(scores[:, :1], scores[:, 1:])
        target = margin_logits(positive, negative)
        source, target = self._grouped(source), self._grouped(target)
        if config.logit == "sinkhorn" or config.logit == "sort":
            return transported_logits(
                source,
                target,
                config.logit,
                p=config.p,
                eps=config.eps,
                value=config.value,
                root=config.root,
            )
        return divergence_of_logits(source, target, config.logit, temperature=config.kl_temperature)

    def _grouped(self, logits: Tensor) -> Tensor:
        """(G, n): a user's negatives, or equal parts of the batch without its last few."""
        if self.config.group == "user":
            return logits
        n = min(self.config.max_points, logits.numel())
        count = logits.numel() // n
        return logits.flatten()[: count * n].view(count, n)

    def _contrast(
        self, batch: Batch, others: Tensor, users: Tensor, items: Tensor, candidates: Tensor
    ) -> Tensor:
        assert self.source.vectors is not None
        assert batch.positives is not None
        source_users, source_items = self.source.vectors
        if self.projector is not None:
            users, items, candidates = (self.projector(x) for x in (users, items, candidates))
        return crossed_infonce(
            source_users[batch.users],
            source_items[batch.positives],
            users,
            items,
            source_items[others],
            candidates,
            self.rows.seen(batch.users, others),
            normalize=self.config.normalize,
            temperature=self.config.temperature,
        )


def best_unseen(source: Source, view: TrainView, count: int) -> Tensor:
    """Each user's best items by the source, training items last.

    Args:
        source: the teacher.
        view: training data.
        count: number of items for each user.

    Returns:
        Rows of items, (n_users, count).
    """
    rows = view.rows()
    found = [top_unseen(source.score(u), u, rows, count) for u in blocks(source.n_users)]
    return torch.cat(found)


def top_unseen(scores: Tensor, users: Tensor, rows: UserRows, count: int) -> Tensor:
    """The best items of users by their scores, training items last.

    Args:
        scores: of all items, (B, n_items); those of training items are overwritten.
        users: rows, (B,).
        rows: training items of all users.
        count: number of items for each user.

    Returns:
        Rows of items, (B, at most count).
    """
    scores[rows.of(users)] = -torch.inf
    return scores.topk(min(count, scores.shape[1]), dim=1).indices
