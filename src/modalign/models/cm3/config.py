"""The options of CM3."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from modalign.core.interfaces import MultimodalConfig

Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class CM3Config(MultimodalConfig):
    """Options of CM3; the defaults are those of the paper and its code."""

    embedding_size: Annotated[int, Field(ge=2, le=4096)] = 64
    """Width of one segment; a vector has one segment per modality and one for their fusion."""
    epochs: Annotated[int, Field(ge=0)] = 100
    """Maximum number of epochs."""
    patience: Annotated[int, Field(ge=1)] = 10
    """Stop after this number of evaluations in a row without a better validation metric."""
    hidden_size: Annotated[int, Field(ge=1, le=8192)] = 256
    """Width of the hidden layer of each modality's projection."""
    n_layers: Annotated[int, Field(ge=0, le=8)] = 3
    """Number of propagation steps between users and items."""
    n_item_layers: Annotated[int, Field(ge=0, le=8)] = 1
    """Number of steps over the item graph; 0 removes the graph and its residual."""
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    """Neighbours of an item in each modality, the item itself included."""
    knn_exclude_self: bool = False
    """Do not count an item among its own neighbours."""
    modality_weights: dict[str, Weight] | None = None
    """Weights of the modalities in the item graph, scaled to sum to one; null: image (or visual)
    0.1 and text 0.9 where these are the two in use, equal weights otherwise."""
    ii_residual: Literal["propagated", "content"] = "propagated"
    """Add the item graph's result to the propagated item vectors, or to their layer 0."""
    gamma: Weight = 0.9
    """Weight of uniformity against alignment; try 0.4 to 2."""
    kappa: Weight = 0.5
    """Factor on gamma: 0.5 in the paper's code, 1 in its text."""
    t: Annotated[float, Field(gt=0, le=10)] = 2.0
    """Scale t of the uniformity kernel exp(-t squared distance)."""
    calibrated: bool = True
    """Reduce the item uniformity of a pair by the similarity of its contents."""
    s_min: Share = 0.0
    """Lower bound of the content similarity."""
    s_max: Share = 1.0
    """Upper bound of the content similarity; the paper's grid has 0.8 too."""
    sim_source: Literal["mix", "raw", "projected"] = "mix"
    """Content similarity as the cosine of the fused vectors, of the raw features, or of the
    projected features."""
    sim_lambda: Literal["sample", "mean"] = "sample"
    """For the similarity, fuse at the current draw of positions, or at one half."""
    detach_similarity: bool = True
    """Treat the content similarity as a constant of the loss, as the paper allows by computing it
    beforehand. With its gradient the loss makes all contents alike, and calibration stops."""
    uniformity_items: Literal["negatives", "positives", "catalogue", "full"] = "negatives"
    """Items that the uniformity spreads: the batch's negatives or positives, a draw from all
    items (for cold items), or all items."""
    dedupe_uniformity: bool = False
    """Count a user or an item only once in a batch's uniformity."""
    fusion: Literal["slerp", "linear", "average", "none"] = "slerp"
    """Follow the arc between the modalities, blend linearly, average the directions, or have no
    fused segment."""
    fusion_scheme: Literal["fold", "casteljau"] = "fold"
    """With three modalities or more: fuse one after the other in their order, or along the
    Bézier curve."""
    fusion_input: Literal["separate_linear", "shared_projection"] = "separate_linear"
    """Fuse a separate linear map of each modality, or the projections that are segments too."""
    lf_inputs: Literal["unit", "raw"] = "unit"
    """In linear fusion, blend directions or unnormalised vectors."""
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Positions are drawn from Beta(alpha, alpha); the paper's grid is 0.1, 0.5, 0.9."""
    shared_lambda_levels: bool = False
    """Use one position per item for all steps of the fold."""
    eval_lambda: Literal["mean", "cached", "sample", "mc"] = "mean"
    """Position for scoring: one half (mean), the vectors of the last training step (cached), one
    draw per epoch (sample), or the mean over several draws (mc)."""
    eval_draws: Annotated[int, Field(ge=1, le=1024)] = 8
    """Number of draws for eval_lambda=mc."""
    pref_weights: Literal["softmax", "raw"] = "softmax"
    """A user's weights of the segments: a softmax of logits, or free numbers that start at 1."""
    segment_norm: bool = True
    """Scale every segment to unit length before propagation."""
    score: Literal["product", "cosine"] = "product"
    """Rank by the inner product, or by the cosine."""
    cold_length: Literal["warm", "own"] = "warm"
    """For ranking, give each segment of an item without training interactions the mean length of
    the other items' segments, or leave the shorter one that propagation left it."""
    feature_rank: Annotated[int, Field(ge=1)] | Literal["auto", "exact"] | None = "auto"
    """Columns of the features: exact rotates them to their rank, auto does so where there are
    more columns than items, a number truncates (512 is nearly free), null keeps them."""

    @model_validator(mode="after")
    def _clamp_is_an_interval(self) -> CM3Config:
        if self.s_min > self.s_max:
            raise ValueError(f"s_min must not exceed s_max; got {self.s_min} and {self.s_max}")
        return self
