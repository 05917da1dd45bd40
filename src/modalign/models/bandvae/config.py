"""The options of BANDVAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from modalign.core.interfaces import MultimodalConfig
from modalign.errors import ConfigError
from modalign.models.bandvae.factors import SideOptions, Through
from modalign.models.bandvae.transport import Activation, CostScale, PlanKind, PlanOn

Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=64)]


class BANDVAEConfig(MultimodalConfig):
    """Options of BANDVAE; the defaults are those of the paper and of the authors' earlier code."""

    embedding_size: Annotated[int, Field(ge=2, le=4096)] = 100
    """Width d of the vector of a factor, an item or a word."""
    batch_size: Annotated[int, Field(ge=1)] = 512
    """Users in a training step."""
    patience: Annotated[int, Field(ge=1)] = 30
    """Stop after this number of evaluations in a row without a better validation metric."""
    select_by: Literal["recall@10", "recall@20", "ndcg@10", "ndcg@20"] = "ndcg@10"
    """The validation metric that selects the best epoch."""
    missing: Literal["zero", "neighbours"] = "zero"
    """An item without the modality is left out of its users' averages (zero), or takes the mean
    of its nearest items (neighbours)."""
    hidden_size: Annotated[int, Field(ge=1, le=8192)] = 300
    """Width of the hidden layer of the encoders; 600 for larger data."""
    n_factors: Count = 4
    """Number K of rating factors of a user; 2 to 8 in the paper."""
    n_content_factors: Count | dict[str, Count] = 4
    """Number J of content factors of a user: one for all modalities, or one per name."""
    rounds: Annotated[int, Field(ge=1, le=16)] = 2
    """Assignments L of items to rating prototypes; all but the last move the prototypes. The
    paper's best are 2 to 4."""
    content_rounds: Annotated[int, Field(ge=1, le=16)] = 1
    """Assignments of words to content prototypes; with 1, the paper's choice, the assignment is
    the same for all users."""
    temperature: Annotated[float, Field(ge=0.025, le=10)] = 0.1
    """Temperature of the assignment to prototypes."""
    decoder_temperature: Annotated[float, Field(ge=0.025, le=10)] | None = None
    """Temperature of the decoders; null uses `temperature`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the entries of a factor that are dropped in training."""
    dropout_in_rounds: bool = True
    """Apply dropout also where prototypes are moved."""
    per_user_noise: bool = False
    """Draw the noise of the first assignment for each user, instead of once per batch."""
    unit_samples: bool = True
    """Scale sampled factors to length 1 before they are aligned."""
    prototype_gradient: Through = "stop"
    """The gradient that the first prototypes receive where they are moved: none, so that they
    stay random (stop), past the moves (straight_through), or through them (full)."""
    raw_updates: bool = False
    """Move prototypes by the item vectors as they are, instead of by vectors of length 1."""
    prior_std: Annotated[float, Field(gt=0, le=10)] = 0.075
    """Standard deviation of the prior of rating factors; 0.05, 0.075 or 0.1 in the paper."""
    content_prior_std: Annotated[float, Field(gt=0, le=10)] = 0.075
    """Standard deviation of the prior of content factors."""
    anneal_steps: Annotated[int, Field(ge=1)] = 5_000
    """Number of updates in which the weights of the divergences would reach 1; the paper's grid
    is 1,000, 5,000, 10,000, 20,000."""
    anneal_cap: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Maximum weight of the divergence of rating factors."""
    content_anneal_cap: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Maximum weight of the divergence of content factors."""
    content_weight: Weight | dict[str, Weight] = 0.5
    """Weight lambda_t of the content likelihood: one for all modalities, or one per name."""
    content_target: Literal["mean", "share"] = "mean"
    """The content likelihood uses a user's mean bag as it is (mean), or scaled to sum 1 (share)."""
    transport_weight: Weight | dict[str, Weight] = 1.0
    """Weight lambda_r of the transport cost: one for all modalities, or one per name."""
    transport_reg: Annotated[float, Field(ge=0.001, le=1000)] = 0.5
    """Strength epsilon of the entropic regularisation of the plan; the paper's best are 0.02 to
    2."""
    plan: PlanKind = "sinkhorn"
    """The plan between factors: entropic transport (sinkhorn), one softmax over all pairs (norm),
    factor k with factor k (diag), or the same mass for all pairs (uniform)."""
    plan_on: PlanOn = "centred"
    """Compute the plan from what distinguishes a user's factors (centred: each minus their mean,
    of length 1), or from the factors as printed, whose plan is nearly uniform."""
    plan_iterations: Annotated[int, Field(ge=1)] = 50
    """Maximum number of Sinkhorn iterations for a plan."""
    plan_gradient: bool = False
    """Let gradients pass through the plan."""
    cost_scale: CostScale = "none"
    """user_std divides a user's costs by their standard deviation, so that transport_reg has the
    same effect for all users."""
    transfer: Literal["both", "mapping", "regulariser", "none"] = "both"
    """The use of the plan: mapped factors are added (mapping), the transport cost is in the loss
    (regulariser), both, or neither."""
    fusion: Literal["adaptive", "mean", "sum"] = "adaptive"
    """Add the mapped factor times a learned gate, or take the mean or the sum of both mapped
    factors."""
    gate_activation: Activation = "tanh"
    """Activation inside the gate network."""
    shared_gate: bool = True
    """Use one gate network for all modalities."""
    codebook: tuple[str, ...] | None = None
    """Modalities that are read through a codebook; null takes those that are not bags of words."""
    codebook_size: Annotated[int, Field(ge=2)] = 512
    """Number of centroids of a codebook, which are the words of such a modality."""
    codebook_centre: bool = True
    """Subtract the mean row of the features before the codebook is made."""
    codebook_neighbours: Annotated[int, Field(ge=1)] = 8
    """Number of centroids of an item."""
    codebook_temperature: Annotated[float, Field(gt=0)] = 0.1
    """Temperature of the weights of an item's centroids."""

    earlier: ClassVar[Mapping[str, Any]] = {"codebook_centre": False}

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

    @property
    def maps(self) -> bool:
        """Whether factors are mapped onto the other side and added."""
        return self.transfer in ("both", "mapping")

    @property
    def regularises(self) -> bool:
        """Whether the transport cost is in the loss."""
        return self.transfer in ("both", "regulariser")

    @property
    def decoding_temperature(self) -> float:
        """`decoder_temperature`, or `temperature` where it is not set."""
        return self.decoder_temperature or self.temperature

    def named_modalities(self) -> set[str]:
        """Modalities that an option names."""
        by_name = (self.n_content_factors, self.content_weight, self.transport_weight)
        named = {name for one in by_name if isinstance(one, dict) for name in one}
        return named | set(self.codebook or ())

    def weight(self, kind: Literal["content", "transport"], modality: str) -> float:
        """`content_weight` or `transport_weight` of a modality."""
        given = self.content_weight if kind == "content" else self.transport_weight
        default = BANDVAEConfig.model_fields[f"{kind}_weight"].default
        return float(given.get(modality, default)) if isinstance(given, dict) else float(given)

    def side(self, modality: str | None) -> SideOptions:
        """Options of the encoder of items (None) or of a modality.

        Raises:
            ConfigError: `n_content_factors` names other modalities but not this one.
        """
        counts = self.n_factors if modality is None else self.n_content_factors
        if isinstance(counts, dict) and modality not in counts:
            raise ConfigError(
                f"a number of factors for every modality in use, including {modality!r}",
                f"n_content_factors={counts}",
                "name every modality, or give one number for all",
            )
        return SideOptions(
            n_factors=counts[str(modality)] if isinstance(counts, dict) else counts,
            rounds=self.rounds if modality is None else self.content_rounds,
            temperature=self.temperature,
            prior_std=self.prior_std if modality is None else self.content_prior_std,
            hidden_size=self.hidden_size,
            dropout=self.dropout,
            dropout_in_rounds=self.dropout_in_rounds,
            per_user_noise=self.per_user_noise,
            unit_samples=self.unit_samples,
            prototype_gradient=self.prototype_gradient,
            raw_updates=self.raw_updates,
        )
