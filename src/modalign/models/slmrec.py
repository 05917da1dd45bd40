"""SLMRec: channels of ids and modalities, a contrast of users with items, and one over channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from modalign.core.interfaces import Batch, Recommender
from modalign.core.view import TrainView
from modalign.models._registry import register
from modalign.models._shared.channels import Channels
from modalign.models._shared.content import ContentConfig
from modalign.nn.losses.infonce import info_nce


class SLMRecConfig(ContentConfig):
    """Options of SLMRec; the defaults are those of the authors' release."""

    n_layers: Annotated[int, Field(ge=0, le=8)] = 3
    """Number of propagation steps in every channel."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Temperature of the contrast between users and items."""
    channel_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the contrast between channels, alpha in the paper."""
    channel_temperature: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Temperature of the contrast between channels."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Weight decay of the optimizer, on all parameters."""


@register(
    "slmrec",
    config=SLMRecConfig,
    toy={
        "embedding_size": 8,
        "n_layers": 1,
        "learning_rate": 0.01,
        "batch_size": 64,
        "epochs": 15,
    },
    family="multimodal",
    paper="Tao et al., TMM 2022",
    variants={"without-channel-contrast": {"channel_weight": 0.0}},
)
class SLMRec(Recommender):
    """One LightGCN channel for ids and one per modality, fused, with a contrast over the channels.

    With N(x) unit rows, Z_0 = Q, Z_m = N(X_m) W_m + b_m and one table P of users,

        [U_c; I_c] = LightGCN([P; Z_c]),  u = [U_0, ..., U_M] W_u + b_u,  i = [I_0, ...] W_i + b_i
        main = mean of -log softmax(N(u) N(i)' / T) at the positives, over the items of the batch
        s_0 = g_0(I_0),  s_k = g_k(s_k-1),  t_k = g'_k(I_k)
        channels = sum over k of the mean of -log softmax(s_k-1 t_k' / T_s) at the same item
        loss = main + channel_weight channels,     score(u, i) = <u, i>

    with linear maps g, the last pair of which goes to half the width. The modalities are taken in
    the order of the option `modalities`. With two of them the second step has one more map, as in
    MMRec. An item that lacks modality k is left out of step k. There are no sampled negatives.

    Limits: the second contrast uses products without unit rows and is unbounded: a large learning
    rate with a small `channel_temperature` diverges.

    Source: Tao et al., "Self-supervised learning for multimedia recommendation", IEEE Transactions
    on Multimedia 2022, with the task FAC that the authors' release configures.
    """

    needs = ("modalities",)

    def __init__(self, config: SLMRecConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: SLMRecConfig = config
        size = config.embedding_size
        self.channels = Channels(config, view, config.n_layers)
        count = len(self.channels.content)
        half = max(1, size // 2)
        widths = [size] * (count - 1) + [half if count > 1 else size]
        # The map before each step, and that of the modality in it.
        steps = [nn.Sequential(nn.Linear(size, width)) for width in widths]
        if count == 2:
            steps[1] = nn.Sequential(nn.Linear(size, size), nn.Linear(size, half))
        self.steps = nn.ModuleList(steps if config.channel_weight else [])
        heads = [nn.Linear(size, width) for width in widths] if config.channel_weight else []
        self.heads = cast("Sequence[nn.Linear]", nn.ModuleList(heads))
        for layer in (*self.steps.modules(), *heads):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`main`, and `channels` where it has a weight."""
        config, positives = self.config, cast(Tensor, batch.positives)
        both = self.channels.channels(self.channels.propagate(batch.users, positives))
        users, items = self.channels.fuse(both)
        parts = {"main": info_nce(users, items, config.temperature)}
        if config.channel_weight:
            ids, *contents = both[1].split(config.embedding_size, dim=1)
            losses, state = [], ids
            each = zip(self.steps, self.heads, contents, self.channels.content.present, strict=True)
            for step, head, content, present in each:
                state = step(state)
                there = present[positives]
                logits = state[there] @ head(content)[there].T / config.channel_temperature
                if len(logits):
                    losses.append(
                        functional.cross_entropy(logits, torch.arange(len(logits)).to(there.device))
                    )
            total = torch.stack(losses).sum() if losses else users.new_zeros(())
            parts["channels"] = config.channel_weight * total
        return parts

    def tables(self) -> tuple[Tensor, Tensor]:
        """Fused vectors of all users and items."""
        return self.channels.fuse(self.channels.channels(self.channels.propagate()))
