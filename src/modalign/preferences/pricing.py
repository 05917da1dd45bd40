"""What asking a language model will cost, estimated before the first question."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from modalign.errors import ConfigError


def about_tokens(text: str) -> int:
    """Estimated tokens of a text: a quarter of its ASCII characters plus all other characters.

    Tokenizers differ: the error is about 20% for English prose and lists; for other scripts
    the estimate is too high.

    Example:
        >>> about_tokens("A red leather shoe for running")
        8
    """
    other = sum(1 for one in text if not one.isascii())
    return -(-(len(text) - other) // 4) + other


@dataclass(frozen=True)
class Estimate:
    """What a run will ask and cost, estimated.

    Attributes:
        known: number of questions whose answer is stored and costs nothing.
        tokens_out: maximum number of tokens of all answers.
        price: maximum price in the currency of the given prices; None without prices.
        minutes: minimum duration under the rate limits; None without limits.
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
    """The cost of a number of questions.

    Args:
        prompts: the questions that will be asked.
        known: number of further questions whose answer is stored.
        max_tokens: maximum length of one answer in tokens.
        price_in: price of a million tokens of prompts; given together with `price_out`.
        price_out: price of a million tokens of answers.
        requests_per_minute: maximum number of requests per minute; None for no limit.
        tokens_per_minute: maximum number of tokens per minute; None for no limit.

    Raises:
        ConfigError: one price without the other.

    Example:
        >>> estimate(["x" * 4000] * 10, 0, 100, price_in=1.0, price_out=2.0).price
        0.012
    """
    counts = [about_tokens(prompt) for prompt in prompts]
    n, tokens_in, tokens_out = len(counts), sum(counts), len(counts) * max_tokens
    if (price_in is None) != (price_out is None):
        expected = "a price for the tokens of prompts and one for those of answers"
        got = f"only the price of {'answers' if price_in is None else 'prompts'}"
        raise ConfigError(expected, got, "give both --price-in and --price-out, per million tokens")
    price = None
    if price_in is not None and price_out is not None:
        price = (tokens_in * price_in + tokens_out * price_out) / 1e6
    minutes = [
        amount / limit
        for amount, limit in ((n, requests_per_minute), (tokens_in + tokens_out, tokens_per_minute))
        if limit
    ]
    return Estimate(n, known, tokens_in, tokens_out, price, max(minutes, default=None))
