"""Rows of unit length, with a gradient that takes little memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from modalign.nn.rows import wide

TINY = 1e-12


def unit(x: Tensor, again: bool = False) -> Tensor:
    """Rows scaled to unit length, in float32 even under autocast.

    With `again` the result is not kept for the gradient but computed again from `x`: for
    parameters, which are in memory anyway. A length below 1e-12 counts as 1e-12.

    Example:
        >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    result: Tensor = _Unit.apply(wide(x), again)  # type: ignore[no-untyped-call]
    return result


class _Unit(torch.autograd.Function):
    """`y = x / |x|`, whose gradient is `(g - (g . y) y) / |x|`: one table, where autograd through
    the norm and the quotient makes six. As in `torch.nn.functional.normalize`, a length below
    1e-12 is replaced by 1e-12, which is then a constant.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, again: bool) -> Tensor:
        length = x.norm(dim=-1, keepdim=True).clamp_(min=TINY)
        y: Tensor = x / length
        ctx.again = again
        ctx.save_for_backward(x if again else y, length)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        y, length = ctx.saved_tensors
        result = gradient * y
        along = result.sum(-1, keepdim=True).masked_fill_(length <= TINY, 0)
        if ctx.again:  # y is x, which is too long by the factor `length`, twice
            along /= length.square()
        torch.sub(gradient, torch.mul(y, along, out=result), out=result)
        return result.div_(length), None
