"""MMGCL against numbers computed by hand, and its views."""

from __future__ import annotations

import pytest
import torch
from test_slmrec import fused, unit_rows
from torch.testing import assert_close
from toys import BATCH, OPTIONS, T, V, toy_view

from modalign.errors import UnknownName
from modalign.graph.one_sided import TwoWayGraph
from modalign.models.mmgcl import MMGCL, MMGCLConfig

ITEMS, AT = torch.tensor([0, 2]), torch.tensor([[0, 1], [1, 0]])
USERS = torch.tensor([0, 1])


def made(view=None, **options) -> MMGCL:
    config = MMGCLConfig(**{**OPTIONS, "n_layers": 1, **options})
    model = MMGCL(config, toy_view(unit_rows(V), unit_rows(T)) if view is None else view)
    return fused(model, model.channels)


def views(model):
    """The clean channels, and those without the edge between user 0 and item 1."""
    edges = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2])
    thinned = TwoWayGraph(*edges, 2, 3, "symmetric")
    channels = model.channels
    return channels.propagate(USERS, ITEMS), channels.propagate(USERS, ITEMS, thinned)


@pytest.mark.parametrize(("hard", "of_items"), [(True, 1.370659), (False, 0.681273)])
def test_contrast_of_the_toy(hard, of_items):
    model = made(hard_negatives=hard)
    assert model.loss(BATCH)["bpr"].item() == pytest.approx(0.699268, abs=1e-6)
    clean, thinned = views(model)
    users, _ = model.channels.fuse(model.channels.channels(thinned))
    expected = [[0.334924, 0.412628], [0.492445, 0.399141]]
    assert_close(users, torch.tensor(expected), atol=1e-6, rtol=0)
    users, _ = model.channels.fuse(model.channels.channels(clean, masked=1))
    expected = [[0.250888, 0.386872], [0.473627, 0.201284]]
    assert_close(users, torch.tensor(expected), atol=1e-6, rtol=0)
    first = model.channels.channels(thinned)[1]
    expected = [[0.387132, 0.295711], [0.593263, 0.255929]]
    assert_close(model._hard(first, ITEMS, AT), torch.tensor(expected), atol=1e-6, rtol=0)
    found = [one.item() for one in model._contrast(clean, thinned, 1, ITEMS, AT)]
    assert found == pytest.approx([0.561071, of_items], abs=2e-6)


def test_an_item_that_lacks_the_last_modality_has_no_hard_negative():
    model = made(toy_view(unit_rows(V), unit_rows(T), missing=(1, 2)))
    clean, thinned = views(model)
    with_them = model._contrast(clean, thinned, 0, ITEMS, AT)[1]
    model.config = model.config.model_copy(update={"hard_negatives": False})
    assert_close(model._contrast(clean, thinned, 0, ITEMS, AT)[1], with_them)


def test_modalities_are_masked_by_their_weights_and_a_share_of_edges_is_dropped():
    model = made(mask_weights={"t": 1.0}, edge_dropout=0.5)
    assert model.mask_weights == [0.0, 1.0]
    graph = model._thinned(torch.Generator().manual_seed(0))
    assert len(graph.to_users.indices) == 2
    with pytest.raises(UnknownName, match="mask_weights"):
        made(mask_weights={"sound": 1.0})
