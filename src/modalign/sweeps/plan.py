"""Which options, which seeds."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from modalign.core import seeds as generators
from modalign.core import settings
from modalign.data.dataset import Dataset
from modalign.errors import ConfigError, DataError

LONGEST = 80  # characters of a folder's name


@dataclass(frozen=True)
class SweepPlan:
    """Sets of options, each to be run with every seed.

    Attributes:
        settings: options by the name of their set; they win over the job's own.
        seeds: one run of every set for each.
        grid: the options that were varied and their values; empty where sets were named.

    Raises:
        ConfigError: no set, no seed, a seed twice or a negative one.
    """

    settings: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...]
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.settings:
            raise ConfigError("at least one set of options", "none", "name one, or give a grid")
        good = self.seeds and min(self.seeds) >= 0 and len(set(self.seeds)) == len(self.seeds)
        if not good:
            got = ", ".join(map(str, self.seeds)) or "none"
            fix = "write each seed once: 1,2,3"
            raise ConfigError("one or more different seeds, 0 or larger", got, fix)

    @classmethod
    def of_grid(
        cls,
        grid: Mapping[str, Sequence[Any]],
        seeds: Sequence[int] = (1,),
        sample: int | None = None,
        seed: int = 1,
    ) -> SweepPlan:
        """Every combination of the values, or some drawn without repetition.

        Args:
            grid: values by option.
            seeds: of the runs.
            sample: how many combinations to draw; None takes all.
            seed: of the draw.

        Raises:
            ConfigError: an option without values or with one twice, or a sample larger than
                the grid.

        Example:
            >>> list(SweepPlan.of_grid({"reg": [0.1, 0.01], "n_layers": [1, 2]}).settings)
            ['reg=0.1 n_layers=1', 'reg=0.1 n_layers=2', 'reg=0.01 n_layers=1', \
'reg=0.01 n_layers=2']
            >>> len(SweepPlan.of_grid({"reg": [0.1, 0.01], "n_layers": [1, 2]}, sample=3).settings)
            3
        """
        for key, values in grid.items():
            _check_values(key, values)
        sizes = [len(values) for values in grid.values()]
        total = math.prod(sizes) if sizes else 0
        places: Sequence[int] = range(total)
        if sample is not None:
            if not 1 <= sample <= total:
                expected = f"a sample of 1 to {total} of the grid's {total} combinations"
                fix = "draw fewer, or leave the sample out to run them all"
                raise ConfigError(expected, str(sample), fix)
            rng = generators.numpy_generator(seed, "sweep")
            places = sorted(rng.choice(total, sample, replace=False, shuffle=False).tolist())
        sets = [_combination(grid, place) for place in places]
        named = {" ".join(f"{k}={text(v)}" for k, v in one.items()): one for one in sets}
        return cls(named, tuple(seeds), {key: list(values) for key, values in grid.items()})

    def folders(self) -> dict[str, str]:
        """A folder name for every set: its own name, without what a file system may refuse."""
        slugs = {name: re.sub(r"[^\w.=+-]+", "_", name).strip("._") for name in self.settings}
        count = Counter(slug.lower() for slug in slugs.values())
        return {
            name: slug
            if slug and len(slug) <= LONGEST and count[slug.lower()] == 1
            else f"{slug[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
            for name, slug in slugs.items()
        }


def chosen(
    dataset: Dataset,
    plan: SweepPlan | Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    fixed: Collection[str],
) -> SweepPlan:
    """The plan of a sweep as it is asked for.

    Args:
        dataset: that has to have a part to choose by.
        plan: a plan, or a grid of values by option.
        seeds: of the runs, where `plan` is a grid.
        fixed: options that all runs have.

    Raises:
        ConfigError: an option both fixed and in the grid.
        DataError: no validation part.
    """
    if not isinstance(plan, SweepPlan):
        plan = SweepPlan.of_grid(plan, seeds)
    twice = sorted(set(plan.grid) & set(fixed))
    if twice:
        raise ConfigError(
            "options that are either fixed or in the grid", f"{twice[0]!r} in both", "drop one"
        )
    if not len(dataset.valid):
        got = f"{dataset.name!r} without one"
        fix = "import the data with a split that has one"
        raise DataError("data with a validation part to choose by", got, fix)
    return plan


def parse_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """`["reg=0.001,0.01", "modalities=[text],[image]"]` to values by option, read as YAML.

    Raises:
        ConfigError: not of the form key=value,value, an option twice, or a list that YAML
            cannot read.

    Example:
        >>> parse_grid(["reg=1e-3,0.01", "fusion=none,linear", "modalities=[text],[text,image]"])
        {'reg': [0.001, 0.01], 'fusion': ['none', 'linear'], 'modalities': [['text'], \
['text', 'image']]}
    """
    found: dict[str, list[Any]] = {}
    for given in texts:
        key, equals, values = (part.strip() for part in given.partition("="))
        if not (key and equals and values):
            fix = "write --grid reg=0.001,0.01,0.1"
            raise ConfigError("an option with its values, as key=value,value", repr(given), fix)
        if key in found:
            raise ConfigError(
                "every option once in the grid", f"{key!r} twice", "put its values in one --grid"
            )
        try:
            read = yaml.safe_load(f"[{values}]")
        except yaml.YAMLError as error:
            raise ConfigError(
                f"values of {key!r} with commas between them",
                repr(values),
                "close every bracket and quote: modalities=[text],[text,image]",
            ) from error
        found[key] = [settings.scalar(value) for value in read]
        _check_values(key, found[key])
    return found


def text(value: Any) -> str:
    """A value as one would write it on the command line."""
    return f"[{','.join(map(text, value))}]" if isinstance(value, list | tuple) else str(value)


def _check_values(key: str, values: Any) -> None:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ConfigError(f"a list of values of {key!r}", repr(values), "give one value or more")
    known = [text(value) for value in values]
    twice = [value for value, n in Counter(known).items() if n > 1]
    if twice or any(value is None or value == "" for value in values):
        got = f"{twice[0]} twice" if twice else "an empty one"
        fix = "write each value once, with one comma between two"
        raise ConfigError(f"different values of {key!r}", got, fix)


def _combination(grid: Mapping[str, Sequence[Any]], place: int) -> dict[str, Any]:
    """Number `place` of all combinations; the last option varies fastest."""
    found = {}
    for key, values in reversed(list(grid.items())):
        place, index = divmod(place, len(values))
        found[key] = values[index]
    return dict(reversed(found.items()))
