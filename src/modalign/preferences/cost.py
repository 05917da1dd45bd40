"""What asking will cost, told before the first question."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from modalign.errors import ConfigError


def about_tokens(text: str) -> int:
    """Tokens of a text, roughly: a quarter of its ASCII characters, and each other character.

    Tokenizers differ; for English prose and lists the error is some 20%, for other scripts
    this is on the high side.

    Example:
        >>> about_tokens("A red leather shoe for running")
        8
    """
    other = sum(1 for one in text if not one.isascii())
    return -(-(len(text) - other) // 4) + other


@dataclass(frozen=True)
class Estimate:
    """What a run will ask and cost, roughly.

    Attributes:
        questions: that will be asked.
        known: that have their answer in the cache and cost nothing.
        tokens_in: of all prompts, roughly.
        tokens_out: of all answers at most.
        price: of all, at most, in the currency of the prices given; None without prices.
        minutes: at least, by the rate limits; None without limits.
    """

    questions: int
    known: int
    tokens_in: int
    tokens_out: int
    price: float | None = None
    minutes: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def estimate(
    prompts: Iterable[str],
    known: int,
    max_tokens: int,
    price_in: float | None = None,
    price_out: float | None = None,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
) -> Estimate:
    """Count before asking.

    Args:
        prompts: that will be asked.
        known: how many others have their answer already.
        max_tokens: of one answer.
        price_in: of a million tokens of prompts.
        price_out: of a million tokens of answers.
        requests_per_minute: limit.
        tokens_per_minute: limit.

    Raises:
        ConfigError: one price without the other.

    Example:
        >>> estimate(["x" * 4000] * 10, 0, 100, price_in=1.0, price_out=2.0).price
        0.012
    """
    counts = [about_tokens(prompt) for prompt in prompts]
    n, tokens_in, tokens_out = len(counts), sum(counts), len(counts) * max_tokens
    if (price_in is None) != (price_out is None):
        raise ConfigError(
            "a price for tokens of prompts and one for tokens of answers",
            f"only that of {'answers' if price_in is None else 'prompts'}",
            "give both --price-in and --price-out, for a million tokens each",
        )
    price = None
    if price_in is not None and price_out is not None:
        price = (tokens_in * price_in + tokens_out * price_out) / 1e6
    minutes = [
        amount / limit
        for amount, limit in ((n, requests_per_minute), (tokens_in + tokens_out, tokens_per_minute))
        if limit
    ]
    return Estimate(n, known, tokens_in, tokens_out, price, max(minutes, default=None))
