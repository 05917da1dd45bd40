"""A Newton step of the dual for tiny problems, where sweeps may need thousands.

Where two assignments have nearly the same cost, sweeps move mass between clusters of points at a
rate of `exp(-gap / reg)`, while a Newton step takes the weakness of the link into account. With
exact columns the dual is a function of the row potentials f alone: its gradient is
`r = a - plan 1` and its Hessian, in units of reg, minus the Laplacian of the graph of rows with
links `w_kj = sum_l plan_kl plan_jl / b_l`. Potentials are divided by reg; the problem is the last
dimension.

Sources: Sun and Tran-Dinh 2019 (length of the step, for functions with such a bound on the third
derivative); Grassmann, Taksar and Heyman 1985 (elimination without subtraction).
"""

from __future__ import annotations

import torch
from torch import Tensor


def newton_step(density: Tensor, a: Tensor, b: Tensor, ridge: float) -> Tensor:
    """The change of f, (n, B), for a plan `a_k b_l density_kl` with exact columns, (n, m, B).

    The dual's third derivative along d is at most `max d - min d` times its second, hence a
    step of `log(1 + R) / R` times the Newton direction of range R never decreases the dual. Links
    of weight `ridge a` to a fixed potential keep the direction finite; they only shorten it.
    """
    by_row = density * b
    residual = a - a * by_row.sum(1)
    share = a.unsqueeze(1) * density
    links = a.new_zeros(len(a) + 1, len(a) + 1, a.shape[-1])
    for k in range(len(a)):
        links[k + 1, 1:] = (share[k] * by_row).sum(1).mul_(a)
    # With a ridge below the rounding of the residual, the residual's sum would shift all of f.
    links[1:, 0] = links[0, 1:] = max(ridge, torch.finfo(a.dtype).eps) * a
    direction = _solve_laplacian(links, residual)
    reach = direction.amax(0) - direction.amin(0)
    least = torch.finfo(reach.dtype).eps
    return direction * (reach.clamp_min(least).log1p() / reach.clamp_min(least))


def _solve_laplacian(links: Tensor, residual: Tensor) -> Tensor:
    """Potentials of nodes 1 to n for inflows (n, B), with node 0 fixed at 0; overwrites the links.

    Eliminating a node joins its neighbours by links `w_ik w_kj / sum_j w_kj`: only positive
    numbers are added, so that the weakest link keeps all its digits.
    """
    least = torch.finfo(links.dtype).tiny
    flow = torch.cat([torch.zeros_like(residual[:1]), residual])
    shares, raised = [], []
    for k in range(len(residual), 0, -1):
        total = links[k, :k].sum(0).clamp_min(least)
        share = links[k, :k] / total
        raised.append(flow[k] / total)
        shares.append(share)
        links[:k, :k].addcmul_(links[:k, k].unsqueeze(1), share)
        flow[:k].addcmul_(share, flow[k])
    height = torch.zeros_like(flow)
    for k in range(1, len(flow)):
        height[k] = raised[-k] + (shares[-k] * height[:k]).sum(0)
    return height[1:]
