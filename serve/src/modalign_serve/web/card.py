"""The model's card: the manifest as tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modalign_serve.artifact.manifest import Manifest

FIRST = ("recall", "ndcg", "hit", "precision", "map", "mrr", "coverage", "novelty", "popularity")


def tables(manifest: Manifest, n_pictures: int = 0) -> dict[str, Any]:
    """Values for the card's template.

    Args:
        manifest: of the artifact.
        n_pictures: in it.

    Returns:
        metrics: by split, a row of each metric with a value at each cutoff; cutoffs; facts about
        the fold-in, the adapter, the storage, the index and the configuration as pairs of words
        and values; files with their sizes and hashes, and the total size.
    """
    cutoffs: list[int] = sorted(
        {at for split in manifest.metrics.values() for name in split if (at := _cutoff(name)) >= 0}
    )
    return {
        "cutoffs": cutoffs,
        "metrics": [
            (split, _rows(manifest.metrics[split], cutoffs))
            for split in sorted(manifest.metrics, key=lambda split: split != "test")
            if manifest.metrics[split]
        ],
        "facts": {
            "New users, from a list of items": _pairs(manifest.fold_in),
            "New items, from their features": _pairs(manifest.adapter),
            "Cost of the storage format": _pairs(manifest.loss),
            "Approximate search": _pairs(manifest.index),
        },
        "config": sorted(manifest.config.items()),
        "files": sorted((name, one.size, one.sha256) for name, one in manifest.files.items()),
        "n_pictures": n_pictures,
        "size": sum(one.size for one in manifest.files.values()),
    }


def _cutoff(name: str) -> int:
    found = re.fullmatch(r".+@(\d+)", name)
    return int(found.group(1)) if found else -1


def _rows(values: Mapping[str, float], cutoffs: list[int]) -> list[tuple[str, list[float | None]]]:
    names = dict.fromkeys(name.partition("@")[0] for name in values if _cutoff(name) >= 0)
    order = sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    return [(name, [values.get(f"{name}@{at}") for at in cutoffs]) for name in order]


def _pairs(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Words and values; a method that was measured gives its measures, a list of trials its length.

    Example:
        >>> _pairs({"default": "map", "map": {"cosine": 0.9}, "tried": [1, 2]})
        [('default', 'map'), ('map: cosine', 0.9), ('tried', 2)]
    """
    found: list[tuple[str, Any]] = []
    for name, value in facts.items():
        words = name.replace("_", " ")
        if isinstance(value, Mapping):
            found += [(f"{words}: {inner.replace('_', ' ')}", one) for inner, one in value.items()]
        elif isinstance(value, list):
            plain = all(isinstance(one, str) for one in value)
            found.append((words, ", ".join(value) if plain else len(value)))
        else:
            found.append((words, value))
    return found
