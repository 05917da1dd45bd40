"""From a seed to generators: the only module of modalign that makes a seeded generator.

scikit-learn makes its own from an integer, which `derive` computes.

One experiment has one integer seed. Every consumer of randomness derives its own generator from
it by name (`"init"`, `("epoch", 7)`). Adding a consumer therefore never changes the numbers that
another one draws, and an interrupted run can resume at any epoch without stored generator states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *path: str | int) -> int:
    """A 63-bit seed for the consumer named by `path`: the first 8 bytes of a SHA-256 digest.

    Args:
        seed: the seed of the experiment.
        path: names and numbers that identify the consumer.

    Example:
        >>> derive(1, "init") == derive(1, "init"), derive(1, "init") == derive(2, "init")
        (True, False)
    """
    text = "/".join([str(int(seed)), *map(str, path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def torch_generator(
    seed: int, *path: str | int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A torch generator for the consumer named by `path`.

    Args:
        seed: the seed of the experiment.
        path: names and numbers that identify the consumer.
        device: where the generator draws.
    """
    return torch.Generator(device=device).manual_seed(derive(seed, *path))


def fixed_generator(number: int) -> torch.Generator:
    """A torch generator on the CPU, seeded with `number` itself.

    For a start that belongs to a numerical method and to no experiment, such as the first basis
    of a subspace iteration.
    """
    return torch.Generator().manual_seed(number)


def numpy_generator(seed: int, *path: str | int) -> np.random.Generator:
    """A numpy generator for the consumer named by `path`."""
    return np.random.default_rng(derive(seed, *path))


@contextmanager
def torch_seed(seed: int, *path: str | int) -> Iterator[None]:
    """Seed torch's global generator inside the block and restore its state afterwards.

    `torch.nn.init` and the constructors of layers take no generator; this seeds them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, *path))
        yield
