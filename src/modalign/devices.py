"""Where tensors live: the one place that chooses a device."""

from __future__ import annotations

import torch

from modalign.errors import ConfigError


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
    except RuntimeError as error:
        raise ConfigError(
            "a device: auto, cpu, cuda or cuda:N", repr(device), "leave the option out"
        ) from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            "a CUDA device of this machine",
            f"{device} where torch sees {torch.cuda.device_count()}",
            "use --device cpu, or install a CUDA build of torch",
        )
    return found
