"""Checks of the input: errors say what was expected, what was given, and how to fix it."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64)
_BALANCE = 1e-3  # relative difference of total masses that rounding may cause


def refuse(expected: str, got: str, fix: str) -> ValueError:
    """An error that states these three facts; the caller raises it."""
    return ValueError(f"Expected {expected}, got {got}. To fix: {fix}")


def one_of(name: str, value: str, known: Collection[str]) -> None:
    """Refuses a word that is not among the known ones."""
    if value not in known:
        words = ", ".join(repr(word) for word in known)
        raise refuse(f"{name} to be one of {words}", repr(value), "choose one of these")


def at_least(name: str, value: float, low: float, *, open_end: bool = False) -> None:
    """Refuses a number below `low`, or equal to it where the end is open."""
    if not (value > low if open_end else value >= low):
        sign = ">" if open_end else ">="
        raise refuse(f"{name} {sign} {low:g}", f"{value!r}", "give a larger number")


def floats(name: str, tensor: Tensor, least_dims: int, like: Tensor | None = None) -> None:
    """Refuses anything but a float32 or float64 tensor with enough dimensions.

    With `like` it also refuses another type or device than that of `like`.
    """
    if not isinstance(tensor, Tensor) or tensor.dtype not in FLOATS:
        got = str(tensor.dtype) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise refuse(f"{name} as a float32 or float64 tensor", got, "convert it with .float()")
    if tensor.dim() < least_dims:
        expected = f"{name} with at least {least_dims} dimensions"
        raise refuse(expected, f"shape {tuple(tensor.shape)}", "add dimensions with unsqueeze")
    if like is not None and (tensor.dtype != like.dtype or tensor.device != like.device):
        expected = f"{name} of {like.dtype} on {like.device}"
        raise refuse(expected, f"{tensor.dtype} on {tensor.device}", "convert it with .to(...)")


def finite(name: str, tensor: Tensor) -> None:
    """Refuses NaN and infinities, by one reduction without a temporary of the tensor's size."""
    if tensor.numel() and not bool(tensor.detach().sum(dtype=torch.float64).isfinite()):
        raise refuse(
            f"finite numbers in {name}", "NaN or an infinity", "mask or drop missing values"
        )


def weights(name: str, given: Tensor | None, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Weights of a shape: those given, broadcast over problems, or uniform ones of mass 1."""
    if given is None:
        return like.new_full(shape, 1.0 / max(shape[-1], 1))
    floats(name, given, 1, like)
    if given.shape[-1] != shape[-1]:
        fix = "give one weight for each point of that side"
        raise refuse(f"{shape[-1]} weights in {name}", f"{given.shape[-1]}", fix)
    finite(name, given)
    seen = given.detach()
    if bool((seen < 0).any()) or bool((seen.sum(-1) <= 0).any()):
        got = f"a minimum of {float(seen.min()):g}, a smallest sum of {float(seen.sum(-1).min()):g}"
        raise refuse(f"weights {name} >= 0 with a positive sum", got, "clamp or normalise them")
    return given.expand(shape)


def same_mass(a: Tensor, b: Tensor) -> None:
    """Refuses different totals, for which no balanced plan exists."""
    left, right = a.detach().sum(-1), b.detach().sum(-1)
    if bool(((left - right).abs() > _BALANCE * torch.maximum(left, right)).any()):
        got = f"totals of up to {float(left.max()):g} in a and {float(right.max()):g} in b"
        fix = "normalise both, or relax the marginals with `penalty` or `mass`"
        raise refuse("the same total mass on both sides of a balanced problem", got, fix)
