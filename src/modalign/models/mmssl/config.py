"""The options of MMSSL and its two presets; `docs/models/mmssl.md` lists D1 to D40."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from modalign.core.interfaces import MultimodalConfig
from modalign.graph.one_sided import Adjacency
from modalign.nn.attention import HeadValues
from modalign.nn.losses.adversarial import AdversarialSettings, Norm, Output

Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]

OFFICIAL: Mapping[str, Any] = {
    "learning_rate_decay": False,
    "adversarial_weight": 1e-4,
    "penalty_weight": 0.3,
    "critic_hidden": "full",
    "critic_slope": 1.0,
    "critic_scale": 100.0,
    "relation_scores": "dot",
    "mask_observed": True,
    "gumbel_temperature": 0.005,
    "gumbel_noise": 1e-5,
    "graph": "batchwise",
    "topk_rate": 1e-4,
    "attention": "collapsed",
    "attention_views": "own",
    "output_matrix": True,
    "own_items": False,
    "eta": 0.36,
    "order": "sequential",
    "soften_last": True,
    "empty_views": "keep",
    "weight_decay": 1e-2,
    "patience": 7,
}
"""Options of preset="official": the released code for amazon-baby. Options that are set win."""


class SelfSupervisedConfig(MultimodalConfig):
    """Options of MMSSL's two self-supervised parts, which other models can have too."""

    batch_size: Annotated[int, Field(ge=1)] = 1024
    """Training pairs in a step; the critic sees their different users."""
    self_supervision: Literal["adversarial", "autoencoder", "none"] = "adversarial"
    """A critic of modality scores (adversarial), a graph autoencoder instead, or neither (none)."""
    adversarial_weight: Weight = 1e-2
    """Weight of the generator's loss, or of the autoencoder's."""
    contrast_weight: Weight = 0.03
    """Weight of the contrast between final and single-modality vectors of users."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.5
    """Temperature of that contrast; try 0.05 to 0.9."""
    keep_self: bool = False
    """Count a user's own single-modality vector also among the negatives."""
    contrast_negatives: Literal["batch", "full"] = "batch"
    """Contrast with the users of the batch (batch), or with all users (full)."""
    empty_views: Literal["drop", "keep"] = "drop"
    """Leave users without an edge in a modality's graph out of its contrast (drop), or keep
    them."""
    feature_dropout: Rate = 0.2
    """Dropout of the projected features."""
    residual_features: bool = False
    """Add an item's own projected features to the mean over its users."""
    densify: Literal["gumbel", "observed"] = "gumbel"
    """Build real rows from a softmax of noisy observations (gumbel), or from the observations."""
    gumbel_temperature: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Temperature of that softmax; 0.002 to 0.02 in the released code."""
    gumbel_noise: Weight = 0.1
    """Factor on its noise: 1 in the paper's text, which hides the data, 1e-5 in the released
    code."""
    aux_weight: Weight = 100.0
    """Weight of the model's own scores in a real row; the paper tries 0 to 150."""
    unit_rows: bool = False
    """Scale the model's own scores in a real row to unit length before `aux_weight`."""
    relation_scores: Literal["cosine", "dot"] = "cosine"
    """Compute modality scores of users and items as cosines, or as inner products."""
    mask_observed: bool = False
    """Replace the scores of observed items by zeros in the critic's input."""
    penalty_weight: Weight = 1.0
    """Weight of the gradient penalty; the paper tries 0 to 150."""
    n_critic: Annotated[int, Field(ge=1, le=100)] = 1
    """Number of steps of the critic for each step of the model."""
    critic_learning_rate: Annotated[float, Field(gt=0, le=10)] = 3e-4
    """Learning rate of the critic, which Adam trains."""
    critic_hidden: Annotated[int, Field(ge=1, le=65536)] | Literal["bounded", "full"] = "bounded"
    """Width of the critic's first hidden layer: a number, a quarter of the items (full), or at most
    1,024 of that (bounded). The second layer has half of it."""
    critic_norm: Norm = "batch"
    """Normalisation in the critic; with layer or none the gradient penalty is per row."""
    critic_slope: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Negative slope of the critic's leaky ReLU; 1, by mistake, in the released code."""
    critic_output: Output = "sigmoid"
    """Output of the critic; linear is the WGAN of the textbooks."""
    critic_scale: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the critic's output."""
    graph: Literal["generated", "observed", "batchwise"] = "generated"
    """Graphs of the modalities: the best items of each user by the modality's scores (generated),
    the interactions (observed), or as the released code builds them from batches (batchwise)."""
    k: Annotated[int, Field(ge=1, le=10000)] = 10
    """Number of items of a user in a modality's graph."""
    topk_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of all items, used instead of k; at least one item, but rounded down if batchwise."""
    own_items: bool = False
    """Let a user's own items into the modalities' graphs, as equations 3 and 8 do."""
    refresh_every: Annotated[int, Field(ge=1)] = 1
    """Epochs (steps if batchwise) between two graphs."""
    first_graph: Literal["observed", "generated"] = "observed"
    """Graphs of the first epoch: the interactions, or the graphs of the untrained scores."""

    @model_validator(mode="after")
    def _penalty_sees_a_gradient(self) -> SelfSupervisedConfig:
        # The sum of batch-normalised numbers is the same whatever the rows are.
        if self.critic_output == "linear" and self.critic_norm == "batch" and self.penalty_weight:
            raise ValueError(
                "critic_output=linear leaves the gradient penalty without a gradient under "
                "critic_norm=batch; set critic_norm to layer or none"
            )
        return self

    @property
    def is_adversarial(self) -> bool:
        """Whether there is a critic."""
        return self.self_supervision == "adversarial" and self.adversarial_weight > 0

    def n_neighbours(self, n_items: int) -> int:
        """Number of items of a user in a modality's graph."""
        if self.topk_rate is None:
            return min(self.k, n_items)
        share = n_items * self.topk_rate
        return int(share) if self.graph == "batchwise" else max(1, round(share))

    def adversarial_settings(self, n_items: int) -> AdversarialSettings:
        """The options of the adversarial part, for rows of n_items scores."""
        hidden = {"bounded": min(n_items // 4, 1024), "full": n_items // 4}
        wide = self.critic_hidden
        first = max(2, hidden[wide] if isinstance(wide, str) else wide)
        second = n_items // 8 if wide == "full" else first // 2
        return AdversarialSettings(
            hidden=(first, max(1, second)),
            slope=self.critic_slope,
            norm=self.critic_norm,
            output=self.critic_output,
            scale=self.critic_scale,
            penalty_weight=self.penalty_weight,
            densify=self.densify,
            gumbel_temperature=self.gumbel_temperature,
            gumbel_noise=self.gumbel_noise,
            aux_weight=self.aux_weight,
            scores=self.relation_scores,
            mask_observed=self.mask_observed,
            unit_aux=self.unit_rows or self.relation_scores == "dot",
        )


class MMSSLConfig(SelfSupervisedConfig):
    """Options of MMSSL."""

    preset: Literal["paper", "official"] = "paper"
    """The method with its misprints corrected, or the released code with its defects; options that
    are set win."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 5.5e-4
    """Learning rate of the model's optimizer."""
    learning_rate_decay: bool = True
    """Multiply the model's learning rate by 0.96 every 50 epochs, in equal factors per epoch."""
    optimizer: Literal["adam", "adamw"] = "adamw"
    """Adam, or AdamW with decoupled weight decay."""
    weight_decay: Weight = 1.4e-2
    """Weight decay of the optimizer."""
    n_layers: Annotated[int, Field(ge=0, le=8)] = 2
    """Number of propagation steps between users and items."""
    adjacency: Adjacency = "one-sided"
    """Weights of the interactions: by the receiving side's degree, or by both sides' degrees."""
    order: Literal["simultaneous", "sequential"] = "simultaneous"
    """Propagate items from the users' previous layer, or from the one just computed
    (sequential)."""
    soften_last: bool = False
    """Apply a softmax over the columns of the last layer."""
    eta: Weight = 0.1
    """Weight of the modality-aware vectors in layer 0; 0 also removes the attention. The released
    configuration has 0.36, with views that are empty."""
    own_items: bool = True
    """Let a user's own items into the modalities' graphs, as equations 3 and 8 do."""
    omega: Weight = 0.55
    """Weight of the propagated features in the final vectors."""
    n_heads: Annotated[int, Field(ge=1, le=256)] = 4
    """Number of heads of the attention between modalities; must divide the embedding size."""
    attention: Literal["cross", "collapsed"] = "cross"
    """Let modalities attend to each other, or only apply a linear map as in the released code."""
    head_values: HeadValues = "whole"
    """Let every head mix whole vectors, or only its own columns."""
    output_matrix: bool = False
    """Map the joined heads by a trained matrix. Equation 9 prints none; without it the result is
    the mean of the heads."""
    attention_views: Literal["own", "unit"] = "unit"
    """Compute the attention's queries and keys from the views as they are, or scaled to one length.
    Views are short, so that as they are all weights are equal and the attention is a mean."""
    view_norm: Literal["rows", "squared"] = "rows"
    """Scale modality-aware vectors to unit length, or divide by the squared length as printed."""
    sampling: Literal["users", "interactions"] = "users"
    """Give every user the same weight in the ranking loss, or every interaction."""
    stale_critic_inputs: bool = False
    """Show the critic the vectors of the last step instead of computing them again."""
    reg: Weight = 1e-5
    """Weight of the squared final vectors of the batch."""
    feature_reg: Weight = 1e-5
    """Weight of the squared propagated features."""

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("preset") == "official":
            return {**OFFICIAL, **data}
        return data

    @model_validator(mode="after")
    def _heads_divide(self) -> MMSSLConfig:
        if self.eta and self.embedding_size % self.n_heads:
            raise ValueError(
                f"n_heads must divide embedding_size; got {self.n_heads} and {self.embedding_size}"
            )
        return self
