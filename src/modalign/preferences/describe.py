"""Describing the users of a data set: training items in, a modality of users out."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from modalign.core.files import write_aside
from modalign.core.modality import Modality
from modalign.core.settings import DEFAULT_SEED
from modalign.data.dataset import Dataset
from modalign.data.modality_file import write_modality
from modalign.encoding.encode import check_name
from modalign.encoding.encoders.encoder import facts_hash
from modalign.errors import ConfigError, DataError
from modalign.preferences.embed import EncoderEmbedder, TextEmbedder, centred, need_present
from modalign.preferences.language_model import with_template
from modalign.preferences.provider import (
    Descriptions,
    PreferenceTextProvider,
    ProgressCallback,
    Provider,
    ProviderContext,
    make_provider,
)
from modalign.preferences.side import TrainingSide, training_side

FOLDER = "preferences"
ANSWERS = "answers.sqlite"
NAME = "preference"


@dataclass(frozen=True)
class DescribeReport:
    """The result of one call of `describe`.

    Attributes:
        sources: number of texts from each source (model, cache, template, file).
        failures: user id and reason of failed questions, which the template answers.
        skipped: the same modality existed already, and nothing was done.
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
    provider: str | Provider = "template",
    *,
    embedder: str | TextEmbedder = "tfidf",
    name: str = NAME,
    columns: Sequence[str] | None = None,
    centre: bool = True,
    fallback: bool = False,
    force: bool = False,
    seed: int = DEFAULT_SEED,
    progress: ProgressCallback | None = None,
) -> tuple[Dataset, DescribeReport]:
    """Describe what each user likes, from training items only, as a modality of users.

    With the texts s_u of the provider, `p_u = unit(Embed(s_u) - mean over users)` (equation R1
    of RecGOAT, centred). Users without training items or without a text are not present. If
    the same modality exists already, nothing is done.

    Args:
        dataset: with a folder, the modality is written to `modalities/NAME.safetensors` and the
            texts to `preferences/NAME.parquet` (user_id, text, source); without one, the
            modality is kept in memory only.
        provider: of texts or of vectors: a name from `modalign.preferences.provider.PROVIDERS`,
            or an object, which `make_provider` builds with options.
        embedder: turns texts into vectors, and sees the items' texts first: the name of a text
            encoder, or an object. Ignored if the provider gives vectors.
        name: of the modality.
        columns: item columns that make the texts; None takes the usual ones.
        centre: subtract the mean over users from the vectors of texts, and scale them to
            length one.
        fallback: use the template for questions that failed, instead of raising an error.
        force: describe again even if the same modality exists. Stored answers of a language
            model are used all the same.
        seed: of the order of a user's items where times do not decide it; and of providers
            given by name that draw random numbers.
        progress: called with (questions done, all questions).

    Returns:
        The data set with the modality, and a report.

    Raises:
        DataError: questions failed (the answers are stored), or no user has a vector.
        ConfigError: the name is not plain, or belongs to a modality of items.
        UnknownName: there is no such provider, encoder or column.
    """
    start = time.perf_counter()
    _check_name(dataset, name)
    side = training_side(dataset, columns, seed)
    if isinstance(provider, str):
        context = ProviderContext(answers_path(dataset), seed=seed)
        provider = make_provider(provider, context)
    if isinstance(embedder, str):
        embedder = EncoderEmbedder(embedder)
    texts = isinstance(provider, PreferenceTextProvider)
    facts = _provenance(side, provider, embedder if texts else None, centre)
    report_progress = progress or (lambda done, total: None)
    old = dataset.modalities.get(name)
    if old is not None and old.provenance.get("key") == facts["key"] and not force:
        report_progress(len(side.active), len(side.active))
        return dataset, _report(old, start, skipped=True)
    found: Descriptions | None = None
    if isinstance(provider, PreferenceTextProvider):
        found = provider.describe(side, report_progress)
        if found.failures or found.not_asked:
            found = _without_failures(found, side, fallback)
        known = [text for text in side.texts if text] or [text for text in found.texts if text]
        embedder.fit(known)
        features, present = embedder.encode(found.texts)
        if centre:
            features, present = centred(features, present)
        facts["sources"] = dict(Counter(one for one in found.sources if one is not None))
        facts["failed"] = [[one.user_id, one.reason] for one in found.failures]
    else:
        features, present = provider.vectors(side)
        report_progress(len(side.active), len(side.active))
    need_present(present, facts["provider"])
    made = Modality(name, features, present, "user", json.loads(json.dumps(facts, default=str)))
    out = dataset.with_modality(made)
    if dataset.folder is not None:
        _write_texts(dataset, name, found)
        write_modality(dataset.folder / "modalities", made, dataset.users)
    return out, _report(made, start)


def texts_of(dataset: Dataset, name: str = NAME) -> pl.DataFrame:
    """The texts of a described data set: user_id, text, source; one row for each user.

    Raises:
        DataError: there are none.
    """
    check_name(name)
    path = _path(dataset, f"{name}.parquet")
    if path is None or not path.is_file():
        fix = "describe the users first: `modalign describe DATA`"
        raise DataError(f"texts about users in {path or 'a data folder'}", "none", fix)
    return pl.read_parquet(path)


def answers_path(dataset: Dataset) -> Path | None:
    """File of the answers of language models; None for a data set without a folder."""
    return _path(dataset, ANSWERS)


def _path(dataset: Dataset, file: str) -> Path | None:
    return None if dataset.folder is None else dataset.folder / FOLDER / file


def _check_name(dataset: Dataset, name: str) -> None:
    check_name(name)
    old = dataset.modalities.get(name)
    if old is not None and old.entity == "item":
        got = f"{name!r}, a modality of the items"
        raise ConfigError("a name for the users' modality", got, "choose another name")


def _provenance(
    side: TrainingSide, provider: Any, embedder: TextEmbedder | None, centre: bool
) -> dict[str, Any]:
    """All that the numbers depend on, and its hash as `key`; no date, no path."""
    facts = {
        **provider.provenance(side),
        "train": side.fingerprint,
        "texts": side.text_hash,
        "seed": side.seed,
    }
    if embedder is not None:
        facts |= {"embedder": embedder.fingerprint, "centred": centre}
    return {**facts, "key": facts_hash(facts)}


def _without_failures(found: Descriptions, side: TrainingSide, fallback: bool) -> Descriptions:
    """The template's sentence for users whose question failed."""
    n, asked = len(found.failures), len(side.active)
    if not fallback or found.not_asked:
        first = found.failures[0] if found.failures else None
        raise DataError(
            f"an answer about each of {asked:,} users",
            f"{n:,} failed question{'s' * (n != 1)}"
            + (f" (user {first.user_id}: {first.reason})" if first else "")
            + f", and {found.not_asked:,} not asked after them" * bool(found.not_asked),
            f"run the same command again, which reuses the {asked - n - found.not_asked:,} stored "
            "answers; or use the template for failed questions with --fallback",
        )
    rows = side.users.rows([one.user_id for one in found.failures]).tolist()
    return with_template(found, side, rows)


def _write_texts(dataset: Dataset, name: str, found: Descriptions | None) -> None:
    path = _path(dataset, f"{name}.parquet")
    if path is None:
        return
    if found is None:
        path.unlink(missing_ok=True)
        return
    table = pl.DataFrame(
        {
            "user_id": dataset.users.series,
            "text": pl.Series(found.texts, dtype=pl.Utf8),
            "source": pl.Series(found.sources, dtype=pl.Utf8),
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
