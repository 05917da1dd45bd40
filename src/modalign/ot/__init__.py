"""Optimal transport in torch: batched, differentiable, and usable alone.

Names follow the mathematics: weights `a` and `b`, a `cost`, a regularisation `reg`, a `plan`.
The package does not depend on recommendation and imports nothing else of modalign.
"""

from modalign.ot.barycentric import barycentric_projection, entropic_map
from modalign.ot.cost import cosine_cost, power_cost, squared_distance, variation_bound
from modalign.ot.divergence import Divergence, Flow, gradient_flow, sinkhorn_divergence
from modalign.ot.exact import exact_plan
from modalign.ot.one_dimensional import sorted_plan, sorted_potentials, sorted_transport
from modalign.ot.result import Transport
from modalign.ot.sinkhorn import SolverOptions, sinkhorn, symmetric_sinkhorn

__all__ = [
    "Divergence",
    "Flow",
    "SolverOptions",
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
