"""BANDVAE: interest factors of ratings and of content, aligned by transport (Tran and Lauw 2025).

The equations B1 to B23 that comments cite are listed in `docs/models/bandvae.md`. A model is one
file: half of this one are its options, each with its bounds and its line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import normalize

from modalign.core import explain
from modalign.core.interfaces import Batch, MultimodalConfig, Queries, chosen_modalities
from modalign.core.modality import Modality
from modalign.core.sparse import csr_tensor, sparse_product
from modalign.core.view import TrainView
from modalign.errors import ConfigError, UnknownName
from modalign.features.codebook import codebook_bags, is_bag, word_bags
from modalign.features.fill import fill
from modalign.models._registry import register
from modalign.models._shared.variational import Noise, Variational
from modalign.models.bandvae.decoder import mixture_loss, mixture_scores, mixture_tops
from modalign.models.bandvae.factors import Encoded, FactorEncoder, SideOptions, Through
from modalign.models.bandvae.onnx import HistoryScores
from modalign.models.bandvae.transport import Activation, Alignment, CostScale, Gate, Plan, align
from modalign.nn.bags import Bags
from modalign.nn.losses.vae import annealed

WATCHED = 256
"""Users, evenly spaced, on whom the diagnostics of an epoch are measured."""

Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=64)]


class BANDVAEConfig(MultimodalConfig):
    """Options of BANDVAE; the defaults are those of the paper and of the code before it."""

    embedding_size: Annotated[int, Field(ge=2, le=4096)] = 100
    """Width d of a factor, an item and a word."""
    batch_size: Annotated[int, Field(ge=1)] = 512
    """Users in a step."""
    patience: Annotated[int, Field(ge=1)] = 30
    """Stop after so many evaluations in a row without a better validation metric."""
    select_by: Literal["recall@10", "recall@20", "ndcg@10", "ndcg@20"] = "ndcg@10"
    """The validation metric that picks the best epoch."""
    missing: Literal["zero", "neighbours"] = "zero"
    """An item without the modality is left out of the averages of its users, or is given the mean
    of its nearest items."""
    hidden_size: Annotated[int, Field(ge=1, le=8192)] = 300
    """Width of the hidden layer of the encoders; 600 for larger data."""
    n_factors: Count = 4
    """Rating factors of a user, K."""
    n_content_factors: Count | dict[str, Count] = 4
    """Content factors of a user, J: for all modalities, or by name."""
    rounds: Annotated[int, Field(ge=1, le=16)] = 2
    """Assignments of items to rating prototypes; all but the last move the prototypes."""
    content_rounds: Annotated[int, Field(ge=1, le=16)] = 1
    """The same of words to content prototypes; with 1 they are alike for all users."""
    temperature: Annotated[float, Field(ge=0.025, le=10)] = 0.1
    """Of the assignment to prototypes."""
    decoder_temperature: Annotated[float, Field(ge=0.025, le=10)] | None = None
    """Of the decoders; None: the same."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the entries of a factor that training does not see."""
    dropout_in_rounds: bool = True
    """Also while prototypes are moved."""
    per_user_noise: bool = False
    """Noise of a user's own in the first assignment, not one draw for the batch."""
    unit_samples: bool = True
    """Scale drawn factors to length 1 before they are aligned."""
    prototype_gradient: Through = "stop"
    """What reaches the first prototypes where they are moved: nothing (they stay random), the
    gradient past the moves, or through them."""
    raw_updates: bool = False
    """Move prototypes by item vectors as they are, not scaled to length 1."""
    prior_std: Annotated[float, Field(gt=0, le=10)] = 0.075
    """Standard deviation of the prior of rating factors."""
    content_prior_std: Annotated[float, Field(gt=0, le=10)] = 0.075
    """Standard deviation of the prior of content factors."""
    anneal_steps: Annotated[int, Field(ge=1)] = 5_000
    """Updates in which the weights of the divergences would reach 1; the paper's grid is 1,000,
    5,000, 10,000, 20,000."""
    anneal_cap: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Largest weight of the divergence of rating factors."""
    content_anneal_cap: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Largest weight of the divergence of content factors."""
    content_weight: Weight | dict[str, Weight] = 0.5
    """Weight of the content likelihood, lambda_t: for all modalities, or by name."""
    content_target: Literal["mean", "share"] = "mean"
    """The content likelihood counts a user's mean bag as it is, or scaled to sum 1."""
    transport_weight: Weight | dict[str, Weight] = 1.0
    """Weight of the transport regulariser, lambda_r: for all modalities, or by name."""
    transport_reg: Annotated[float, Field(ge=0.001, le=1000)] = 1.0
    """Strength of the entropy of the plan, epsilon; 0.02 to 2 in the paper."""
    plan: Plan = "sinkhorn"
    """The plan between factors: entropic transport, one softmax over all pairs, or k with k."""
    plan_iterations: Annotated[int, Field(ge=1)] = 50
    """Most sweeps of the entropic solver."""
    plan_gradient: bool = False
    """Let gradients pass through the plan."""
    cost_scale: CostScale = "none"
    """Divide a user's costs by their standard deviation before transport_reg applies."""
    transfer: Literal["both", "mapping", "regulariser", "none"] = "both"
    """What the plan is used for: mapped factors are added, factors are drawn together, both."""
    fusion: Literal["adaptive", "mean", "sum"] = "adaptive"
    """Add the mapped factor times its gate, or take the mean or sum of both mapped factors."""
    gate_activation: Activation = "tanh"
    """Inside the network of the gates."""
    shared_gate: bool = True
    """One network of gates for all modalities."""
    codebook: tuple[str, ...] | None = None
    """Modalities to be read through a codebook; None: those that are not bags of words already."""
    codebook_size: Annotated[int, Field(ge=2)] = 512
    """Centroids of a codebook, the words of a modality that has none."""
    codebook_neighbours: Annotated[int, Field(ge=1)] = 8
    """Centroids of an item."""
    codebook_temperature: Annotated[float, Field(gt=0)] = 0.1
    """Of the weights of its centroids."""

    @model_validator(mode="after")
    def _pairs_need_equal_counts(self) -> BANDVAEConfig:
        paired = [self.plan == "diag" and "plan=diag", self.fusion != "adaptive" and "fusion"]
        names = [name for name in paired if name]
        counts = self.n_content_factors
        several = set(counts.values()) if isinstance(counts, dict) else {counts}
        if names and several != {self.n_factors}:
            raise ValueError(
                f"{' and '.join(names)} pairs factor k with factor k: n_factors and "
                f"n_content_factors must be equal; got {self.n_factors} and {counts}"
            )
        return self


