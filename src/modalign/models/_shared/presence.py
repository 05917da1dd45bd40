"""Which users and items have which modality, and weights over those that they have."""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.core.view import TrainView


def user_presence(view: TrainView, present: Tensor) -> Tensor:
    """Whether one of a user's training items has the modality, bool, (M, n_users).

    Args:
        view: training interactions.
        present: whether an item has the modality, bool, (M, n_items).

    Example:
        >>> view = TrainView(2, 3, torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]))
        >>> user_presence(view, torch.tensor([[False, False, True]])).tolist()
        [[False, True]]
    """
    counts = torch.zeros(len(present), view.n_users)
    counts.index_add_(1, view.users, present[:, view.items].float())
    return counts > 0


def present_softmax(scores: Tensor, present: Tensor) -> Tensor:
    """Softmax over the first dimension of those present; equal shares where none is.

    Args:
        scores: (M, n, 1) or (M, n, d).
        present: bool, (M, n).

    Example:
        >>> scores, present = torch.zeros(2, 2, 1), torch.tensor([[True, False], [True, True]])
        >>> present_softmax(scores, present)[:, :, 0].tolist()
        [[0.5, 0.0], [0.5, 1.0]]
    """
    gone = ~present & present.any(0)
    return scores.masked_fill(gone[..., None], -torch.inf).softmax(0)
