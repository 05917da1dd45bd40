"""BANDVAE: interest factors of ratings and of content, aligned by transport (Tran and Lauw 2025).

The equations B1 to B23 that comments cite are listed in `docs/models/bandvae.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from modalign.core.explain import ContentInterests, Explanation, Tops, plan_entropy
from modalign.core.interfaces import Batch, Queries, chosen_modalities
from modalign.core.sparse import csr_tensor
from modalign.core.view import TrainView
from modalign.core.vital_signs import VitalSign
from modalign.errors import UnknownName
from modalign.models._registry import register
from modalign.models._shared.variational import Noise, Variational
from modalign.models.bandvae.config import BANDVAEConfig
from modalign.models.bandvae.content import ItemBags
from modalign.models.bandvae.decoder import mixture_loss, mixture_scores, mixture_tops
from modalign.models.bandvae.factors import Encoded, FactorEncoder
from modalign.models.bandvae.onnx import ContentSide, HistoryScores
from modalign.models.bandvae.transport import Alignment, Gate, align
from modalign.nn.bags import Bags
from modalign.nn.losses.vae import annealed
from modalign.nn.vital_signs import focus, relative_spread

WATCHED = 256
"""Users, evenly spaced, on whom the diagnostics of an epoch are measured."""


@dataclass(frozen=True)
class AlignedFactors:
    """All that is computed of a block of users before decoding.

    Attributes:
        ratings: rating factors.
        content: content factors by modality.
        alignments: by modality.
        gates: of rating factors (B, K, 1) and of content factors (B, J, 1), by modality.
        fused: rating factors to decode, (B, K, d).
        fused_content: content factors to decode, by modality.
    """

    ratings: Encoded
    content: dict[str, Encoded]
    alignments: dict[str, Alignment]
    gates: dict[str, tuple[Tensor, Tensor]]
    fused: Tensor
    fused_content: dict[str, Tensor]


@register(
    "bandvae",
    config=BANDVAEConfig,
    toy={
        "embedding_size": 8,
        "hidden_size": 16,
        "n_factors": 2,
        "n_content_factors": 2,
        "codebook_size": 8,
        "codebook_neighbours": 2,
        "temperature": 0.2,
        "epochs": 40,
        "batch_size": 20,
        "learning_rate": 0.01,
        "anneal_steps": 400,
    },
    family="multimodal",
    paper="Tran and Lauw 2025",
    encoders={"text": "words"},
    variants={
        "norm-plan": {"plan": "norm"},
        "diag-plan": {"plan": "diag"},
        "uniform-plan": {"plan": "uniform"},
        "printed-plan": {"plan_on": "factors"},
        "only-regulariser": {"transfer": "regulariser"},
        "only-mapping": {"transfer": "mapping"},
        "without-transfer": {"transfer": "none"},
        "mean-transport": {"fusion": "mean"},
        "sum-transport": {"fusion": "sum"},
        "one-round": {"rounds": 1},
        "without-content-likelihood": {"content_weight": 0.0},
    },
)
class BANDVAE(Variational):
    """Rating and content interests of each user, brought together by entropic transport.

    A user's items are grouped softly around K prototypes that move to where the user's items
    are; each group is encoded into a factor, a direction with noise. The mean words of the same
    items give J content factors in the same way. A transport plan between the two sets says which
    interest corresponds to which: its cost draws matching factors together, and it maps each side
    onto the other; the mapped factors are added with a learned gate. A mixture over factors
    decodes items (and words).

    No parameter belongs to a user: everything is computed from a history, so users that training
    never saw are scored in the same way. Modalities without words are read through a codebook.

    Source: Tran and Lauw 2025, "Optimal Transport Alignment of User
        Preferences from Ratings and Texts".

    Limits:
        Each step scores all items for each factor, `B n_items K d` products; blocks bound the
        memory. With plan_on="factors" the plan is nearly uniform, as the factors of a user
        have most of their length in common: see the vital signs.

    Raises:
        DataError: the data has no modality.
        UnknownName: an option names a modality that is not in use.
        ConfigError: `n_content_factors` leaves a modality out.

    Example:
        >>> from modalign.testing.toy import toy_dataset
        >>> config = BANDVAEConfig(embedding_size=8, hidden_size=16, codebook_size=8)
        >>> model = BANDVAE(config, toy_dataset().view())
        >>> {side.name: side.bags.width for side in model.content_sides()}
        {'image': 8, 'text': 8}
    """

    needs = ("history", "modalities")
    vital_signs = (
        VitalSign(
            "plan_focus",
            "1 - entropy of the plan over its maximum",
            0.1,
            "set plan_on=centred, or a smaller transport_reg",
        ),
        VitalSign(
            "movement",
            "spread of a user's mapped factors over that of the factors",
            0.05,
            "set plan_on=centred, or a smaller transport_reg",
        ),
    )
    config: BANDVAEConfig
    watched_starts: Tensor
    watched_items: Tensor

    def __init__(self, config: BANDVAEConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.modality_names = tuple(chosen_modalities(config, view.modalities))
        for name in sorted(config.named_modalities()):
            if name not in self.modality_names:
                raise UnknownName("modality in use", name, self.modality_names)
        size = config.embedding_size
        self.items = FactorEncoder(self.n_items, size, config.side(None))
        self.bags, self.sides, self.gates = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for name in self.modality_names:
            bags = ItemBags(view.modalities[name], view, config)
            self.bags.append(bags)
            self.sides.append(FactorEncoder(bags.width, size, config.side(name)))
        if config.maps and config.fusion == "adaptive":
            n_gates = 1 if config.shared_gate else len(self.modality_names)
            self.gates.extend(Gate(size, config.gate_activation) for _ in range(n_gates))
        self._watch(view)

    def _watch(self, view: TrainView) -> None:
        """Keep the histories of a few users for the diagnostics."""
        users = torch.nonzero(view.user_counts()).flatten()
        some = users[torch.linspace(0, len(users) - 1, min(WATCHED, len(users))).long()]
        history = view.rows().history(some)
        self.register_buffer("watched_starts", history.crow_indices(), persistent=False)
        self.register_buffer("watched_items", history.col_indices(), persistent=False)

    def content_sides(self) -> list[ContentSide]:
        """Bags, encoder and gate of each content modality."""
        found = []
        for at, name in enumerate(self.modality_names):
            gate = self.gates[0 if self.config.shared_gate else at] if len(self.gates) else None
            bags, encoder = self.bags[at], self.sides[at]
            assert isinstance(bags, ItemBags)
            assert isinstance(encoder, FactorEncoder)
            assert gate is None or isinstance(gate, Gate)
            found.append(ContentSide(name, bags, encoder, gate))
        return found

    # -------------------------------------------------------------- the forward pass

    def unit_tables(self) -> dict[str, Tensor]:
        """Unit rows of the item table, under "", and of the tables of words by modality."""
        encoders = [("", self.items), *((side.name, side.encoder) for side in self.content_sides())]
        return {name: normalize(encoder.table, dim=1) for name, encoder in encoders}

    def _bags_of_users(self, history: Tensor, names: tuple[str, ...]) -> dict[str, Bags]:
        """The users' mean bags in the named modalities."""
        sides = [side for side in self.content_sides() if side.name in names]
        return {side.name: side.bags.of_users(history) for side in sides}

    def _factors(
        self,
        history: Tensor,
        tables: Mapping[str, Tensor],
        content: Mapping[str, Bags],
        noise: Noise | None = None,
        align_all: bool = False,
    ) -> AlignedFactors:
        """Factors, plans and fused factors of users.

        Args:
            history: sparse CSR (B, n_items).
            tables: as `unit_tables` returns them.
            content: the users' bags by modality.
            noise: of a training step.
            align_all: compute plans also where no loss and no score uses them.
        """
        config = self.config
        ratings = self.items(Bags.of(history), tables[""], noise and noise.of("ratings"))
        encoded = {
            side.name: side.encoder(
                content[side.name], tables[side.name], noise and noise.of(f"content-{side.name}")
            )
            for side in self.content_sides()
            if side.name in content
        }
        alignments = {
            name: align(
                ratings.factors,
                one.factors,
                kind=config.plan,
                reg=config.transport_reg,
                iterations=config.plan_iterations,
                cost_scale=config.cost_scale,
                plan_gradient=config.plan_gradient,
                plan_on=config.plan_on,
            )
            for name, one in encoded.items()
            if align_all or config.transfer != "none"
        }
        return self._fused(ratings, encoded, alignments)

    def _fused(
        self, ratings: Encoded, content: dict[str, Encoded], alignments: dict[str, Alignment]
    ) -> AlignedFactors:
        """B17, B18 and B23, or a variant."""
        gates: dict[str, tuple[Tensor, Tensor]] = {}
        fused = ratings.factors
        fused_content = {name: one.factors for name, one in content.items()}
        if len(self.gates):
            for side in self.content_sides():
                if side.gate is None or side.name not in alignments:
                    continue
                found, theirs = alignments[side.name], content[side.name].factors
                pair = side.gate(ratings.factors, found.ratings), side.gate(theirs, found.content)
                gates[side.name] = pair
                fused = fused + pair[0] * found.ratings
                fused_content[side.name] = theirs + pair[1] * found.content
        elif self.config.maps and alignments:
            share = 0.5 if self.config.fusion == "mean" else 1.0
            both = {n: share * (a.ratings + a.content) for n, a in alignments.items()}
            fused = torch.stack(list(both.values())).mean(0)
            fused_content = both
        return AlignedFactors(ratings, content, alignments, gates, fused, fused_content)

    # -------------------------------------------------------------- the loss

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """Likelihood and divergence of both sides, and the transport cost; means over users.

        Computed in single precision even under autocast: sparse products have no half precision,
        and cosines over a small temperature need the digits.
        """
        history = batch.histories()
        with torch.autocast(history.device.type, enabled=False):
            return self._loss(history)

    def _loss(self, history: Tensor) -> dict[str, Tensor]:
        config, tables = self.config, self.unit_tables()
        content = self._bags_of_users(history, self._read_in_loss())
        found = self._factors(history, tables, content, self.noise)
        parts = {
            "rating": self._likelihood(found.ratings, found.fused, tables[""], Bags.of(history)),
            "rating_divergence": self._anneal(config.anneal_cap) * found.ratings.divergence.sum(),
        }
        for name, one in found.content.items():
            weight = config.weight("content", name)
            if weight:
                target = self._target(content[name])
                fused, table = found.fused_content[name], tables[name]
                beta = self._anneal(config.content_anneal_cap)
                parts[name] = weight * self._likelihood(one, fused, table, target)
                parts[f"{name}_divergence"] = weight * beta * one.divergence.sum()
            pull = config.weight("transport", name)
            if pull and config.regularises:
                parts[f"{name}_transport"] = pull * found.alignments[name].transport.sum()
        return {name: part / history.shape[0] for name, part in parts.items()}

    def _read_in_loss(self) -> tuple[str, ...]:
        """Modalities that a term of the loss reads."""
        config = self.config
        return tuple(
            name
            for name in self.modality_names
            if config.transfer != "none" or config.weight("content", name)
        )

    def _likelihood(self, one: Encoded, fused: Tensor, table: Tensor, target: Bags) -> Tensor:
        unit, temperature = normalize(fused, dim=2), self.config.decoding_temperature
        return mixture_loss(unit, one.assignment, table, temperature, target)

    def _target(self, bags: Bags) -> Bags:
        if self.config.content_target == "mean":
            return bags
        sums = bags.total(bags.weights).clamp_min(1e-12)
        weights = bags.weights / sums[bags.rows]
        return Bags(bags.rows, bags.columns, weights, bags.starts, bags.width)

    def _anneal(self, cap: float) -> Tensor:
        return annealed(self.updates, self.config.anneal_steps, cap)

    # -------------------------------------------------------------- scoring and looking inside

    def score(self, queries: Queries) -> Tensor:
        """Log-scores of all items from the histories alone, (B, n_items)."""
        history = queries.histories()
        content = self._bags_of_users(history, self.modality_names if self.config.maps else ())
        tables = self.unit_tables()
        found = self._factors(history, tables, content)
        unit, temperature = normalize(found.fused, dim=2), self.config.decoding_temperature
        return mixture_scores(unit, found.ratings.assignment, tables[""], temperature)

    def history_encoder(self) -> HistoryScores:
        """Scores of one history as dense arithmetic, for ONNX."""
        sides = self.content_sides() if self.config.maps else []
        return HistoryScores(self.config, self.items, sides)

    def history_items(self) -> None:
        """None: scores are not products with item vectors."""

    def look(self, history: Tensor) -> AlignedFactors:
        """What scoring computes of users, with the plans of all modalities: no noise, no gradient.

        Args:
            history: sparse CSR (B, n_items).
        """
        content = self._bags_of_users(history, self.modality_names)
        with torch.no_grad():
            return self._factors(history, self.unit_tables(), content, align_all=True)

    def explain(self, history: Tensor, n_items: int = 10, n_words: int = 10) -> Explanation:
        """Best items and words of each factor, plans and gates.

        Args:
            history: sparse CSR (B, n_items).
            n_items: number of best items of a rating factor.
            n_words: number of best words of a content factor.
        """
        found, tables = self.look(history), self.unit_tables()

        def tops(one: Encoded, fused: Tensor, name: str, n: int) -> Tops:
            unit, temperature = normalize(fused, dim=2), self.config.decoding_temperature
            with torch.no_grad():
                return Tops(*mixture_tops(unit, one.assignment, tables[name], temperature, n))

        content = []
        for side in self.content_sides():
            name, gates = side.name, found.gates.get(side.name)
            content.append(
                ContentInterests(
                    name,
                    tops(found.content[name], found.fused_content[name], name, n_words),
                    side.bags.words,
                    side.bags.examples(),
                    found.alignments[name].plan,
                    None if gates is None else gates[0].squeeze(2).detach(),
                    None if gates is None else gates[1].squeeze(2).detach(),
                )
            )
        return Explanation(tops(found.ratings, found.fused, "", n_items), tuple(content))

    def diagnostics(self) -> Mapping[str, float]:
        """How far the two sides have come together, on a few training users.

        For each modality: entropy of the plan in bits, mean and spread (largest minus smallest of
        a user) of the costs, the spread over transport_reg (below 0.1 the plan is nearly
        uniform), mean gates and mean cosine between different factors of a user.
        """
        ones = torch.ones(len(self.watched_items), device=self.watched_items.device)
        shape = (len(self.watched_starts) - 1, self.n_items)
        found = self.look(csr_tensor(self.watched_starts, self.watched_items, ones, shape))
        values = {"rating/factor_cosine": _mean_cosine(found.ratings.factors)}
        for name, one in found.alignments.items():
            cost = one.cost.flatten(1)
            spread = float((cost.amax(1) - cost.amin(1)).mean())
            values |= {
                f"{name}/factor_cosine": _mean_cosine(found.content[name].factors),
                f"{name}/plan_entropy": float(plan_entropy(one.plan).mean()),
                f"{name}/cost": float(cost.mean()),
                f"{name}/cost_spread": spread,
                f"{name}/spread_over_reg": spread / self.config.transport_reg,
                f"alive/plan_focus/{name}": focus(one.plan.flatten(1)),
                f"alive/movement/{name}": relative_spread(one.ratings, found.ratings.factors),
            }
            if name in found.gates:
                of_ratings, of_content = found.gates[name]
                values[f"{name}/rating_gate"] = float(of_ratings.mean())
                values[f"{name}/content_gate"] = float(of_content.mean())
        return values


def _mean_cosine(factors: Tensor) -> float:
    """Mean cosine of pairs of different factors of a user; 1 with a single factor."""
    n = factors.shape[1]
    if n == 1:
        return 1.0
    unit = normalize(factors, dim=2)
    return float(((unit.sum(1).square().sum(1) - n) / (n * (n - 1))).mean())
