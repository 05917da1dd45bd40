"""Is the mechanism alive? The vital signs of runs over their epochs, judged in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modalign.core.vital_signs import VitalSign, readings
from modalign.experiments.fitted import FittedModel
from modalign.report import plots


def mechanisms(runs: Mapping[str, FittedModel]) -> list[dict[str, Any]]:
    """For each run that reports vital signs: its signs, and how many are below their bounds."""
    found = []
    for place, (name, fitted) in enumerate(runs.items()):
        signs = [_card(fitted, sign, f"sign-{place}-{at}") for at, sign in enumerate(fitted.signs)]
        signs = [one for one in signs if one["readings"]]
        if signs:
            judged = [one for sign in signs for one in sign["readings"]]
            idle = sum(not one.alive for one in judged)
            found.append(
                {
                    "name": name,
                    "best": fitted.results["best_epoch"],
                    "signs": signs,
                    "idle": idle,
                    "judged": len(judged),
                }
            )
    return found


def _card(fitted: FittedModel, sign: VitalSign, ids: str) -> dict[str, Any]:
    best = fitted.results["best_epoch"]
    series: dict[str, dict[float, float]] = {}
    for record in fitted.history:
        for one in readings([sign], record):
            series.setdefault(one.part or sign.name, {})[record["epoch"]] = one.value
    at_best = [one for one in fitted.vital_signs if one.sign == sign]
    svg = plots.lines(
        {part: (list(points), list(points.values())) for part, points in series.items()},
        "epoch",
        "",
        stars={one.part or sign.name: (best, one.value) for one in at_best},
        bound=sign.at_least,
        size=plots.SMALL,
        ids=ids,
    )
    return {"sign": sign, "readings": at_best, "svg": svg}
