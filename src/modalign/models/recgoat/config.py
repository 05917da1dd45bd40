"""The options of RecGOAT and its two presets; decisions E1 to E29 are told in the docs page."""

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
    "weight_floor": 0.0,
    "weights": "free",
    "transport_weight": 0.0,
}
"""What preset="reference" sets where nothing else is said: the released code for amazon-baby."""

Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
OwnFeatures = Literal["history_mean", "file", "random", "none"]
Plan = Literal["sinkhorn", "released", "identity", "none"]
Distance = Literal["plan", "divergence", "sliced"]


class RecGOATConfig(MultimodalConfig):
    """Options of RecGOAT."""

    preset: Literal["library", "reference"] = "library"
    """The method, or the released code with its oddities; whatever else is set goes before."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.005
    """Step size of the optimizer; the released 0.0008 stops too early on small data."""
    epochs: Annotated[int, Field(ge=0)] = 500
    """Most passes over the training data."""
    patience: Count = 10
    """Stop after so many evaluations in a row without a better validation Recall@20."""
    n_layers: Annotated[int, Field(ge=0, le=8)] = 3
    """Steps of propagation between users and items."""
    n_attention_layers: Annotated[int, Field(ge=0, le=4)] = 1
    """Layers of attention over the graphs of items and of users."""
    n_heads: Annotated[int, Field(ge=1, le=256)] = 8
    """Heads of the attention; they divide the embedding size."""
    k: Annotated[int, Field(ge=1, le=1000)] = 20
    """Nearest items of an item in each modality, itself not among them; 30 for amazon-sports."""
    k_users: Annotated[int, Field(ge=1, le=1000)] = 20
    """Nearest users of a user by preference."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share dropped of the attention's inputs, shares and results, and of the fused vectors."""
    item_graph: bool = True
    """Let items listen to items alike; otherwise only to themselves."""
    user_graph: bool = True
    """Let users listen to users of like preference; otherwise only to themselves."""
    centre: bool = True
    """Take the mean away from features before they are compared or read: embeddings of sentences
    share a large common part."""
    standardise: bool = True
    """Bring each column of a modality's vectors to mean 0 and deviation 1 over the anchors: the
    plan compares columns so, and what all items share would otherwise drown the rest."""
    weigh_edges: bool = False
    """Let the attention follow the cosine of the features at both ends too."""
    user_item: Literal["light", "attentive"] = "light"
    """Propagate between users and items as LightGCN, or by attention."""
    modal_users: bool = False
    """Average into the users what their items say in each modality."""
    content: bool = True
    """Read the items' features; without, items are their propagated ids."""
    feature_rank: FeatureRank = "auto"
    """Columns of the features: "exact" rotates them to their rank, "auto" does so where there
    are more columns than items, a number truncates, null keeps them. Graphs use them all."""
    preference: OwnFeatures = "history_mean"
    """What is known of users: the mean of their items' features, a modality of users in the
    data, random numbers, or nothing (their ids alone)."""
    preference_modality: str = "preference"
    """Name of the modality of users that preference=file reads."""
    user_start: Literal["preference", "random"] = "preference"
    """Users' free vectors start as principal components of their preferences, or at random."""
    preference_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the preference in a user's vector at the start (it is learnt)."""
    contrast_weight: Weight = 0.03
    """Weight of the contrasts; worth trying 0.005 to 0.1."""
    modality_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the contrast between modalities; the rest is that of users with items."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Temperature of the contrasts."""
    contrast_sign: Literal["attract", "repel"] = "attract"
    """Draw an item's vectors of two modalities together, or (the released code) apart."""
    contrast_views: Literal["unique", "pairs"] = "unique"
    """Contrast each item of the batch once, or positives and negatives as they come."""
    contrast_symmetric: bool = False
    """Contrast modalities in both directions."""
    contrast_rows: Annotated[int, Field(ge=2)] = 2048
    """Most rows in a contrast; a larger batch is drawn from."""
    mask_known: bool = False
    """Leave a user's other training items out of the contrast of users with items."""
    fusion: Literal["oat", "sum", "concat"] = "oat"
    """Align the modalities by transport and weigh them, or add or join them as they are."""
    oat_map: Literal["feature", "sample"] = "feature"
    """Transport features of a modality to features of the ids, or items to items."""
    plan: Plan = "sinkhorn"
    """The plan between features: by transport, as the released code computes it (it vanishes),
    feature q to feature q, or none."""
    adapt: Literal["zero", "xavier", "none"] = "zero"
    """What the trained matrix beside the plan starts from; none leaves it out."""
    scale_plan: bool = True
    """Multiply the plan by the number of features, so that its columns sum to one."""
    match_scale: bool = True
    """Bring aligned vectors, and with fusion="sum" or "concat" the raw ones, to the size of the id
    vectors."""
    scale_gradient: bool = True
    """Differentiate the size of the aligned vectors. As a constant, it lets the trained matrix
    grow until it cancels the plan."""
    cost_power: Literal[1, 2] = 2
    """Distance of two features: mean of absolute or of squared differences."""
    plan_reg: Annotated[float, Field(gt=0)] = 0.25
    """Entropic regularisation of the plan, the cost having mean 0 and deviation 1."""
    plan_iterations: Count = 100
    """Most sweeps for a plan; each starts from the last plan."""
    plan_every: Count | Literal["auto"] = "auto"
    """Steps between two plans; auto: 1 up to an embedding size of 128, 10 above."""
    plan_average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the last plan in the next."""
    anchors: Annotated[int, Field(ge=2)] = 2048
    """Fixed items (and users) on which plans and sizes are measured, at most."""
    transport_weight: Weight = 0.05
    """Weight of the distances between aligned and id vectors; worth trying 0.01 to 0.5."""
    distance: Distance = "plan"
    """Mean cost of an entropic plan, its debiased divergence, or the sliced distance."""
    distance_rows: Annotated[int, Field(ge=2, le=4096)] = 256
    """Items (and users) of a batch on which the distance is measured."""
    distance_reg: Annotated[float, Field(gt=0)] = 0.05
    """Entropic regularisation of the distance, as a share of the mean cost."""
    distance_side: Literal["modality", "both"] = "modality"
    """Move the aligned vectors alone towards the ids, or both."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs before the distance has a weight."""
    weights: Literal["softmax", "free", "per_item", "equal"] = "softmax"
    """Weights of the id and the modalities in an item: learnt and summing to one, free numbers
    of the modalities (the id has what is left of one), by a gate for each item, or equal."""
    weight_floor: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """Minimum weight of the id and of each modality, for softmax and per_item weights."""
    reg: Weight = 1e-4
    """Weight of the squared free vectors of the batch."""

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
        """Modalities are aligned before they are fused."""
        return self.fusion == "oat"

    @property
    def steps_between_plans(self) -> int:
        """`plan_every` as a number."""
        if self.plan_every == "auto":
            return 1 if self.embedding_size <= 128 else 10
        return self.plan_every
