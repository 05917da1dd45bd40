"""Describing the users of a data set: training items in, a modality of users out."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from modalign.core.files import write_aside
from modalign.core.modality import Modality
from modalign.data.dataset import Dataset
from modalign.data.modality_file import write_modality
from modalign.errors import ConfigError, DataError
from modalign.preferences.asking import with_template
from modalign.preferences.base import (
    Descriptions,
    PreferenceTextProvider,
    PreferenceVectorProvider,
    Progress,
)
from modalign.preferences.embed import EncoderEmbedder, TextEmbedder, centred, need_present
from modalign.preferences.side import TrainingSide, training_side

FOLDER = "profiles"
ANSWERS = "answers.sqlite"
NAME = "preference"


@dataclass(frozen=True)
class DescribeReport:
    """What one describing did.

    Attributes:
        modality: its name.
        n_users: users in all.
        n_present: users with a vector.
        dim: width of a vector.
        sources: how many texts came from where (model, cache, template, file).
        failures: user id and reason of questions that failed and that the template answers.
        seconds: how long it took.
        skipped: the very same modality was there already and nothing was done.
    """

    modality: str
    n_users: int
    n_present: int
    dim: int
    sources: dict[str, int] = field(default_factory=dict)
    failures: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    skipped: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def describe(
    dataset: Dataset,
    provider: PreferenceTextProvider | PreferenceVectorProvider,
    *,
    embedder: TextEmbedder | None = None,
    name: str = NAME,
    columns: Sequence[str] | None = None,
    centre: bool = True,
    fallback: bool = False,
    force: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Dataset, DescribeReport]:
    """Say what each user likes, from training items alone, and keep it as a modality of users.

    With texts s_u of the provider: `p_u = unit(Embed(s_u) - mean over users)` (equation R1 of
    RecGOAT, centred). Users without training items, and without a text, are not present. Where
    the very same modality is there already, nothing is done.

    Args:
        dataset: with a folder, the modality is written to `modalities/NAME.safetensors` and the
            texts to `profiles/NAME.parquet` (user_id, text, source); else kept in memory.
        provider: of texts, or of vectors.
        embedder: of texts; None takes tf-idf with a truncated SVD. It sees the items' texts
            first. Not asked where the provider gives vectors.
        name: of the modality.
        columns: item columns that make the texts; None takes the usual ones.
        centre: take the mean over users from the vectors of texts, and scale them to length one.
        fallback: let the template answer for questions that failed, rather than stop.
        force: describe again even if the same modality is there. Answers of a language model
            come from its cache all the same.
        seed: of the choice among a user's items where times are not known.
        progress: called with (questions done, questions in all).

    Returns:
        The data set with the modality, and a report.

    Raises:
        DataError: questions failed (what was answered is kept in the cache), or no user got a
            vector.
        ConfigError: a name that is no plain name, or that of a modality of items.
    """
    start = time.perf_counter()
    _check_name(dataset, name)
    side = training_side(dataset, columns, seed)
    texting = isinstance(provider, PreferenceTextProvider)
    if texting and embedder is None:
        embedder = EncoderEmbedder()
    facts = _provenance(side, provider, embedder if texting else None, centre)
    tell = progress or (lambda done, total: None)
    old = dataset.modalities.get(name)
    if old is not None and old.provenance.get("key") == facts["key"] and not force:
        tell(len(side.active), len(side.active))
        return dataset, _report(old, start, skipped=True)
    told: Descriptions | None = None
    if isinstance(provider, PreferenceTextProvider) and embedder is not None:
        told = provider.describe(side, tell)
        if told.failures or told.unasked:
            told = _without_failures(told, side, fallback)
        features, present = _embedded(told, side, embedder, centre)
        facts["sources"] = dict(Counter(one for one in told.sources if one is not None))
        facts["failed"] = [[one.user_id, one.reason] for one in told.failures]
    elif isinstance(provider, PreferenceVectorProvider):
        features, present = provider.vectors(side)
        tell(len(side.active), len(side.active))
    need_present(present, facts["provider"])
    made = Modality(name, features, present, "user", json.loads(json.dumps(facts, default=str)))
    out = dataset.with_modality(made)
    if dataset.folder is not None:
        _write_texts(dataset, name, told)
        write_modality(dataset.folder / "modalities", made, dataset)
    return out, _report(made, start)


def texts_of(dataset: Dataset, name: str = NAME) -> pl.DataFrame:
    """The texts of a described data set: user_id, text, source; one row for each user.

    Raises:
        DataError: there are none.
    """
    _plain(name)
    path = texts_path(dataset, name)
    if path is None or not path.is_file():
        raise DataError(
            f"texts about users in {path or 'a data folder'}",
            "none",
            "describe the users first: `modalign describe DATA`",
        )
    return pl.read_parquet(path)


def texts_path(dataset: Dataset, name: str) -> Path | None:
    """Where the texts of a modality are; None for a data set without a folder."""
    return None if dataset.folder is None else dataset.folder / FOLDER / f"{name}.parquet"


def answers_path(dataset: Dataset) -> Path | None:
    """Where answers of language models are kept; None for a data set without a folder."""
    return None if dataset.folder is None else dataset.folder / FOLDER / ANSWERS


def _check_name(dataset: Dataset, name: str) -> None:
    _plain(name)
    old = dataset.modalities.get(name)
    if old is not None and old.entity == "item":
        raise ConfigError(
            "a name for the users' modality", f"{name!r}, features of items", "choose another name"
        )


def _plain(name: str) -> None:
    if not name or Path(name).name != name or name.startswith("."):
        raise ConfigError("a plain name of a modality", repr(name), "name it such as preference")


def _provenance(
    side: TrainingSide, provider: Any, embedder: TextEmbedder | None, centre: bool
) -> dict[str, Any]:
    """All that the numbers depend on, with a key that hashes it. No date, no path."""
    facts = {
        **provider.provenance(side),
        "train": side.fingerprint,
        "texts": side.text_hash,
        "seed": side.seed,
    }
    if embedder is not None:
        facts |= {"embedder": embedder.fingerprint, "centred": centre}
    text = json.dumps(facts, sort_keys=True, default=str)
    return {**facts, "key": hashlib.sha256(text.encode()).hexdigest()[:16]}


def _without_failures(told: Descriptions, side: TrainingSide, fallback: bool) -> Descriptions:
    """The template's sentence for users whose question failed.

    Raises:
        DataError: it was not asked to answer.
    """
    n, asked = len(told.failures), len(side.active)
    if not fallback or told.unasked:
        first = told.failures[0] if told.failures else None
        rest = f"; {told.unasked:,} more were not asked after so many in a row" * bool(told.unasked)
        raise DataError(
            f"an answer about each of {asked:,} users",
            f"{n:,} that failed"
            + (f" (user {first.user_id}: {first.reason})" if first else "")
            + rest,
            f"run the same command again: the {asked - n - told.unasked:,} answers there are will "
            "not be asked for again; or take the template for what fails with --fallback",
        )
    rows = side.users.rows([one.user_id for one in told.failures]).tolist()
    return with_template(told, side, rows)


def _embedded(
    told: Descriptions, side: TrainingSide, embedder: TextEmbedder, centre: bool
) -> tuple[np.ndarray, np.ndarray]:
    embedder.fit([text for text in side.texts if text] or [text for text in told.texts if text])
    features, present = embedder.encode(told.texts)
    return centred(features, present) if centre else (features, present)


def _write_texts(dataset: Dataset, name: str, told: Descriptions | None) -> None:
    path = texts_path(dataset, name)
    if path is None:
        return
    if told is None:
        path.unlink(missing_ok=True)
        return
    table = pl.DataFrame(
        {
            "user_id": dataset.users.series,
            "text": pl.Series(told.texts, dtype=pl.Utf8),
            "source": pl.Series(told.sources, dtype=pl.Utf8),
        }
    )
    with write_aside(path) as aside:
        table.write_parquet(aside)


def _report(modality: Modality, start: float, skipped: bool = False) -> DescribeReport:
    facts = modality.provenance
    return DescribeReport(
        modality.name,
        len(modality),
        int(modality.present.sum()),
        modality.dim,
        dict(facts.get("sources", {})),
        tuple((user, reason) for user, reason in facts.get("failed", ())),
        time.perf_counter() - start,
        skipped,
    )
