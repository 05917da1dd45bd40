"""The options of RecGOAT and its two presets; `docs/models/recgoat.md` lists E1 to E29."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from modalign.core.interfaces import MultimodalConfig
from modalign.models._shared.feature_rank import FeatureRank

REFERENCE: Mapping[str, Any] = {
    "batch_size": 4096,
    "epochs": 1000,
    "learning_rate": 8e-4,
    "preference": "none",
    "user_start": "random",
    "centre": False,
    "standardise": False,
    "contrast_weight": 0.032,
    "contrast_sign": "repel",
    "contrast_views": "pairs",
    "plan": "released",
    "adapt": "xavier",
    "scale_plan": False,
    "match_scale": False,
    "scale_gradient": False,
    "delta_reg": 0.0,
    "weight_floor": 0.0,
    "weights": "free",
    "transport_weight": 0.0,
}
"""Options of preset="reference": the released code for amazon-baby. Options that are set win."""

Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
OwnFeatures = Literal["history_mean", "file", "random", "none"]
Plan = Literal["sinkhorn", "released", "identity", "none"]
Distance = Literal["plan", "divergence", "sliced"]


class RecGOATConfig(MultimodalConfig):
    """Options of RecGOAT."""

    preset: Literal["library", "reference"] = "library"
    """The method, or the released code with its deviations; options that are set win."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.005
    """Learning rate of the optimizer; the released 0.0008 stops too early on small data."""
    epochs: Annotated[int, Field(ge=0)] = 500
    """Maximum number of epochs."""
    patience: Count = 10
    """Stop after this number of evaluations in a row without a better validation metric."""
    n_layers: Annotated[int, Field(ge=0, le=8)] = 3
    """Number of propagation steps between users and items."""
    n_attention_layers: Annotated[int, Field(ge=0, le=4)] = 1
    """Number of attention layers over the graphs of items and of users."""
    n_heads: Annotated[int, Field(ge=1, le=256)] = 8
    """Number of attention heads; must divide the embedding size."""
    k: Annotated[int, Field(ge=1, le=1000)] = 20
    """Number of nearest items of an item in each modality, itself excluded; 30 for
    amazon-sports."""
    k_users: Annotated[int, Field(ge=1, le=1000)] = 20
    """Number of nearest users of a user by preference."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout of the attention's inputs, weights and results, and of the fused vectors."""
    item_graph: bool = True
    """Let items attend to similar items; otherwise each attends only to itself."""
    user_graph: bool = True
    """Let users attend to users with similar preferences; otherwise each attends only to itself."""
    centre: bool = True
    """Subtract the mean from the features before they are compared or projected: sentence
    embeddings share a large common part."""
    standardise: bool = True
    """Scale each column of a modality's vectors to mean 0 and standard deviation 1 over the
    anchors, as the plan compares them; otherwise the part that all items share dominates."""
    weigh_edges: bool = False
    """Weight the attention also by the cosine of the features at both ends of an edge."""
    user_item: Literal["light", "attentive"] = "light"
    """Propagate between users and items as LightGCN does (light), or by attention (attentive)."""
    modal_users: bool = False
    """Average the mean of a user's items in each modality into the user's vector."""
    content: bool = True
    """Read the items' features; if false, items are their propagated ids."""
    feature_rank: FeatureRank = "auto"
    """Columns of the features: exact rotates them to their rank, auto does so where there are more
    columns than items, a number truncates, null keeps them. Graphs use all columns."""
    preference: OwnFeatures = "history_mean"
    """Source of the users' preferences: the mean of their items' features (history_mean), a
    modality of users in the data (file), random numbers (random), or none."""
    preference_modality: str = "preference"
    """Name of the modality of users that preference=file reads."""
    user_start: Literal["preference", "random"] = "preference"
    """Start users' free vectors as principal components of their preferences, or at random."""
    preference_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Initial share of the preference in a user's vector; it is trained."""
    contrast_weight: Weight = 0.03
    """Weight of the contrasts; try 0.005 to 0.1."""
    modality_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the contrast between modalities; the rest is the contrast of users with items."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Temperature of the contrasts."""
    contrast_sign: Literal["attract", "repel"] = "attract"
    """Draw an item's vectors of two modalities together (attract), or, as the released code,
    apart."""
    contrast_views: Literal["unique", "pairs"] = "unique"
    """Contrast each item of the batch once (unique), or all positives and negatives (pairs)."""
    contrast_symmetric: bool = False
    """Contrast modalities in both directions."""
    contrast_rows: Annotated[int, Field(ge=2)] = 2048
    """Maximum number of rows in a contrast; of a larger batch a sample is drawn."""
    mask_known: bool = False
    """Leave a user's other training items out of the contrast of users with items."""
    fusion: Literal["oat", "sum", "concat"] = "oat"
    """Align the modalities by transport and take a weighted sum (oat), or pass the sum (sum) or
    all vectors side by side (concat) through a linear map."""
    oat_map: Literal["feature", "sample"] = "feature"
    """Transport features of a modality to features of the ids (feature), or items to items
    (sample)."""
    plan: Plan = "sinkhorn"
    """The plan between features: entropic transport (sinkhorn), as the released code computes it,
    where it vanishes (released), feature q to feature q (identity), or none."""
    adapt: Literal["zero", "xavier", "none"] = "zero"
    """Initial values of the trained matrix that is added to the plan; none leaves it out."""
    scale_plan: bool = True
    """Multiply the plan by the number of features, so that its columns sum to one."""
    match_scale: bool = True
    """Scale aligned vectors, and with fusion=sum or concat the raw ones, to the size of the id
    vectors."""
    scale_gradient: bool = True
    """Differentiate the size of the aligned vectors. As a constant, it lets the trained matrix
    grow until it cancels the plan."""
    cost_power: Literal[1, 2] = 2
    """Distance of two features: mean of absolute (1) or squared (2) differences."""
    plan_reg: Annotated[float, Field(gt=0)] = 0.25
    """Entropic regularisation of the plan, whose cost has mean 0 and standard deviation 1."""
    plan_iterations: Count = 100
    """Maximum number of Sinkhorn iterations for a plan, which starts from the last plan."""
    plan_every: Count | Literal["auto"] = "auto"
    """Training steps between two plans; auto: 1 up to an embedding size of 128, 10 above."""
    plan_average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the last plan in the next one."""
    anchors: Annotated[int, Field(ge=2)] = 2048
    """Maximum number of fixed items (and users) on which plans and sizes are measured."""
    transport_weight: Weight = 0.05
    """Weight of the distances between aligned and id vectors; try 0.01 to 0.5."""
    distance: Distance = "plan"
    """Mean cost of an entropic plan (plan), debiased divergence, or sliced distance."""
    distance_rows: Annotated[int, Field(ge=2, le=4096)] = 256
    """Maximum number of items (and users) of a batch on which the distance is measured."""
    distance_reg: Annotated[float, Field(gt=0)] = 0.05
    """Entropic regularisation of the distance, as a share of the mean cost."""
    distance_side: Literal["modality", "both"] = "modality"
    """Send the gradient to the aligned vectors only (modality), or also to the ids (both)."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Number of epochs in which the distance is not in the loss."""
    weights: Literal["softmax", "free", "per_item", "equal"] = "softmax"
    """Weights of the id and the modalities in an item: learned and summing to one (softmax), free
    numbers of the modalities with the rest for the id (free), by a gate (per_item), or equal."""
    weight_floor: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """Minimum weight of the id and of each modality, for softmax and per_item weights."""
    reg: Weight = 1e-4
    """Weight of the squared free vectors of the batch."""
    delta_reg: Weight = 1e-2
    """Weight of the squared trained matrices that are added to the plans. Without it they outgrow
    the plans along one direction, onto which all mapped vectors then fall."""

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("preset") == "reference":
            return {**REFERENCE, **data}
        return data

    @model_validator(mode="after")
    def _heads_divide(self) -> RecGOATConfig:
        if self.embedding_size % self.n_heads:
            raise ValueError(
                f"n_heads must divide embedding_size; got {self.n_heads} and {self.embedding_size}"
            )
        return self

    @model_validator(mode="after")
    def _something_maps(self) -> RecGOATConfig:
        if self.plan == "none" and self.adapt != "xavier":
            raise ValueError(
                "without a plan the trained matrix must not start at zero; set adapt=xavier"
            )
        return self

    @property
    def transports(self) -> bool:
        """Whether modalities are aligned before they are fused."""
        return self.fusion == "oat"

    @property
    def steps_between_plans(self) -> int:
        """`plan_every` as a number."""
        if self.plan_every == "auto":
            return 1 if self.embedding_size <= 128 else 10
        return self.plan_every
