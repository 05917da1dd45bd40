"""Where tensors live: the only module that asks torch which devices there are."""

from __future__ import annotations

import ctypes
import sys
from itertools import chain
from typing import Literal

import torch

from modalign.errors import ConfigError

Precision = Literal["32-true", "bf16-mixed"]
"""float32 throughout, or products in bfloat16 where torch autocasts them."""

LARGE_MODEL = 64 << 20
"""Bytes of a model from which holes in the heap cost more than page faults."""


def resolve(device: str | torch.device = "auto") -> torch.device:
    """The device for a name: "auto" (CUDA if available, else the CPU), "cpu", "cuda:1".

    Raises:
        ConfigError: this machine has no such device.

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
        raise ConfigError("a device: auto, cpu, cuda or cuda:N", repr(device), "omit the option")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        got = f"{device} where torch sees {torch.cuda.device_count()}"
        fix = "use --device cpu, or install a CUDA build of torch"
        raise ConfigError("a CUDA device of this machine", got, fix)
    return found


def of(module: torch.nn.Module) -> torch.device:
    """The device of a module's parameters and buffers; the CPU if it has none.

    Example:
        >>> of(torch.nn.Linear(1, 1)), of(torch.nn.ReLU())
        (device(type='cpu'), device(type='cpu'))
    """
    held = chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in held), torch.device("cpu"))


def gpu_name() -> str | None:
    """The name of the current CUDA device; None without one."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def keep_freed_memory(held: int = 0) -> bool:
    """Let this process keep freed memory for its next tensors, and say whether that is possible.

    Training frees and allocates the same tables of megabytes at every step. The C library of
    Linux returns such memory to the system, which then maps and clears every page again: over
    1,000 page faults per step of LightGCN on 26,000 nodes, 10% to 33% of its time. After this
    call blocks of up to 32 MiB come from a heap that shrinks only when 1 GiB of it is free, at
    the price of holes in that heap. For a large model, whose steps take long anyway, the limit is
    2 MiB: CM3 with features of 126 MB then needs 10% less memory and 5% more time. Memory that is
    already free is returned first. Without glibc the call does nothing.

    Args:
        held: bytes of the model with its features; from `LARGE_MODEL` on it counts as large.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    set_option = getattr(libc, "mallopt", None)
    if set_option is None:
        return False
    libc.malloc_trim(0)
    largest = (2 if held >= LARGE_MODEL else 32) << 20
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    return bool(set_option(mmap_threshold, largest) and set_option(trim_threshold, 1 << 30))
