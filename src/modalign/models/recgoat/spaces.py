"""RecGOAT's vectors in every space, and how far apart the spaces are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modalign import ot
from modalign.core import seeds
from modalign.core.view import TrainView, UserRows
from modalign.models._shared.batch_items import distinct
from modalign.models._shared.unit import unit
from modalign.models.recgoat.transport import Pair, State, row_length, scaled_distance
from modalign.nn.losses.infonce import info_nce
from modalign.nn.vital_signs import order

DIAGNOSED = 512
"""Number of fixed items (and users) on which spaces are compared."""
WATCHED = 4096
"""Training pairs on which the order of each space is measured."""


@dataclass(frozen=True)
class Spaces:
    """Vectors of some users and items in every space.

    Attributes:
        users: the vectors that rank, z_u, (B, d).
        collaborative: users by the interactions, (B, d).
        preference: users by their preferences before and after transport; None without.
        unified: items, z*, rows of length one, (C, d).
        ids: items by the interactions, (C, d).
        raw: items by each modality, before transport.
        mapped: after transport; the same as `raw` where there is none.
        state: the plans of this pass; None where the kept plans were used.
    """

    users: Tensor
    collaborative: Tensor
    preference: Pair | None
    unified: Tensor
    ids: Tensor
    raw: list[Tensor]
    mapped: list[Tensor]
    state: State | None


@dataclass(frozen=True)
class Wanted:
    """Rows of users or items that a pass computes.

    Attributes:
        rows: the different rows, or None for all.
        places: where in them each row of the batch stands.
        anchors: where in them the anchors stand.
    """

    rows: Tensor | None
    places: Tensor
    anchors: Tensor

    @classmethod
    def of(cls, index: Tensor, anchors: Tensor, n: int) -> Wanted:
        """The rows of a batch and of the anchors.

        Args:
            index: rows of the batch, int64.
            anchors: rows of the anchors, int64.
            n: number of all rows.
        """
        rows, places = distinct(torch.cat([index, anchors]), n)
        return cls(rows, places[: len(index)], places[len(index) :])


def exact_distance(x: Tensor, y: Tensor) -> float:
    """1-Wasserstein distance of two clouds of n points, (n, d) each, by assignment."""
    cost = scaled_distance(x.double(), y.double())
    return float((ot.exact_plan(cost) * cost).sum())


@torch.no_grad()
def distances(
    spaces: Spaces, names: Sequence[str], items: Tensor, users: Tensor
) -> dict[str, float]:
    """Exact 1-Wasserstein distances between spaces, before and after transport.

    Args:
        spaces: of all users and items.
        names: the modalities, in order.
        items: rows on which item spaces are compared.
        users: rows on which users' preferences are compared.

    Returns:
        `w1_before/m` and `w1_after/m` for each modality m (and for "preference") from the space of
        the ids, in units of its root mean square row length; `w1/unified` of rows of length one.
    """
    sides = [
        (name, raw, mapped, spaces.ids, items)
        for name, raw, mapped in zip(names, spaces.raw, spaces.mapped, strict=True)
    ]
    if spaces.preference is not None:
        sides.append(("preference", *spaces.preference, spaces.collaborative, users))
    found = {}
    for name, raw, mapped, target, rows in sides:
        length = row_length(target[rows])
        found[f"w1_before/{name}"] = exact_distance(raw[rows] / length, target[rows] / length)
        found[f"w1_after/{name}"] = exact_distance(mapped[rows] / length, target[rows] / length)
    found["w1/unified"] = exact_distance(spaces.unified[items], unit(spaces.ids[items]))
    return found


@torch.no_grad()
def contrasts(
    spaces: Spaces, names: Sequence[str], items: Tensor, temperature: float
) -> dict[str, float]:
    """`nce/a-b` of each pair of item spaces, and `information/a-b = log n - nce`.

    Args:
        spaces: of all items.
        names: the modalities, in order.
        items: rows on which spaces are compared.
        temperature: of the contrast.
    """
    tables = [("id", spaces.ids), *zip(names, spaces.raw, strict=True)]
    found: dict[str, float] = {}
    for (a, one), (b, other) in itertools.combinations(tables, 2):
        nce = float(info_nce(one[items], other[items], temperature))
        found |= {f"nce/{a}-{b}": nce, f"information/{a}-{b}": math.log(len(items)) - nce}
    return found


def watched_pairs(view: TrainView) -> Tensor:
    """Users, their items and other items, (3, n): the fixed pairs whose order is measured."""
    rng = seeds.torch_generator(0, "recgoat", "watched")
    users, items = (torch.as_tensor(one).long() for one in (view.users, view.items))
    several = torch.nonzero(torch.bincount(users)[users] > 1).flatten()
    at = several[torch.randint(max(len(several), 1), (min(WATCHED, len(several)),), generator=rng)]
    pairs = [users[at], items[at]]
    others = torch.randint(view.n_items, (len(at),), generator=rng)
    return torch.stack([*pairs, others])


@torch.no_grad()
def orders(
    spaces: Spaces, names: Sequence[str], watched: Tensor, rows: UserRows
) -> dict[str, float]:
    """`order_before/m` and `alive/order/m`: the AUC of each modality's space alone.

    A user is the mean of the user's other items in that space, so that no other space has a part.

    Args:
        spaces: of all items.
        names: the modalities, in order.
        watched: see `watched_pairs`.
        rows: training items of the users.
    """
    users, chosen, others = watched
    history = rows.history(users.cpu()).to(users.device)
    counts = history.crow_indices().diff().clamp(min=2)
    pairs = torch.arange(len(users), device=users.device), chosen

    def alone(items: Tensor) -> float:
        means = (history @ items - items[chosen]) / (counts - 1)[:, None]
        return order(means, items, pairs, others)

    found: dict[str, float] = {}
    for name, raw, mapped in zip(names, spaces.raw, spaces.mapped, strict=True):
        found |= {f"order_before/{name}": alone(raw), f"alive/order/{name}": alone(mapped)}
    return found
