"""Exponential and Gumbel numbers, many at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from modalign.core import seeds

MANTISSA = 23
"""Bits behind the point of a float32; behind those of 1.0 they are a number from 1 to 2."""


def exponential_numbers(
    shape: Sequence[int], seed: int, *path: str | int, device: torch.device | str = "cpu"
) -> Tensor:
    """Independent numbers of the exponential distribution with mean 1, float32, none of them 0.

    On the CPU `-log((k + 1/2) / 2^23)` with k of 23 random bits: none is above 16.7, which one in
    2^24 would pass. torch draws them one by one (seven times as long), numpy by rejection (twice).

    Args:
        shape: of the result.
        seed: as in `modalign.core.seeds`.
        *path: names the consumer, likewise.
        device: where the result is.

    Example:
        >>> draw = exponential_numbers((2, 50_000), 1)
        >>> tuple(draw.shape), round(draw.mean().item(), 1)
        ((2, 50000), 1.0)
    """
    if torch.device(device).type != "cpu":
        draw = torch.empty(tuple(shape), device=device)
        draw.exponential_(generator=seeds.torch_generator(seed, *path, device=device))
        return draw.clamp_min_(1e-20)
    n = math.prod(shape)
    rng = seeds.numpy_generator(seed, *path)
    bits = rng.bit_generator.random_raw((n + 1) // 2).view(np.uint32)[:n]
    bits >>= 32 - MANTISSA
    bits |= np.float32(1).view(np.uint32)
    # 1 + k / 2^23 less all but half a step of 1: exact.
    draw = torch.from_numpy(bits.view(np.float32)).sub_(1 - 0.5 * 2.0**-MANTISSA)
    return draw.log_().neg_().view(tuple(shape))


def gumbel_numbers(shape: Sequence[int], rng: torch.Generator) -> Tensor:
    """Standard Gumbel numbers `-log(-log u)`, float32, on the generator's device; all finite.

    Example:
        >>> gumbel_numbers((2, 3), torch.Generator().manual_seed(1)).isfinite().all().item()
        True
    """
    seed = int(torch.randint(2**62, (), generator=rng, device=rng.device))
    return exponential_numbers(shape, seed, device=rng.device).log_().neg_()
