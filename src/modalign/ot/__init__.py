"""Optimal transport in torch: batched, differentiable, and usable alone.

Names are the mathematics': weights `a` and `b`, a `cost`, a regularisation `reg`, a `plan`.
Nothing here knows of recommendation, and nothing of modalign is imported.
"""

from modalign.ot.cost import cosine_cost, power_cost, squared_distance
from modalign.ot.result import Transport
from modalign.ot.sinkhorn import sinkhorn, symmetric_sinkhorn

__all__ = [
    "Transport",
    "cosine_cost",
    "power_cost",
    "sinkhorn",
    "squared_distance",
    "symmetric_sinkhorn",
]
