"""RecGOAT: graph attention and optimal adaptive transport (Li et al. 2026).

The equations R1 to R16 and the decisions E1 to E29 that comments cite are listed in
`docs/models/recgoat.md`. This file holds the forward pass and the losses; options, branches,
transport and the comparison of spaces have files of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from modalign.core import seeds
from modalign.core.interfaces import Batch, chosen_modalities
from modalign.core.view import TrainView
from modalign.core.vital_signs import VitalSign
from modalign.models._registry import register
from modalign.models._shared.seeded_loss import SeededLoss
from modalign.models.recgoat.config import RecGOATConfig
from modalign.models.recgoat.parts import (
    FIRST_SIZE,
    Branch,
    Collaborative,
    Fusion,
    preferences,
    principal_start,
)
from modalign.models.recgoat.spaces import (
    DIAGNOSED,
    Spaces,
    Wanted,
    contrasts,
    distances,
    orders,
    watched_pairs,
)
from modalign.models.recgoat.transport import (
    FeatureTransport,
    SampleTransport,
    State,
    cloud_distances,
    size_of,
    standardised,
)
from modalign.nn.losses.infonce import info_nce
from modalign.nn.losses.pairwise import bpr_loss, l2_penalty
from modalign.nn.vital_signs import focus


@register(
    "recgoat",
    config=RecGOATConfig,
    toy={
        "embedding_size": 8,
        "n_heads": 2,
        "n_layers": 2,
        "k": 5,
        "k_users": 5,
        "learning_rate": 0.02,
        "batch_size": 64,
        "epochs": 15,
    },
    family="multimodal",
    paper="Li et al. 2026",
    variants={
        "without-cmcl": {"contrast_weight": 0.0},
        "without-user-item-contrast": {"modality_share": 1.0},
        "without-modality-contrast": {"modality_share": 0.0},
        "sum": {"fusion": "sum"},
        "concat": {"fusion": "concat"},
        "without-both": {"fusion": "sum", "contrast_weight": 0.0},
        "without-w1": {"transport_weight": 0.0},
        "w1-only": {"plan": "identity", "adapt": "none"},
        "without-plan": {"plan": "none", "adapt": "xavier"},
        "identity-plan": {"plan": "identity"},
        "without-delta": {"adapt": "none"},
        "absolute-cost": {"cost_power": 1},
        "sample-plan": {"oat_map": "sample", "anchors": 512},
        "without-item-graph": {"item_graph": False},
        "without-user-graph": {"user_graph": False},
        "attentive-user-item": {"user_item": "attentive"},
        "random-preference": {"preference": "random"},
        "without-preference": {"preference": "none", "user_start": "random"},
        "only-text": {"modalities": ("text",)},
        "only-image": {"modalities": ("image",)},
        "free-weights": {"weights": "free"},
        "per-item-weights": {"weights": "per_item"},
        "equal-weights": {"weights": "equal"},
        "repelling-contrast": {"contrast_sign": "repel"},
        "without-centring": {"centre": False},
        "without-standardising": {"standardise": False},
        "ids-only": {"content": False, "preference": "none", "user_start": "random"},
        "reference": {"preset": "reference"},
    },
)
class RecGOAT(SeededLoss):
    """Graph attention in every space, and transport that maps modalities to the space of the ids.

    An item has a vector of its id, propagated over the interactions, and one of each modality,
    computed by attention over the items nearest in content. Transport between the d features of
    a modality and the d features of the ids, plus a trained matrix, maps the modality's vectors
    to the ids'; their weighted mean is the item. A user has a propagated vector and a vector of
    the preference, which is mapped in the same way. The loss is BPR, contrasts of the same item
    in two spaces and of users with items, the 1-Wasserstein distance that remains after the map,
    and a penalty.

    Source: Li et al. 2026; `docs/models/recgoat.md` lists what the paper leaves open.

    Limits:
        Each step projects all features, `4 n_items (sum of feature widths) d` operations with
        the gradient; a smaller `feature_rank` reduces that. Attention is computed for the batch
        and the anchors. A user that training never saw has no vector.

    Raises:
        DataError: the data has no modality, or none of users for `preference="file"`.
        UnknownName: a modality of the configuration is not there.

    Example:
        >>> from modalign.testing.toy import toy_dataset
        >>> model = RecGOAT(RecGOATConfig(embedding_size=8), toy_dataset().view())
        >>> [tuple(table.shape) for table in model.tables()]
        [(60, 8), (40, 8)]
    """

    needs = ("negatives", "modalities")
    vital_signs = (
        VitalSign(
            "order",
            "AUC of the mean of a user's items with another one of them, in the aligned space",
            0.55,
            "set a larger delta_reg, or scale_gradient=true",
        ),
        VitalSign(
            "weight",
            "share of a source in the fused item",
            0.02,
            "set weight_floor=0.05",
        ),
        VitalSign(
            "plan_focus",
            "1 - entropy of the plan's rows over its maximum",
            0.02,
            "set a smaller plan_reg",
        ),
    )
    config: RecGOATConfig
    item_anchors: Tensor
    user_anchors: Tensor
    watched: Tensor

    def __init__(self, config: RecGOATConfig, view: TrainView) -> None:
        super().__init__(config, view)
        names = chosen_modalities(config, view.modalities) if config.content else []
        self.modality_names = tuple(names)
        profile = preferences(config, view, names or sorted(view.modalities))
        size = config.embedding_size
        if profile is None or config.user_start == "random":
            start = torch.empty(self.n_users, size).normal_(std=FIRST_SIZE)
        else:
            start = principal_start(profile, size)
        self.ids = Collaborative(config, view, start)
        branches = [
            Branch(view.modalities[name], view, config, config.k, config.item_graph)
            for name in names
        ]
        self.branches = cast("Sequence[Branch]", nn.ModuleList(branches))
        self.preference: Branch | None = None
        self.preference_logit: nn.Parameter | None = None
        if profile is not None:
            self.preference = Branch(profile, view, config, config.k_users, config.user_graph)
            share = torch.tensor(config.preference_share)
            self.preference_logit = nn.Parameter(torch.logit(share))
        self.fusion = Fusion(config, names)
        for name, n in (("item_anchors", self.n_items), ("user_anchors", self.n_users)):
            self.register_buffer(name, _anchors(name, n, config.anchors), persistent=False)
        self.register_buffer("watched", watched_pairs(view), persistent=False)
        self.transport = self._transport()
        self.rows = view.rows()
        self.known = self.rows if config.mask_known else None
        self._step, self._warm = 0, True
        self._handed_on: State | None = None

    def _transport(self) -> FeatureTransport | SampleTransport | None:
        config, with_users = self.config, self.preference is not None
        n_spaces = len(self.modality_names) + with_users
        if not config.transports or not n_spaces:
            return None
        if config.oat_map == "feature":
            return FeatureTransport(config, n_spaces)
        counts = [len(self.item_anchors)] * len(self.modality_names)
        return SampleTransport(config, counts + [len(self.user_anchors)] * with_users)

    @property
    def space_names(self) -> list[str]:
        """Names of the mapped spaces: the modalities, then the users' preferences."""
        return [*self.modality_names, *(["preference"] if self.preference is not None else [])]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.ids.users.device

    # -------------------------------------------------------------- hooks

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Draw the seed of the first step; plans are due at an epoch's first step."""
        super().on_epoch(epoch, rng)
        self._step, self._handed_on = 0, None
        self._warm = epoch >= self.config.warmup_epochs

    def after_step(self, step: int, batch: Batch, rng: torch.Generator) -> None:
        """Keep the plans of this step, and draw the seed of the next one."""
        super().after_step(step, batch, rng)
        self._step += 1
        if self._handed_on is not None and self.transport is not None:
            self.transport.keep(self._handed_on)
        self._handed_on = None

    # -------------------------------------------------------------- the forward pass

    def encode(
        self,
        users: Wanted | None = None,
        items: Wanted | None = None,
        rng: torch.Generator | None = None,
        renew: bool = False,
    ) -> Spaces:
        """Vectors of users and items in every space: R3, R4, R8 to R10, R13 and R14.

        Args:
            users: rows of users to compute; None computes all.
            items: rows of items to compute; None computes all.
            rng: for dropout; None applies no dropout.
            renew: compute new plans, instead of using the kept ones.
        """
        user_rows = None if users is None else users.rows
        item_rows = None if items is None else items.rows
        user_anchors = self.user_anchors if users is None else users.anchors
        item_anchors = self.item_anchors if items is None else items.anchors
        collaborative, all_ids = self.ids(user_rows, rng)
        ids = all_ids if item_rows is None else functional.embedding(item_rows, all_ids)
        profile = None if self.preference is None else self.preference(user_rows, rng)
        # Where users average over all their items in each modality, all items are computed.
        heard = self.config.modal_users
        raw = [branch(None if heard else item_rows, rng) for branch in self.branches]
        if self.config.standardise:
            at = self.item_anchors if heard else item_anchors
            raw = [standardised(z, at) for z in raw]
            profile = None if profile is None else standardised(profile, user_anchors)
        if heard and raw:
            collaborative = self._with_modal_users(collaborative, all_ids, raw, user_rows)
            raw = [z if item_rows is None else functional.embedding(item_rows, z) for z in raw]
        sides = [(z, ids, item_anchors) for z in raw]
        if profile is not None:
            sides.append((profile, collaborative, user_anchors))
        mapped, state = self._map(sides, renew)
        unified = self.fusion([ids, *mapped[: len(raw)]], rng)
        final = collaborative
        if profile is not None and self.preference_logit is not None:
            share = torch.sigmoid(self.preference_logit)
            final = (1 - share) * collaborative + share * mapped[-1]
        pair = None if profile is None else (profile, mapped[-1])
        return Spaces(final, collaborative, pair, unified, ids, raw, mapped[: len(raw)], state)

    def _with_modal_users(
        self, users: Tensor, ids: Tensor, raw: Sequence[Tensor], rows: Tensor | None
    ) -> Tensor:
        """The mean of the users' vectors and the means of their items in each modality."""
        at = self.item_anchors
        raw = [self._at_size(z, ids, at) for z in raw]
        return torch.stack([users, *(self.ids.to_users(z, rows) for z in raw)]).mean(0)

    def _at_size(self, z: Tensor, target: Tensor, at: Tensor) -> Tensor:
        """Vectors at the size that the ids' have on the anchors, where sizes are matched."""
        return z * (size_of(target[at]) / size_of(z[at])) if self.config.match_scale else z

    def _map(
        self, sides: Sequence[tuple[Tensor, Tensor, Tensor]], renew: bool
    ) -> tuple[list[Tensor], State | None]:
        """Vectors of each space after transport, and the plans if they are new."""
        transport = self.transport
        if transport is None:
            # The control is fused at the same scale as what it is compared with.
            return [self._at_size(z, target, at) for z, target, at in sides], None
        state = None
        # Plans in single precision, so that their mass is one.
        with torch.autocast(self.device.type, enabled=False):
            if renew and transport.learns_plan:
                state = transport.renewed(
                    [(z.detach()[at], target.detach()[at]) for z, target, at in sides]
                )
            mapped = [
                transport(space, z, target, (at, at), state)
                for space, (z, target, at) in enumerate(sides)
            ]
        return mapped, state

    # -------------------------------------------------------------- the loss

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """R16: `bpr`, `contrast_users`, `contrast_modalities`, `transport`, `reg` and `delta`, each
        where it has a weight.
        """
        config, n = self.config, len(batch)
        pairs, rng = batch.items(), self._rng(phase)
        none = self.item_anchors[:0]
        measured = self.transport is not None or config.standardise
        of_items = self.item_anchors if measured and self.modality_names else none
        of_users = self.user_anchors if measured and self.preference is not None else none
        items = Wanted.of(pairs, of_items, self.n_items)
        users = Wanted.of(batch.users, of_users, self.n_users)
        due = self.training and self._step % config.steps_between_plans == 0
        spaces = self.encode(users, items, rng if self.training else None, renew=due)
        if self.training:
            # Only stored: `after_step` writes it into the buffers.
            self._handed_on = spaces.state
        own = functional.embedding(users.places, spaces.users)
        chosen, others = functional.embedding(items.places, spaces.unified).view(2, n, -1)
        scores = (torch.linalg.vecdot(own, one) for one in (chosen, others))
        parts = {"bpr": bpr_loss(*scores)}
        parts |= self._contrasts(batch, users.places, items.places, spaces, rng)
        parts |= self._distances(users.places, items.places, spaces, rng)
        if config.reg:
            free = functional.embedding(batch.users, self.ids.users)
            taken = functional.embedding(pairs, self.ids.items)
            parts["reg"] = 2 * config.reg * l2_penalty(free, taken, batch_size=n)
        delta = getattr(self.transport, "delta", None)
        if config.delta_reg and delta is not None:
            parts["delta"] = config.delta_reg * delta.square().sum()
        return parts

    def _contrasts(
        self, batch: Batch, users: Tensor, items: Tensor, spaces: Spaces, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """R5 to R7."""
        config, weight = self.config, self.config.contrast_weight
        parts: dict[str, Tensor] = {}
        if not weight:
            return parts
        if config.modality_share < 1:
            of_pairs = self._user_contrast(batch, users, items, spaces)
            parts["contrast_users"] = weight * (1 - config.modality_share) * of_pairs
        terms = self._modality_contrasts(users, items, spaces, rng) if config.modality_share else []
        if terms:
            mean = torch.stack(terms).mean()
            signed = 1 - mean if config.contrast_sign == "repel" else mean  # E1
            parts["contrast_modalities"] = weight * config.modality_share * signed
        return parts

    def _user_contrast(self, batch: Batch, users: Tensor, items: Tensor, spaces: Spaces) -> Tensor:
        """L_ui: each user's positive against the batch's different positives (E17)."""
        config = self.config
        assert batch.positives is not None
        n = min(len(batch), config.contrast_rows)
        columns, own = items[:n].unique(return_inverse=True)
        if config.contrast_views == "pairs":
            columns, own = items[:n], torch.arange(n, device=items.device)
        forbidden = None
        if self.known is not None and config.contrast_views == "unique":
            names = columns.clone()
            names[own] = batch.positives[:n]
            row, column = self.known.seen(batch.users[:n], names)
            other = own[row] != column
            forbidden = row[other], column[other]
        return info_nce(
            functional.embedding(users[:n], spaces.users),
            functional.embedding(columns, spaces.unified),
            config.temperature,
            targets=own,
            forbidden=forbidden,
        )

    def _modality_contrasts(
        self, users: Tensor, items: Tensor, spaces: Spaces, rng: torch.Generator
    ) -> list[Tensor]:
        """Terms of L_mod: pairs of item spaces before transport, and users with preferences."""
        config, most = self.config, self.config.contrast_rows
        if config.contrast_views == "pairs":
            groups = list(items.view(2, -1)[:, :most])
        else:
            groups = [_some(items.unique(), most, rng)]
        tables = [spaces.ids, *spaces.raw]
        sides = [[functional.embedding(rows, table) for table in tables] for rows in groups]
        pairs = [pair for side in sides for pair in itertools.combinations(side, 2)]
        if spaces.preference is not None:
            rows = _some(users.unique(), most, rng)
            both = spaces.collaborative, spaces.preference[0]
            one, other = (functional.embedding(rows, table) for table in both)
            pairs.append((one, other))
        symmetric = config.contrast_symmetric
        return [info_nce(a, b, config.temperature, symmetric=symmetric) for a, b in pairs]

    def _distances(
        self, users: Tensor, items: Tensor, spaces: Spaces, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """R11 and R12 between mapped and id vectors."""
        config = self.config
        if not config.transport_weight or self.transport is None or not self._warm:
            return {}
        some_items, some_users = items.unique(), users.unique()
        clouds = [(z, spaces.ids, some_items) for z in spaces.mapped]
        if spaces.preference is not None:
            clouds.append((spaces.preference[1], spaces.collaborative, some_users))
        n = min(config.distance_rows, *(len(rows) for _, _, rows in clouds))
        drawn = {id(rows): _some(rows, n, rng) for rows in (some_items, some_users)}
        moved, fixed = (
            torch.stack([functional.embedding(drawn[id(cloud[2])], cloud[at]) for cloud in clouds])
            for at in (0, 1)
        )
        with torch.autocast(self.device.type, enabled=False):
            each = cloud_distances(
                moved,
                fixed if config.distance_side == "both" else fixed.detach(),
                kind=config.distance,
                reg=config.distance_reg,
                rng=rng,
            )
        return {"transport": config.transport_weight * each.sum()}

    # -------------------------------------------------------------- scoring and watching

    def tables(self) -> tuple[Tensor, Tensor]:
        """z_u and z* by the kept plans, without dropout."""
        spaces = self.encode()
        return spaces.users, spaces.unified

    @torch.no_grad()
    def representations(self) -> dict[str, Tensor]:
        """Every vector of all items and users, by name.

        `users`, `unified` and `id`; for each modality m `raw/m` before and `mapped/m` after
        transport; with preferences `collaborative`, `raw/preference` and `mapped/preference`.
        """
        spaces = self.encode()
        found = {"users": spaces.users, "unified": spaces.unified, "id": spaces.ids}
        for name, raw, mapped in zip(self.modality_names, spaces.raw, spaces.mapped, strict=True):
            found |= {f"raw/{name}": raw, f"mapped/{name}": mapped}
        if spaces.preference is not None:
            raw, mapped = spaces.preference
            found |= {"collaborative": spaces.collaborative}
            found |= {"raw/preference": raw, "mapped/preference": mapped}
        return found

    def plans(self) -> dict[str, Tensor]:
        """Plans between the features of each space and those of the ids, (d, d) of mass 1."""
        if not isinstance(self.transport, FeatureTransport):
            return {}
        return dict(zip(self.space_names, self.transport.plan.detach(), strict=True))

    def diagnostics(self) -> Mapping[str, float]:
        """Distances, contrasts, plans, weights and attention, on 512 fixed items and users.

        `w1_before/m` and `w1_after/m`: exact 1-Wasserstein distance between a modality's vectors
        and the ids', before and after transport, in units of the ids' length; `w1/unified` of
        rows of length one. `nce/a-b` of two item spaces and `information/a-b = log n - nce`.
        `plan_bits`: entropy of the plans' rows; `plan_churn`: half the mass that the last plans
        moved. `alive/*`: vital signs. `preference_share`: weight of the preferences.
        `attention/*`: entropy of attention, 1 where all neighbours have the same weight.
        """
        with torch.no_grad():
            spaces = self.encode()
        items, users = self.item_anchors[:DIAGNOSED], self.user_anchors[:DIAGNOSED]
        found = distances(spaces, self.modality_names, items, users)
        found |= contrasts(spaces, self.modality_names, items, self.config.temperature)
        found |= orders(spaces, self.modality_names, self.watched, self.rows)
        found |= self._fusion_and_plans(spaces)
        if self.transport is not None:
            found |= self.transport.diagnostics(self.space_names)
        if self.preference_logit is not None:
            found["preference_share"] = float(torch.sigmoid(self.preference_logit.detach()))
        for name, branch in zip(self.space_names, self._branches(), strict=True):
            anchors = self.user_anchors if name == "preference" else self.item_anchors
            entropy = branch.entropy(anchors[:DIAGNOSED])
            if entropy is not None:
                found[f"attention/{name}"] = entropy
        return found

    @torch.no_grad()
    def _fusion_and_plans(self, spaces: Spaces) -> dict[str, float]:
        """Weights of the fusion and focus of the plans."""
        found: dict[str, float] = {}
        if self.fusion.kind == "oat" and self.modality_names:
            vectors = [spaces.ids, *spaces.mapped]
            weights = self.fusion.weights([one[self.item_anchors] for one in vectors])
            means = weights if weights.ndim == 1 else weights.mean(0)
            names = ["id", *self.modality_names]
            found |= {f"alive/weight/{n}": float(w) for n, w in zip(names, means, strict=True)}
        plans = {name: plan for name, plan in self.plans().items() if name != "preference"}
        if self.config.plan == "sinkhorn":
            found |= {f"alive/plan_focus/{name}": focus(plan) for name, plan in plans.items()}
        return found

    def _branches(self) -> list[Branch]:
        return [*self.branches, *([] if self.preference is None else [self.preference])]


def _anchors(name: str, n: int, most: int) -> Tensor:
    """Fixed rows, at most `most`; the same for every model of n rows, so they are not saved."""
    order = seeds.numpy_generator(0, "recgoat", name).permutation(n)
    return torch.from_numpy(order[: min(n, most)].copy())


def _some(rows: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """At most `most` of the rows, drawn without replacement."""
    if len(rows) <= most:
        return rows
    return rows[torch.randperm(len(rows), generator=rng, device=rng.device)[:most]]
