"""Random numbers of the exponential and the Gumbel distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from modalign.core import seeds

MANTISSA = 23
"""Bits of a float32's fraction; with the exponent of 1.0 they are a number in [1, 2)."""


def exponential_numbers(
    shape: Sequence[int], seed: int, *path: str | int, device: torch.device | str = "cpu"
) -> Tensor:
    """Independent numbers of the exponential distribution with mean 1, float32, none of them 0.

    On the CPU `-log((k + 1/2) / 2^23)` with 23 random bits k: none is above 16.7, which one in
    2^24 would exceed. torch takes seven times as long (one by one), numpy twice (by rejection).

    Args:
        shape: shape of the result.
        seed: seed of the experiment.
        *path: names and numbers that identify the consumer, see `modalign.core.seeds`.
        device: device of the result.

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
    # From 1 + k / 2^23 to (k + 1/2) / 2^23, exactly.
    draw = torch.from_numpy(bits.view(np.float32)).sub_(1 - 0.5 * 2.0**-MANTISSA)
    return draw.log_().neg_().view(tuple(shape))


def gumbel_numbers(shape: Sequence[int], rng: torch.Generator) -> Tensor:
    """Standard Gumbel numbers `-log(-log u)`, float32, finite, on the generator's device.

    Example:
        >>> gumbel_numbers((2, 3), torch.Generator().manual_seed(1)).isfinite().all().item()
        True
    """
    seed = int(torch.randint(2**62, (), generator=rng, device=rng.device))
    return exponential_numbers(shape, seed, device=rng.device).log_().neg_()
