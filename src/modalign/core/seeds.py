"""Seed to generators: the only place in modalign that seeds anything.

One experiment has one integer seed. Every consumer of randomness derives a generator of its
own from it by name (`"init"`, `("epoch", 7)`), so that adding a consumer never shifts the
numbers another one draws, and an interrupted run can start again at any epoch without
having stored generator states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *path: str | int) -> int:
    """A 63-bit seed for the consumer named by `path`, a pure function of its arguments.

    Example:
        >>> derive(1, "init") == derive(1, "init"), derive(1, "init") == derive(2, "init")
        (True, False)
    """
    text = "/".join([str(int(seed)), *map(str, path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def torch_generator(
    seed: int, *path: str | int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A torch generator of its own for the consumer named by `path`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *path))


def numpy_generator(seed: int, *path: str | int) -> np.random.Generator:
    """A numpy generator of its own for the consumer named by `path`."""
    return np.random.default_rng(derive(seed, *path))


@contextmanager
def torch_seed(seed: int, *path: str | int) -> Iterator[None]:
    """Seed torch's global generator inside the block and put the old state back after it.

    `torch.nn.init` and layer constructors take no generator; this is how they are seeded.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, *path))
        yield
