"""The conclusion of a comparison in sentences that say no more than the tests allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from modalign.evaluate.compare import Comparison, MetricDifference


def finding(
    metric: str, values: Mapping[str, float], comparison: Comparison | None, n_users: int
) -> list[str]:
    """Sentences for the top of a page: the best run in `metric`, or that there is none.

    Args:
        metric: a metric such as `recall@20`.
        values: its value for each run, or for the mean over seeds; not read if the comparison
            lacks `metric`.
        comparison: None if there is one run, or one with several seeds.
        n_users: number of users in the average.
    """
    if comparison is not None and metric not in comparison.winner:
        return ["The runs have no cut-off in common, so they cannot be compared."]
    best = max(values, key=lambda name: values[name])
    if comparison is None:
        reached = f"{best} reaches {metric} {values[best]:.4f} over {n_users:,} users."
        return [reached, "There is no other model or set of options to compare it with."]
    leads = sorted(
        (lead(best, other, metric, comparison) for other in comparison.runs if other != best),
        key=lambda pair: pair.difference,
    )
    if comparison.winner[metric] == best:
        near = leads[0]
        which = f"{near.second}, the next best" if len(leads) > 1 else near.second
        first = (
            f"{best} is best in {metric}: {values[best]:.4f}, {near.difference:+.4f} over {which}."
        )
        ahead = " It is significantly better than every other run." if len(leads) > 1 else ""
        return [first, f"{_numbers(near)}.{ahead}", _count(comparison)]
    near, *more = [pair for pair in leads if not pair.significant]
    rest = f" and {len(more)} more" if more else ""
    first = (
        f"No run is best in {metric}: {best} has the highest mean, {values[best]:.4f}, "
        f"but its lead over {near.second}{rest} is not significant."
    )
    second = f"{near.difference:+.4f} over {near.second}, {_numbers(near)}."
    return [first, second, _count(comparison)]


def lead(best: str, other: str, metric: str, comparison: Comparison) -> MetricDifference:
    """The test of two runs, turned so that `best` comes first.

    Args:
        best: name of a run.
        other: name of another run.
        metric: a metric such as `recall@20`.
        comparison: holds the tests.

    Raises:
        KeyError: the comparison has no such test.
    """
    for pair in comparison.pairs:
        if pair.metric == metric and {pair.first, pair.second} == {best, other}:
            if pair.first == best:
                return pair
            values = {**vars(pair), "first": best, "second": other}
            values |= {"difference": -pair.difference, "low": -pair.high, "high": -pair.low}
            return MetricDifference(**values)
    raise KeyError(f"{best} against {other} in {metric}")


def p_value(p: float) -> str:
    """For readers: `p = 0.041`, or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _numbers(pair: MetricDifference) -> str:
    return (
        f"95% interval {pair.low:+.4f} to {pair.high:+.4f} over users; "
        f"{p_value(pair.corrected)} after Holm's correction"
    )


def _count(comparison: Comparison) -> str:
    wins = Counter(comparison.winner.values())
    none = wins.pop(None, 0)
    parts = [f"{name} wins {n}" for name, n in wins.most_common()]
    parts += [f"{none} {'has' if none == 1 else 'have'} no winner"] if none else []
    return f"Of {len(comparison.winner)} combinations of metric and cut-off, {', '.join(parts)}."
