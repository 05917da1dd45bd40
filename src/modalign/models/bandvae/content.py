"""One content modality of BANDVAE: bags of words of the items, and of the users' histories."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from modalign.core.modality import Modality
from modalign.core.sparse import csr_tensor, sparse_product
from modalign.core.view import TrainView
from modalign.features.codebook import codebook_bags, word_bags
from modalign.features.fill import fill
from modalign.models.bandvae.config import BANDVAEConfig
from modalign.nn.bags import Bags


class ItemBags(nn.Module):
    """Bags of words of all items in one modality, and which items have one.

    A modality that is a bag of words is taken as it is; any other is read through a codebook,
    whose centroids are then the words. The bags are not saved with the weights: they are computed
    again, with the same result.

    Args:
        modality: features of the items.
        view: the training data, where an item may borrow from its neighbours.
        config: options.

    Attributes:
        width: number of words.
        words: the name of each word, or None where words have none.
        present: which items have a bag, as 1 and 0, (n_items,).
    """

    starts: Tensor
    columns: Tensor
    weights: Tensor
    present: Tensor

    def __init__(self, modality: Modality, view: TrainView, config: BANDVAEConfig) -> None:
        super().__init__()
        present = torch.from_numpy(modality.present.copy())
        filled = None
        if config.missing == "neighbours":
            filled = fill(modality, "neighbours", view)
            present = torch.ones_like(present)
        named = config.codebook is not None and modality.name in config.codebook
        if named or (config.codebook is None and not modality.bag):
            source = (
                modality if filled is None else Modality(modality.name, filled, present.numpy())
            )
            size, neighbours = config.codebook_size, config.codebook_neighbours
            bags = codebook_bags(
                source,
                size,
                neighbours,
                config.codebook_temperature,
                centre=config.codebook_centre,
            )
            known: tuple[str, ...] = ()
        else:
            bags = word_bags(modality, filled)
            known = tuple(modality.provenance.get("words", ()))
        self.width: int = bags.shape[1]
        self.words = known if len(known) == self.width else None
        for part, value in (
            ("starts", torch.from_numpy(bags.indptr.astype(np.int64))),
            ("columns", torch.from_numpy(bags.indices.astype(np.int64))),
            ("weights", torch.from_numpy(bags.data.astype(np.float32))),
            ("present", present.float()),
        ):
            self.register_buffer(part, value, persistent=False)

    def matrix(self) -> Tensor:
        """Bags of all items, sparse CSR (n_items, n_words)."""
        shape = (len(self.present), self.width)
        return csr_tensor(self.starts, self.columns, self.weights, shape)

    def of_users(self, history: Tensor) -> Bags:
        """Mean bag of the users' items that have the modality (B1); no entry where none has it.

        Args:
            history: sparse CSR (B, n_items) of ones.
        """
        total = Bags.of(sparse_product(history, self.matrix()))
        counts = (history @ self.present.unsqueeze(1)).squeeze(1).clamp_min(1.0)
        return Bags(
            total.rows, total.columns, total.weights / counts[total.rows], total.starts, total.width
        )

    def examples(self) -> Tensor:
        """The item with the largest weight in each column of the item bags, int64, (n_words,)."""
        bags = Bags.of(self.matrix())
        # By column, then by weight: the last entry of a column is its best.
        order = torch.argsort(bags.weights, stable=True)
        order = order[torch.argsort(bags.columns[order], stable=True)]
        counts = torch.bincount(bags.columns, minlength=bags.width)
        last = (counts.cumsum(0) - 1).clamp_min(0)
        return bags.rows[order[last]]
