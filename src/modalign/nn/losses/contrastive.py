"""Contrast between a node's final vector and its views in single modalities (MMSSL).

Source: Wei et al., "Multi-modal self-supervised learning for recommendation", WWW 2023,
equation 11, with the sign by which minimising it draws positives together.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from modalign.nn.rows import unit_rows


def view_contrast(
    view: Tensor,
    anchor: Tensor,
    temperature: float,
    *,
    others: tuple[Tensor, Tensor, Tensor] | None = None,
    keep_self: bool = False,
    drop_empty: bool = True,
    chunk: int | None = None,
) -> Tensor:
    """InfoNCE of B nodes' final vectors h against their vectors e in one modality, a scalar.

    With `s(v, w) = cos(v, w) / temperature`, the mean over u of

        - log ( e^s(h_u, e_u) / (sum_u' e^s(h_u', e_u) + sum_{u' != u} e^s(e_u', e_u)) )

    It needs only two tables of a model; the losses of several modalities are added.

    Args:
        view: e, (B, d).
        anchor: h, (B, d).
        temperature: positive.
        others: nodes of the sums: their h (C, d), their e (C, d), and the position among them of
            each of the B nodes, int64 (B,). By default the B nodes themselves.
        keep_self: include u in the second sum.
        drop_empty: omit nodes whose e is zero from the mean and from both sums; otherwise they
            add a constant without a gradient.
        chunk: number of nodes at a time; their similarities are then recomputed for the gradient
            instead of being stored. None processes all nodes at once.

    Time and memory: 4 B C d multiplications and 8 B C bytes forward.

    Example:
        >>> e, h = torch.eye(2), torch.tensor([[1.0, 1.0], [0.0, 2.0]])
        >>> round(view_contrast(e, h, temperature=0.5).item(), 6)
        0.461079
    """
    e, h = unit_rows(view), unit_rows(anchor)
    if others is None:
        keys_h, keys_e, places = h, e, torch.arange(len(e), device=e.device)
    else:
        keys_h, keys_e, places = unit_rows(others[0]), unit_rows(others[1]), others[2]
    empty = (keys_e == 0).all(dim=1) if drop_empty else None

    def losses(e: Tensor, h: Tensor, places: Tensor, keys_h: Tensor, keys_e: Tensor) -> Tensor:
        across, within = e @ keys_h.T / temperature, e @ keys_e.T / temperature
        if not keep_self:
            within = within.scatter(1, places[:, None], -torch.inf)
        both = torch.cat([across, within], dim=1)
        if empty is not None:
            # Finite, so that a row without any other node has a gradient of zero.
            both = both.masked_fill(empty.repeat(2), -1e30)
        loss: Tensor = both.logsumexp(dim=1) - torch.linalg.vecdot(e, h) / temperature
        return loss

    if chunk is None:
        each = losses(e, h, places, keys_h, keys_e)
    else:
        parts = zip(e.split(chunk), h.split(chunk), places.split(chunk), strict=True)
        each = torch.cat(
            [
                cast(Tensor, checkpoint(losses, *part, keys_h, keys_e, use_reentrant=False))
                for part in parts
            ]
        )
    if empty is None:
        return each.mean()
    counted = ~empty[places]
    return torch.where(counted, each, 0.0).sum() / counted.sum().clamp(min=1)
