"""CM3: calibrated uniformity and spherical Bézier fusion (Zhou et al. 2025).

The equations C1 to C20 that comments cite are listed in `docs/models/cm3.md`. The file is long
because content, propagation, losses and what is reported of them read the same segments; options
and the towers of the modalities have files of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modalign.core.interfaces import Batch, Recommender, chosen_modalities
from modalign.core.view import TrainView
from modalign.core.vital_signs import VitalSign
from modalign.graph.bipartite import BipartiteGraph
from modalign.models._registry import register
from modalign.models._shared.item_graph import item_graph, modality_weights
from modalign.models._shared.unit import unit
from modalign.models.cm3.config import CM3Config
from modalign.models.cm3.tower import Tower
from modalign.nn.fusion import OPPOSITE, angle, beta_positions, casteljau, fold, lerp, slerp
from modalign.nn.losses.uniformity import alignment, calibrated_uniformity, uniformity
from modalign.nn.vital_signs import spread

DIAGNOSED = 1024
"""Number of items, evenly spaced, on which the similarity is measured."""

SHORTEST = 1e-6
"""A shorter segment has no direction; it is not lengthened beyond this."""

KNN_BLOCK = 128
"""Items compared at a time; for features thousands wide this takes little memory."""


@dataclass(frozen=True)
class _Content:
    """Content vectors of all items: each tensor has n_items rows.

    Attributes:
        projected: directions of P of each modality.
        ends: the vectors that fusion blends.
        fused: the fused vectors, or None without fusion.
        segments: layer 0 of the items, each (n_items, embedding_size).
    """

    projected: list[Tensor]
    ends: list[Tensor]
    fused: Tensor | None
    segments: list[Tensor]

    @property
    def start(self) -> Tensor:
        """Layer 0 of the items, (n_items, width)."""
        return torch.cat(self.segments, dim=1)


@register(
    "cm3",
    config=CM3Config,
    toy={
        "embedding_size": 8,
        "hidden_size": 16,
        "n_layers": 1,
        "k": 5,
        "epochs": 15,
        "batch_size": 64,
        "learning_rate": 0.01,
        "sim_source": "raw",
    },
    family="multimodal",
    paper="Zhou et al. 2025",
    variants={
        "without-fusion": {"fusion": "none"},
        "average-fusion": {"fusion": "average"},
        "linear-fusion": {"fusion": "linear"},
        "standard-uniformity": {"calibrated": False},
        "similarity-constant": {"s_min": 1.0},
        "similarity-raw": {"sim_source": "raw"},
        "similarity-learned": {"detach_similarity": False},
        "only-text": {"modalities": ("text",)},
        "only-image": {"modalities": ("image",)},
        "cold-start": {"uniformity_items": "catalogue"},
    },
)
class CM3(Recommender):
    """Items built from content alone, fused along great circles, spread by calibrated uniformity.

    Every item is `[unit P_1 | ... | unit P_M | h]`: projections of its modalities and their
    fusion at a random position of the arc between them. Users have a free vector of the same
    segments. Both are propagated over the user-item graph, items then over a frozen graph of
    nearest neighbours; users are weighted by segment. The loss draws observed pairs together
    and spreads users and items over the sphere, items less where their contents are similar.

    An item has no free vector: an item without interactions is scored by its content. Positions
    are redrawn by the hooks, so the loss itself is a function.

    Source: Zhou et al. 2025; `docs/models/cm3.md` lists the equations and the decisions.

    Limits:
        Each step projects all items, `2 n_items (sum of feature widths) (hidden + embedding)`
        operations forward; a smaller `feature_rank` reduces that. The order of `modalities`
        matters for `fusion_scheme="fold"` with three or more.

    Example:
        >>> from modalign.testing.toy import toy_dataset
        >>> model = CM3(CM3Config(embedding_size=8), toy_dataset().view())
        >>> [tuple(table.shape) for table in model.tables()]
        [(60, 24), (40, 24)]
    """

    needs = ("negatives", "modalities")
    resamples = True
    vital_signs = (
        VitalSign(
            "similarity_spread",
            "deviation of the content similarity between items",
            0.01,
            "set detach_similarity=true or sim_source=raw",
        ),
    )
    config: CM3Config
    positions: Tensor
    eval_positions: Tensor
    warm: Tensor
    drawn_items: Tensor
    cached_users: Tensor
    cached_items: Tensor
    cached: Tensor

    def __init__(self, config: CM3Config, view: TrainView) -> None:
        super().__init__(config, view)
        self.modality_names = tuple(chosen_modalities(config, view.modalities))
        size, names = config.embedding_size, self.modality_names
        self.fuses = config.fusion != "none"
        self.n_segments = len(names) + self.fuses
        has_head = self.fuses and config.fusion_input == "separate_linear"
        self.towers = nn.ModuleList(
            Tower(view.modalities[name], view, config, head=has_head) for name in names
        )
        spread = math.sqrt(2 / (self.n_users + size))
        self.user_segments = nn.ParameterList(
            torch.empty(self.n_users, size).normal_(std=spread) for _ in range(self.n_segments)
        )
        weights = torch.ones(self.n_users, self.n_segments)
        if config.pref_weights == "softmax":
            weights.normal_(std=0.01)
        # With one segment a weight is only a length, on which neither loss nor ranking depends.
        self.preferences = nn.Parameter(weights) if self.n_segments > 1 else None
        self.graph = BipartiteGraph(view.users, view.items, self.n_users, self.n_items)
        self.register_buffer("warm", view.item_counts() > 0, persistent=False)
        self.item_graph = None
        if config.n_item_layers:
            shares = modality_weights(config.modality_weights, names, view.modalities)
            own = not config.knn_exclude_self
            self.item_graph = item_graph(view, names, shares, config.k, own, KNN_BLOCK)
        self._allocate_draws()

    def _allocate_draws(self) -> None:
        config = self.config
        self._last_forward: tuple[Tensor, Tensor] | None = None
        self.register_buffer("positions", self._draw(1, None)[0], persistent=False)
        self.register_buffer("drawn_items", self._draw_items(None), persistent=False)
        draws = {"sample": 1, "mc": config.eval_draws}.get(config.eval_lambda, 0)
        self.register_buffer("eval_positions", self._draw(draws, None), persistent=draws > 0)
        if config.eval_lambda == "cached":
            width = self.n_segments * config.embedding_size
            self.register_buffer("cached_users", torch.zeros(self.n_users, width))
            self.register_buffer("cached_items", torch.zeros(self.n_items, width))
            self.register_buffer("cached", torch.zeros((), dtype=torch.bool))

    def vector_segments(self) -> tuple[tuple[str, int, int], ...]:
        """Name, first column and last column (excluded) of the segments of a vector."""
        size = self.config.embedding_size
        names = [*self.modality_names, *(["fusion"] if self.fuses else [])]
        return tuple((name, at * size, (at + 1) * size) for at, name in enumerate(names))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        device: torch.device = self.user_segments[0].device
        return device

    # -------------------------------------------------------------- random numbers

    @property
    def n_levels(self) -> int:
        """Number of positions that an item needs for one fusion."""
        config, n = self.config, len(self.modality_names)
        if config.fusion in ("none", "average") or n == 1:
            return 0
        return 1 if config.fusion_scheme == "casteljau" or config.shared_lambda_levels else n - 1

    def _draw(self, draws: int, rng: torch.Generator | None) -> Tensor:
        shape = (draws, self.n_levels, self.n_items)
        return beta_positions(self.config.alpha, shape, rng).to(self.device)

    def _draw_items(self, rng: torch.Generator | None) -> Tensor:
        if self.config.uniformity_items != "catalogue":
            return torch.empty(0, dtype=torch.int64, device=self.device)
        device = rng.device if rng is not None else None
        order = torch.randperm(self.n_items, generator=rng, device=device)
        return order[: self.config.batch_size].to(self.device)

    def _redraw(self, rng: torch.Generator) -> None:
        self.positions = self._draw(1, rng)[0]
        self.drawn_items = self._draw_items(rng)

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Draw new positions, and the positions that scoring uses until the next epoch."""
        self._redraw(rng)
        self.eval_positions = self._draw(len(self.eval_positions), rng)

    def after_step(self, step: int, batch: Batch, rng: torch.Generator) -> None:
        """Draw new positions; with eval_lambda=cached keep the vectors of this step."""
        self._redraw(rng)
        if self._last_forward is not None:
            users, items = self._last_forward
            self.cached_users.copy_(users)
            self.cached_items.copy_(items)
            self.cached.fill_(True)
            self._last_forward = None

    # -------------------------------------------------------------- the forward pass

    def _towers(self) -> list[Tower]:
        return [tower for tower in self.towers if isinstance(tower, Tower)]

    def _content(self, positions: Tensor) -> _Content:
        """C1 to C8 at positions (draws, levels, n_items); several draws are averaged."""
        config = self.config
        raw, heads = zip(*(tower() for tower in self._towers()), strict=True)
        projected = [unit(p) for p in raw]
        ends = list(raw if heads[0] is None else heads)
        if config.fusion != "linear" or config.lf_inputs == "unit":
            ends = projected if heads[0] is None else [unit(q) for q in heads]
        segments = projected if config.segment_norm else list(raw)
        if not self.fuses:
            return _Content(projected, ends, None, segments)
        draws = [self._segment(self._fuse(ends, each)) for each in positions]
        mean = draws[0] if len(draws) == 1 else torch.stack(draws).mean(0)
        return _Content(projected, ends, mean, [*segments, mean])

    def _segment(self, fused: Tensor) -> Tensor:
        # Slerp of unit vectors is already of unit length.
        return unit(fused) if self.config.segment_norm and self.config.fusion != "slerp" else fused

    def _fuse(self, ends: list[Tensor], positions: Tensor) -> Tensor:
        """C7 or C7' at positions (levels, n) or (levels, 1)."""
        config = self.config
        if config.fusion == "average":
            return unit(torch.stack(ends).mean(0))
        if len(ends) == 1:
            return ends[0]
        blend = slerp if config.fusion == "slerp" else lerp
        if config.fusion_scheme == "casteljau":
            return casteljau(ends, positions[0], blend)
        return fold(ends, positions, blend)

    def _middle(self) -> Tensor:
        """Positions of one half, as one draw: (1, levels, 1)."""
        return self.positions.new_full((1, self.n_levels, 1), 0.5)

    def _vectors(
        self, content: _Content, users: Tensor | None, items: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """C9 to C14: final vectors of the requested users and items (None: all)."""
        config = self.config
        weights = self._weights(users)
        user_parts, item_parts = [], []
        # Segments do not mix before the losses: one at a time needs a third of the memory, and
        # its buffers stay in the cache.
        for at, (table, segment) in enumerate(
            zip(self.user_segments, content.segments, strict=True)
        ):
            first = unit(table, again=True) if config.segment_norm else table
            user_part, item_part = self.graph.propagate_sides(
                first, segment, config.n_layers, readout="sum", rows=users
            )
            user_parts.append(user_part * weights[:, at : at + 1])
            item_parts.append(item_part)
        items_after = self._over_item_graph(torch.cat(item_parts, dim=1), content, items)
        return torch.cat(user_parts, dim=1), items_after

    def _weights(self, users: Tensor | None) -> Tensor:
        """C11: weights of the segments, (n, n_segments)."""
        if self.preferences is None:
            return torch.ones(1, 1, device=self.device)
        weights = self.preferences if users is None else self.preferences[users]
        return weights.softmax(dim=1) if self.config.pref_weights == "softmax" else weights

    def _over_item_graph(self, items: Tensor, content: _Content, rows: Tensor | None) -> Tensor:
        """C14 at `rows`."""
        config = self.config
        if self.item_graph is None:
            return items if rows is None else items[rows]
        if config.n_item_layers == 1 and config.ii_residual == "propagated":
            return self.item_graph.matmul(items, rows=rows, residual=True)
        smooth = items
        for _ in range(config.n_item_layers - 1):
            smooth = self.item_graph.matmul(smooth)
        smooth = self.item_graph.matmul(smooth, rows=rows)
        base = items if config.ii_residual == "propagated" else content.start
        return smooth + (base if rows is None else base[rows])

    # -------------------------------------------------------------- the loss

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """C19: `align`, `uniform_user` and `cal_uniform_item` (or `uniform_item`)."""
        config = self.config
        assert batch.positives is not None
        spread = self._spread_items(batch)
        users, user_at = batch.users.unique(return_inverse=True)
        everything = config.uniformity_items == "full"
        wanted = batch.positives if everything else torch.cat([batch.positives, spread])
        items, item_at = wanted.unique(return_inverse=True)
        content = self._content(self.positions[None])
        if everything or config.eval_lambda == "cached":
            user_table, item_table = self._vectors(content, None, None)
            self._remember(user_table, item_table)
            user_rows, item_rows = user_table[batch.users], item_table[wanted]
        else:
            user_table, item_table = self._vectors(content, users, items)
            user_rows, item_rows = user_table[user_at], item_table[item_at]
        paired = item_rows[: len(batch)]
        parts = {"align": alignment(user_rows, paired)}
        weight = config.gamma * config.kappa
        if weight:
            apart = item_table if everything else item_rows[len(batch) :]
            parts |= self._uniformity(weight, batch, user_rows, apart, spread, content)
        return parts

    def _spread_items(self, batch: Batch) -> Tensor:
        """Items of the item uniformity, (n,)."""
        choice = self.config.uniformity_items
        if choice == "catalogue":
            return self.drawn_items[: len(batch)]
        if choice == "full":
            return torch.arange(self.n_items, device=batch.users.device)
        items = batch.positives if choice == "positives" else batch.negatives
        assert items is not None
        return items

    def _uniformity(
        self,
        weight: float,
        batch: Batch,
        users: Tensor,
        items: Tensor,
        rows: Tensor,
        content: _Content,
    ) -> dict[str, Tensor]:
        config = self.config
        if config.dedupe_uniformity:
            users = users[_first_of_each(batch.users)]
            once = _first_of_each(rows)
            items, rows = items[once], rows[once]
        parts = {"uniform_user": weight * uniformity(users, config.t)}
        if not config.calibrated:
            return {**parts, "uniform_item": weight * uniformity(items, config.t)}
        alike = self._content_rows(content, rows)
        if config.detach_similarity:
            alike = alike.detach()
        calibrated = calibrated_uniformity(items, alike, config.t, config.s_min, config.s_max)
        return {**parts, "cal_uniform_item": weight * calibrated}

    def _content_rows(self, content: _Content, rows: Tensor) -> Tensor:
        """Rows whose inner products are the content similarity of C17 before the clamp."""
        config = self.config
        if config.sim_source == "raw":
            directions = [tower.raw_directions(rows) for tower in self._towers()]
            there = torch.stack([tower.input.present[rows] for tower in self._towers()]).sum(0)
            return torch.cat(directions, dim=1) / there.clamp(min=1).sqrt()[:, None]
        if config.sim_source == "projected" or content.fused is None:
            # The mean of M cosines is one product of joined rows.
            joined = torch.cat([p[rows] for p in content.projected], dim=1)
            return joined / math.sqrt(len(content.projected))
        if config.sim_lambda == "mean" and self.n_levels:
            return unit(self._fuse([end[rows] for end in content.ends], self._middle()[0]))
        return unit(content.fused[rows])

    def _remember(self, users: Tensor, items: Tensor) -> None:
        # Only stored: `after_step` writes it into the buffers.
        if self.config.eval_lambda == "cached" and torch.is_grad_enabled():
            self._last_forward = (users.detach(), items.detach())

    # -------------------------------------------------------------- scoring

    def tables(self) -> tuple[Tensor, Tensor]:
        """User (n_users, width) and item (n_items, width) vectors at the positions of scoring."""
        if self.config.eval_lambda == "cached" and bool(self.cached):
            users, items = self.cached_users, self.cached_items
        else:
            drawn = len(self.eval_positions) > 0
            positions = self.eval_positions if drawn else self._middle()
            users, items = self._vectors(self._content(positions), None, None)
        if self.config.cold_length == "warm":
            items = self._lengthened(items)
        if self.config.score == "cosine":
            return unit(users), unit(items)
        return users, items

    def _lengthened(self, items: Tensor) -> Tensor:
        """The segments of items without interactions, at the mean length of the others.

        Propagation adds to an item what its users have; an item without users keeps layer 0
        alone, and the inner product would rank it below all others for that. The losses read
        directions only, so its length has no other meaning.
        """
        if bool(self.warm.all()) or not bool(self.warm.any()):
            return items
        segments = items.view(self.n_items, self.n_segments, -1)
        lengths = segments.norm(dim=2)
        factor = lengths[self.warm].mean(0) / lengths.clamp(min=SHORTEST)
        factor = torch.where(self.warm[:, None], torch.ones_like(factor), factor)
        return (segments * factor[:, :, None]).view_as(items)

    def diagnostics(self) -> Mapping[str, float]:
        """Spread of the content similarity, antiparallel pairs, mean weight of each segment.

        A mean similarity of 1 with no deviation says that calibration has collapsed into
        plain uniformity: only the spread of the similarity has an effect.
        """
        config = self.config
        with torch.no_grad():
            content = self._content(self.positions[None])
            step = -(-self.n_items // DIAGNOSED)
            rows = torch.arange(0, self.n_items, step, device=self.positions.device)
            alike = self._content_rows(content, rows)
            similarity = alike @ alike.T
            apart = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
            names = [*self.modality_names, *(["fused"] if self.fuses else [])]
            means = dict(zip(names, self._weights(None).mean(0).tolist(), strict=True))
            return {
                "similarity_mean": similarity[apart].mean().item(),
                **({"alive/similarity_spread": spread(similarity)} if config.calibrated else {}),
                "antiparallel": float(self._count_antiparallel(content)),
                **{f"preference_{name}": mean for name, mean in means.items()},
            }

    def _count_antiparallel(self, content: _Content) -> int:
        """Number of pairs of opposite vectors, which have no unique arc, over items and levels."""
        if self.config.fusion != "slerp" or len(content.ends) == 1:
            return 0
        count = 0

        def counting(a: Tensor, b: Tensor, position: Tensor) -> Tensor:
            nonlocal count
            count += int((angle(a, b) > OPPOSITE).sum())
            return slerp(a, b, position)

        if self.config.fusion_scheme == "casteljau":
            casteljau(content.ends, self.positions[0], counting)
        else:
            fold(content.ends, self.positions, counting)
        return count


def _first_of_each(rows: Tensor) -> Tensor:
    """The first position of each value, in ascending order of values."""
    values, inverse = rows.unique(return_inverse=True)
    places = torch.arange(len(rows), device=rows.device)
    return places.new_full((len(values),), len(rows)).scatter_reduce(0, inverse, places, "amin")
