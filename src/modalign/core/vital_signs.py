"""Whether the mechanism that gives a model its name works while it trains.

A model declares its vital signs as a class attribute and reports their values, numbers in [0, 1],
through `diagnostics()` under the prefix `alive/`: `alive/NAME`, or `alive/NAME/PART` where there is
one for each modality or part. Values stand in `metrics.jsonl`; the best epoch's are judged at the
end of training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PREFIX = "alive/"


@dataclass(frozen=True)
class VitalSign:
    """One number in [0, 1] by which a mechanism is judged.

    Attributes:
        name: under which `diagnostics()` reports it, without the prefix.
        meaning: what it measures, in a few words.
        at_least: the bound below which the mechanism does nothing.
        advice: which option to set where it is below.
        parts: the parts that are judged; empty judges all that are reported.
    """

    name: str
    meaning: str
    at_least: float
    advice: str
    parts: tuple[str, ...] = ()


STUDENT = (
    VitalSign(
        "agreement",
        "share of the source's 20 best unseen items among the target's",
        0.1,
        "raise logit_weight or embedding_weight",
    ),
    VitalSign(
        "improvement",
        "share of the validation metric that all stages have added to a start from the teacher",
        0.01,
        "compare with --variant warm-start-only, and try --variant per-user",
    ),
)
"""The signs of a distilled model, for every architecture."""


@dataclass(frozen=True)
class Reading:
    """The value of a vital sign.

    Attributes:
        sign: what was measured.
        part: modality or part that it was measured of; empty where there is only one.
        value: in [0, 1].
    """

    sign: VitalSign
    part: str
    value: float

    @property
    def alive(self) -> bool:
        """Whether the value reaches its bound."""
        return self.value >= self.sign.at_least

    @property
    def title(self) -> str:
        """The sign and what it was measured of."""
        return f"{self.sign.name} of {self.part}" if self.part else self.sign.name


def readings(signs: Sequence[VitalSign], record: Mapping[str, float]) -> list[Reading]:
    """The vital signs in one record of `metrics.jsonl`; none for those that it lacks.

    Example:
        >>> spread = VitalSign("spread", "deviation of the similarity", 0.01, "detach it")
        >>> found = readings([spread], {"epoch": 3, "alive/spread": 0.002})
        >>> found[0].title, found[0].alive
        ('spread', False)
    """
    return list(_read(signs, record))


def at_epoch(
    signs: Sequence[VitalSign], history: Sequence[Mapping[str, float]], epoch: int | None
) -> list[Reading]:
    """The vital signs in the record of one epoch; none where there is no such record.

    Args:
        signs: those to read.
        history: records of all epochs.
        epoch: its number, usually the best epoch's.
    """
    return [one for record in history if record["epoch"] == epoch for one in _read(signs, record)]


def warning(found: Sequence[Reading], model: str) -> str | None:
    """One sentence about the vital signs below their bounds and what to set; None where all hold.

    Example:
        >>> spread = VitalSign("spread", "deviation of the similarity", 0.01, "set detach=true")
        >>> warning([Reading(spread, "", 0.002)], "cm3")
        'the mechanism of cm3 is idle: spread (deviation of the similarity) is 0.002, below 0.01; \
to change that, set detach=true'
    """
    idle = [one for one in found if not one.alive]
    if not idle:
        return None
    facts = [
        f"{one.title} ({one.sign.meaning}) is {one.value:.3g}, below {one.sign.at_least:g}"
        for one in idle
    ]
    advice = list(dict.fromkeys(one.sign.advice for one in idle))
    return (
        f"the mechanism of {model} is idle: {'; '.join(facts)}; to change that, {'; '.join(advice)}"
    )


def gradient_shares(parts: Mapping[str, Tensor], params: Sequence[Tensor]) -> dict[str, float]:
    """Share of each part of a loss in the gradient of shared parameters, by length.

    Args:
        parts: scalars by name; their graphs are kept.
        params: the parameters.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> gradient_shares({"a": w[0], "b": w[1]}, [w])
        {'a': 0.5, 'b': 0.5}
    """
    lengths = {}
    for name, part in parts.items():
        square = 0.0
        if part.requires_grad:
            slopes = torch.autograd.grad(part, params, retain_graph=True, allow_unused=True)
            square = sum(float(one.square().sum()) for one in slopes if one is not None)
        lengths[name] = math.sqrt(square)
    total = sum(lengths.values()) or 1.0
    return {name: length / total for name, length in lengths.items()}


def _read(signs: Sequence[VitalSign], record: Mapping[str, float]) -> Iterator[Reading]:
    for sign in signs:
        start = PREFIX + sign.name
        for key, value in record.items():
            part = key[len(start) + 1 :]
            named = key == start or key.startswith(start + "/")
            if named and (not sign.parts or part in sign.parts):
                yield Reading(sign, part, float(value))