@dataclass(frozen=True)
class Interests:
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
    items give J content factors likewise. A transport plan between the two sets tells which
    interest is which: it draws matching factors together, and maps each side onto the other; the
    mapped factors are added with a learnt gate. A mixture over factors decodes items (and words).

    Nothing belongs to a user: everything is computed from a history, so people that training
    never saw are scored like any other. Modalities without words are read through a codebook.

    Limits:
        Each step scores all items for each factor, `B n_items K d` products; blocks bound the
        memory. With transport_reg of 1 or more the plan is nearly uniform, as in the paper's own
        tables: watch `spread_over_reg` in the log.

    Example:
        >>> from modalign.testing.toy import toy_dataset
        >>> config = BANDVAEConfig(embedding_size=8, hidden_size=16, codebook_size=8)
        >>> model = BANDVAE(config, toy_dataset().view())
        >>> {name: side.table.shape[0] for name, side in model.content_sides()}
        {'image': 8, 'text': 8}
    """

    needs = ("history", "modalities")
    config: BANDVAEConfig
    watched_starts: Tensor
    watched_items: Tensor

    def __init__(self, config: BANDVAEConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.modality_names = tuple(chosen_modalities(config, view.modalities))
        for name in (*_named(config), *(config.codebook or ())):
            if name not in self.modality_names:
                raise UnknownName("modality in use", name, self.modality_names)
        self.words: dict[str, tuple[str, ...] | None] = {}
        size = config.embedding_size
        self.items = FactorEncoder(self.n_items, size, _side(config, None))
        self.sides = nn.ModuleList()
        for name in self.modality_names:
            bags = self._keep_bags(name, view)
            self.sides.append(FactorEncoder(bags.shape[1], size, _side(config, name)))
        self.gates = nn.ModuleList()
        if self.maps and config.fusion == "adaptive":
            n_gates = 1 if config.shared_gate else len(self.modality_names)
            self.gates.extend(Gate(size, config.gate_activation) for _ in range(n_gates))
        self._watch(view)

    # -------------------------------------------------------------- what is made of the data

    def _keep_bags(self, name: str, view: TrainView) -> sp.csr_array:
        """Bags of all items, as buffers, and whether an item has one."""
        modality, config = view.modalities[name], self.config
        coded = not is_bag(modality) if config.codebook is None else name in config.codebook
        present = torch.from_numpy(modality.present.copy())
        filled = fill(modality, "neighbours", view) if config.missing == "neighbours" else None
        if filled is not None:
            present = torch.ones_like(present)
        if coded:
            source = modality if filled is None else Modality(name, filled, present.numpy())
            bags = codebook_bags(
                source,
                config.codebook_size,
                config.codebook_neighbours,
                config.codebook_temperature,
            )
        else:
            bags = word_bags(modality, filled)
        known = tuple(modality.provenance.get("words", ()))
        self.words[name] = known if not coded and len(known) == bags.shape[1] else None
        for part, value in (
            ("starts", torch.from_numpy(bags.indptr.astype(np.int64))),
            ("columns", torch.from_numpy(bags.indices.astype(np.int64))),
            ("weights", torch.from_numpy(bags.data.astype(np.float32))),
            ("present", present.float()),
        ):
            self.register_buffer(self._buffer(name, part), value, persistent=False)
        return bags

    def _buffer(self, name: str, part: str) -> str:
        # By number: the name of a modality may be none for a buffer.
        return f"bag_{self.modality_names.index(name)}_{part}"

    def item_bags(self, name: str) -> Tensor:
        """Bags of all items in a modality, sparse CSR (n_items, n_words)."""
        width = len(dict(self.content_sides())[name].table)
        starts, columns, weights = (
            self.get_buffer(self._buffer(name, part)) for part in ("starts", "columns", "weights")
        )
        return csr_tensor(starts, columns, weights, (self.n_items, width))

    def _watch(self, view: TrainView) -> None:
        """Keep the histories of a few users for the diagnostics."""
        users = torch.nonzero(view.user_counts()).flatten()
        some = users[torch.linspace(0, len(users) - 1, min(WATCHED, len(users))).long()]
        history = view.rows().history(some)
        self.register_buffer("watched_starts", history.crow_indices(), persistent=False)
        self.register_buffer("watched_items", history.col_indices(), persistent=False)

    def content_sides(self) -> list[tuple[str, FactorEncoder]]:
        """The encoder of each content modality, by name."""
        found = []
        for name, side in zip(self.modality_names, self.sides, strict=True):
            assert isinstance(side, FactorEncoder)
            found.append((name, side))
        return found

    # -------------------------------------------------------------- the forward pass

    @property
    def maps(self) -> bool:
        """Whether factors are mapped onto the other side and added."""
        return self.config.transfer in ("both", "mapping")

    @property
    def t(self) -> float:
        """Temperature of the decoders."""
        config = self.config
        return config.decoder_temperature or config.temperature

    def content_of(self, name: str, history: Tensor) -> Bags:
        """Mean bag of the users' items that have the modality (B1), and no row of the others."""
        present = self.get_buffer(self._buffer(name, "present"))
        total = Bags.of(sparse_product(history, self.item_bags(name)))
        counts = (history @ present.unsqueeze(1)).squeeze(1).clamp_min(1.0)
        return Bags(
            total.rows, total.columns, total.weights / counts[total.rows], total.starts, total.width
        )

    def interests(
        self,
        history: Tensor,
        tables: Mapping[str, Tensor],
        content: Mapping[str, Bags],
        noise: Noise | None = None,
        align_all: bool = False,
    ) -> Interests:
        """Factors, plans and fused factors of users.

        Args:
            history: sparse CSR (B, n_items).
            tables: unit rows, of items under "" and of each modality, as `unit_tables`.
            content: the users' bags by modality.
            noise: of a training step.
            align_all: compute plans where nothing is trained by them too.
        """
        config = self.config
        ratings = self.items(Bags.of(history), tables[""], noise and noise.of("ratings"))
        encoded = {
            name: side(content[name], tables[name], noise and noise.of(f"content-{name}"))
            for name, side in self.content_sides()
            if name in content
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
            )
            for name, one in encoded.items()
            if align_all or config.transfer != "none"
        }
        return self._fuse(ratings, encoded, alignments)

    def _fuse(
        self, ratings: Encoded, content: dict[str, Encoded], alignments: dict[str, Alignment]
    ) -> Interests:
        """B17, B18 and B23, or a variant."""
        gates: dict[str, tuple[Tensor, Tensor]] = {}
        fused = ratings.factors
        fused_content = {name: one.factors for name, one in content.items()}
        if self.maps and self.config.fusion == "adaptive":
            for name, found in alignments.items():
                gate = self.gate_of(name)
                theirs = content[name].factors
                pair = gate(ratings.factors, found.ratings), gate(theirs, found.content)
                gates[name] = pair
                fused = fused + pair[0] * found.ratings
                fused_content[name] = theirs + pair[1] * found.content
        elif self.maps and alignments:
            share = 0.5 if self.config.fusion == "mean" else 1.0
            both = {n: share * (a.ratings + a.content) for n, a in alignments.items()}
            fused = torch.stack(list(both.values())).mean(0)
            fused_content = both
        return Interests(ratings, content, alignments, gates, fused, fused_content)

    def presence_of(self, name: str) -> Tensor:
        """Which items have a modality, as 1 and 0, (n_items,)."""
        return self.get_buffer(self._buffer(name, "present"))

    def gate_of(self, name: str) -> Gate:
        """The network of a modality's gates."""
        gate = self.gates[0 if self.config.shared_gate else self.modality_names.index(name)]
        assert isinstance(gate, Gate)
        return gate

    def unit_tables(self) -> dict[str, Tensor]:
        """Unit rows of the item table, under "", and of the tables of words by modality."""
        sides = [("", self.items), *self.content_sides()]
        return {name: normalize(side.table, dim=1) for name, side in sides}

    def _weight(self, kind: Literal["content", "transport"], name: str) -> float:
        given = self.config.content_weight if kind == "content" else self.config.transport_weight
        default = BANDVAEConfig.model_fields[f"{kind}_weight"].default
        return float(given.get(name, default)) if isinstance(given, dict) else float(given)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """Likelihood and divergence of either side, and the transport cost, means over users.

        In single precision always: sparse products have no half precision, and cosines over a
        small temperature need the digits.
        """
        history = self.history_of(batch)
        with torch.autocast(history.device.type, enabled=False):
            return self._loss(history)

    def _loss(self, history: Tensor) -> dict[str, Tensor]:
        n_users = history.shape[0]
        tables = self.unit_tables()
        content = {n: self.content_of(n, history) for n in self._read_in_loss()}
        found = self.interests(history, tables, content, self.noise)
        parts = {
            "rating": self._likelihood(found.ratings, found.fused, tables[""], Bags.of(history)),
            "rating_divergence": self._anneal(self.config.anneal_cap)
            * found.ratings.divergence.sum(),
        }
        for name, one in found.content.items():
            weight = self._weight("content", name)
            if weight:
                target = self._target(content[name])
                fused, table = found.fused_content[name], tables[name]
                beta = self._anneal(self.config.content_anneal_cap)
                parts[name] = weight * self._likelihood(one, fused, table, target)
                parts[f"{name}_divergence"] = weight * beta * one.divergence.sum()
            pull = self._weight("transport", name)
            if pull and self.config.transfer in ("both", "regulariser"):
                parts[f"{name}_transport"] = pull * found.alignments[name].transport.sum()
        return {name: part / n_users for name, part in parts.items()}

    def _read_in_loss(self) -> list[str]:
        """Modalities that a term of the loss reads."""
        if self.config.transfer != "none":
            return list(self.modality_names)
        return [name for name in self.modality_names if self._weight("content", name)]

    def _likelihood(self, one: Encoded, fused: Tensor, table: Tensor, target: Bags) -> Tensor:
        return mixture_loss(normalize(fused, dim=2), one.assignment, table, self.t, target)

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
        history = self.history_of(queries)
        names = self.modality_names if self.maps else ()
        content = {name: self.content_of(name, history) for name in names}
        tables = self.unit_tables()
        found = self.interests(history, tables, content)
        return mixture_scores(
            normalize(found.fused, dim=2), found.ratings.assignment, tables[""], self.t
        )

    def history_encoder(self) -> HistoryScores:
        """Scores of one history as dense arithmetic, for ONNX."""
        return HistoryScores(self)

    def history_items(self) -> None:
        """None: scores are no products with item vectors."""

    def look(self, history: Tensor) -> Interests:
        """What scoring sees of users, the plans included: no noise, no gradient.

        Args:
            history: sparse CSR (B, n_items).
        """
        content = {name: self.content_of(name, history) for name in self.modality_names}
        with torch.no_grad():
            return self.interests(history, self.unit_tables(), content, align_all=True)

    def explain(self, history: Tensor, n_items: int = 10, n_words: int = 10) -> explain.Interests:
        """Best items and words of each factor, plans and gates; see `modalign.core.explain`."""
        found, tables = self.look(history), self.unit_tables()

        def tops(one: Encoded, fused: Tensor, name: str, n: int) -> explain.Tops:
            with torch.no_grad():
                unit = normalize(fused, dim=2)
                return explain.Tops(*mixture_tops(unit, one.assignment, tables[name], self.t, n))

        content = []
        for name, one in found.content.items():
            gates = found.gates.get(name)
            content.append(
                explain.ContentInterests(
                    name,
                    tops(one, found.fused_content[name], name, n_words),
                    self.words[name],
                    self._examples(name),
                    found.alignments[name].plan,
                    None if gates is None else gates[0].squeeze(2).detach(),
                    None if gates is None else gates[1].squeeze(2).detach(),
                )
            )
        return explain.Interests(tops(found.ratings, found.fused, "", n_items), tuple(content))

    def _examples(self, name: str) -> Tensor:
        """The item with the largest weight in each column of the item bags, (n_words,)."""
        bags = Bags.of(self.item_bags(name))
        # By column, then by weight: the last entry of a column is its best.
        order = torch.argsort(bags.weights, stable=True)
        order = order[torch.argsort(bags.columns[order], stable=True)]
        counts = torch.bincount(bags.columns, minlength=bags.width)
        last = (counts.cumsum(0) - 1).clamp_min(0)
        return bags.rows[order[last]]

    def diagnostics(self) -> Mapping[str, float]:
        """How far the two sides have come together, on a few training users.

        For each modality: entropy of the plan in bits, mean and spread (largest minus smallest of
        a user) of the costs, the spread over transport_reg (below 0.1 the plan says nothing),
        mean gates and mean cosine between different factors of a user.
        """
        ones = torch.ones(len(self.watched_items), device=self.watched_items.device)
        shape = (len(self.watched_starts) - 1, self.n_items)
        found = self.look(csr_tensor(self.watched_starts, self.watched_items, ones, shape))
        told = {"rating/factor_cosine": _mean_cosine(found.ratings.factors)}
        for name, one in found.alignments.items():
            cost = one.cost.flatten(1)
            spread = float((cost.amax(1) - cost.amin(1)).mean())
            told |= {
                f"{name}/factor_cosine": _mean_cosine(found.content[name].factors),
                f"{name}/plan_entropy": float(explain.plan_entropy(one.plan).mean()),
                f"{name}/cost": float(cost.mean()),
                f"{name}/cost_spread": spread,
                f"{name}/spread_over_reg": spread / self.config.transport_reg,
            }
            if name in found.gates:
                of_ratings, of_content = found.gates[name]
                told[f"{name}/rating_gate"] = float(of_ratings.mean())
                told[f"{name}/content_gate"] = float(of_content.mean())
        return told


