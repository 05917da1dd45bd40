"""Where tensors live: the one place that chooses a device."""

from __future__ import annotations

import ctypes
import sys

import torch
from typing import Literal

from modalign.errors import ConfigError

Precision = Literal["32-true", "bf16-mixed"]
"""float32 throughout, or products in bfloat16 where torch autocasts them."""

MUCH = 64 << 20
"""Bytes of a model beside which holes in the heap count more than page faults."""


def resolve(device: str | torch.device = "auto") -> torch.device:
    """The device for a name: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda:1".

    Raises:
        ConfigError: no such device here.

    Example:
        >>> resolve("cpu")
        device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ConfigError(
            "a device: auto, cpu, cuda or cuda:N", repr(device), "leave the option out"
        )
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            "a CUDA device of this machine",
            f"{device} where torch sees {torch.cuda.device_count()}",
            "use --device cpu, or install a CUDA build of torch",
        )
    return found


def keep_freed_memory(held: int = 0) -> bool:
    """Let this process keep the memory it frees for its next tensors; whether that was possible.

    Training frees and allocates the same tables of megabytes at every step. The C library of
    Linux gives such memory back to the system, and every page of it is then fetched and cleared
    again: over a thousand page faults a step of LightGCN on 26,000 nodes, a tenth to a third of
    its time. From here on blocks up to 32 MiB come from a heap that shrinks only when 1 GiB of
    it is free, at the price of holes in that heap. Beside a model that itself holds much, whose
    step takes long anyway, only blocks up to 2 MiB do: for CM3 with features of 126 MB that is a
    tenth less memory for a twentieth more time. What is free already is given back first.
    Elsewhere than on glibc nothing happens.

    Args:
        held: bytes of the model with its features; much from `MUCH` on.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    set_option = getattr(libc, "mallopt", None)
    if set_option is None:
        return False
    libc.malloc_trim(0)
    largest = (2 if held >= MUCH else 32) << 20
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    return bool(set_option(mmap_threshold, largest) and set_option(trim_threshold, 1 << 30))
