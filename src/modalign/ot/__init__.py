"""Optimal transport in torch: batched, differentiable, and usable alone.

Names are the mathematics': weights `a` and `b`, a `cost`, a regularisation `reg`, a `plan`.
Nothing here knows of recommendation, and nothing else of modalign is imported.
"""

from modalign.ot.barycentric import barycentric_projection, entropic_map
from modalign.ot.bounds import variation_bound
from modalign.ot.cost import cosine_cost, power_cost, squared_distance
from modalign.ot.divergence import Divergence, Flow, gradient_flow, sinkhorn_divergence
from modalign.ot.exact import exact_plan
from modalign.ot.one_dimensional import sorted_plan, sorted_potentials, sorted_transport
from modalign.ot.result import Transport
from modalign.ot.sinkhorn import sinkhorn, symmetric_sinkhorn

__all__ = [
    "Divergence",
    "Flow",
    "Transport",
    "barycentric_projection",
    "cosine_cost",
    "entropic_map",
    "exact_plan",
    "gradient_flow",
    "power_cost",
    "sinkhorn",
    "sinkhorn_divergence",
    "sorted_plan",
    "sorted_potentials",
    "sorted_transport",
    "squared_distance",
    "symmetric_sinkhorn",
    "variation_bound",
]