def _named(config: BANDVAEConfig) -> set[str]:
    """Modalities that options by name speak of."""
    given = (config.n_content_factors, config.content_weight, config.transport_weight)
    return {name for one in given if isinstance(one, dict) for name in one}


def _side(config: BANDVAEConfig, modality: str | None) -> SideOptions:
    """Options of the encoder of items (None) or of a modality."""
    counts = config.n_content_factors
    if modality is None:
        n_factors = config.n_factors
    elif isinstance(counts, int):
        n_factors = counts
    elif modality in counts:
        n_factors = counts[modality]
    else:
        raise ConfigError(
            f"a number of factors for each modality in n_content_factors, {modality} too",
            str(counts),
            "name every modality, or give one number for all",
        )
    return SideOptions(
        n_factors=n_factors,
        rounds=config.rounds if modality is None else config.content_rounds,
        temperature=config.temperature,
        prior_std=config.prior_std if modality is None else config.content_prior_std,
        hidden_size=config.hidden_size,
        dropout=config.dropout,
        dropout_in_rounds=config.dropout_in_rounds,
        per_user_noise=config.per_user_noise,
        unit_samples=config.unit_samples,
        prototype_gradient=config.prototype_gradient,
        raw_updates=config.raw_updates,
    )


def _mean_cosine(factors: Tensor) -> float:
    """Mean cosine of pairs of different factors of a user; 1 with a single factor."""
    n = factors.shape[1]
    if n == 1:
        return 1.0
    unit = normalize(factors, dim=2)
    return float(((unit.sum(1).square().sum(1) - n) / (n * (n - 1))).mean())
