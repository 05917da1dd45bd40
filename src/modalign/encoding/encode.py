"""Encoding a prepared data set: texts and pictures in, one modality file out.

The work is done in chunks, whose rows go to a cache (see `modalign.encoding.cache`): an
interruption loses one chunk, and what was encoded before, for any data set, is not encoded again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl

from modalign.core import devices
from modalign.core.modality import Modality
from modalign.data import item_files, item_text
from modalign.data.dataset import Dataset
from modalign.data.item_files import FileKind
from modalign.data.modality_file import write_modality
from modalign.encoding.cache import KEY, RowCache, cache_folder
from modalign.encoding.encoders.encoder import (
    Encoder,
    FittedEncoder,
    InputKind,
    MakesBags,
    NamesColumns,
    UnreadableInput,
    check_kind,
    facts_hash,
    kinds_of,
    make_encoder,
)
from modalign.encoding.encoders.precomputed import from_options
from modalign.errors import ConfigError, DataError, UnknownName

PATH_COLUMNS: dict[FileKind, str] = {kind: kind for kind in item_files.KINDS}
"""Item columns with the paths of files, by kind."""


@dataclass(frozen=True)
class EncodeReport:
    """The result of one call of `encode`.

    Attributes:
        n_missing: number of items without features, including unreadable ones.
        corrupt: id and reason of each item whose input could not be read; with the file, if any.
        skipped: the same modality existed already, and nothing was done.
        reused: number of items whose features came from the cache, or existed already.
        encoded: number of items whose features were computed.
    """

    modality: str
    n: int
    n_missing: int
    corrupt: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    skipped: bool = False
    reused: int = 0
    encoded: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def encodable(dataset: Dataset) -> list[str]:
    """Modalities that can be encoded from the columns of the item table: text, image.

    Example:
        >>> from modalign.data.interactions import Interactions
        >>> from modalign.data.vocabulary import Vocabulary
        >>> none = Interactions.empty()
        >>> table = pl.DataFrame({"item_id": ["a"], "title": ["A red shoe"]})
        >>> data = Dataset("x", Vocabulary(["u"], "user"), Vocabulary(["a"]), none, none, none,
        ...                item_table=table)
        >>> encodable(data)
        ['text']
    """
    table = dataset.item_table
    found = ["text"] if text_columns(dataset) else []
    for kind, column in PATH_COLUMNS.items():
        if column in table.columns and table[column].null_count() < len(table):
            found.append(kind)
    return found


def text_columns(dataset: Dataset) -> list[str]:
    """The item columns that make the text by default: those that the import chose."""
    return item_text.text_columns(dataset.item_table.schema, dataset.info.get("text_columns"))


def encode(
    dataset: Dataset,
    modality: str,
    encoder: str | Encoder | None = None,
    *,
    columns: Sequence[str] | None = None,
    batch_size: int | None = None,
    device: str = "cpu",
    resume: bool = True,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> tuple[Dataset, EncodeReport]:
    """Encode one modality of all items and store it in the data folder.

    An item whose columns are all empty, whose file is missing or broken, or which the encoder
    cannot read is absent and does not stop the run. The same input gives the same file. If the
    same modality exists already, nothing is done. A content that this encoder encoded before, also
    for other data or in an interrupted run, is taken from the cache.

    Args:
        dataset: with a folder, the modality is written to `modalities/NAME.safetensors`;
            without one it is kept in memory only.
        modality: "text", "image", "audio" or "video", which say what it is made from, or any
            other name, which is made from `columns`, or from what the encoder reads.
        encoder: a name from `modalign.encoding.encoders.encoder.ENCODERS` such as `minilm` or
            `st:MODEL`, `precomputed` (with the option `path`), or an encoder object; None takes
            the default of the kind.
        columns: item columns that make the text, or the one column of paths.
        batch_size: inputs encoded and stored at a time; None takes the encoder's own.
        device: "cpu", "cuda", "cuda:N", or "auto".
        resume: use and fill the cache.
        force: encode again even if the same modality exists; without the cache.
        progress: called with (inputs done, all inputs).
        options: of the encoder.

    Returns:
        The data set with the modality, and a report.

    Raises:
        ConfigError: there is no column to encode, the encoder reads another kind of input, or an
            option is unknown or out of its bounds.
        DataError: no item has an input that can be read.
        UnknownName: there is no such encoder or column.
    """
    start = time.perf_counter()
    if batch_size is not None and batch_size < 1:
        raise ConfigError("batch_size of 1 or more", str(batch_size), "give a positive number")
    check_name(modality)
    if encoder == "precomputed":
        made = from_options(modality, dataset.items, options)
        return _keep(dataset, made), _report(dataset, made, start)
    kind = _kind(modality, encoder, columns)
    check_kind(encoder, kind)
    columns = _inputs(dataset, kind, columns)
    if encoder is None or isinstance(encoder, str):
        encoder = make_encoder(encoder, kind, str(devices.resolve(device)), **options)
    raw = item_texts(dataset, columns) if kind == "text" else _paths(dataset, columns[0])
    keys = [_content_hash(one, kind) for one in raw]
    provenance = _provenance(dataset, encoder, kind, columns, raw, keys)
    old = dataset.modalities.get(modality)
    if old is not None and old.provenance.get("key") == provenance["key"] and not force:
        return dataset, _report(dataset, old, start, skipped=True)
    job = ChunkedEncoding(encoder, raw, batch_size, progress)
    if isinstance(encoder, FittedEncoder):
        encoder.fit([one for one in raw if one is not None])
    cache = None if force or not resume else _cache_of(encoder, kind)
    features, present, corrupt, reused = job.run(keys, cache)
    if kind != "text":
        files = dataset.item_table[columns[0]]
        corrupt = [(row, f"{why} ({files[row]})") for row, why in corrupt]
    if not present.any():
        raise _nothing_to_encode(dataset, modality, columns, corrupt)
    provenance["unreadable"] = [[dataset.items.ids([row])[0], why] for row, why in corrupt]
    if isinstance(encoder, NamesColumns):
        provenance["words"] = encoder.words
    made = Modality(modality, features, present, "item", json.loads(json.dumps(provenance)))
    return _keep(dataset, made), _report(dataset, made, start, reused=reused)


def _nothing_to_encode(
    dataset: Dataset, modality: str, columns: Sequence[str], corrupt: Sequence[tuple[int, str]]
) -> DataError:
    got = f"none of {len(dataset.items):,}; the column{'s' * (len(columns) > 1)} "
    got += f"{', '.join(columns)} of the items' table give nothing"
    if corrupt:
        got = f"{len(corrupt):,} that cannot be read, the first {corrupt[0][1]}"
    fix = (
        "check that the ids of the items' table are those of the interactions: `modalign data info`"
    )
    return DataError(f"items with something to encode as {modality!r}", got, fix)


def check_name(modality: str) -> None:
    """Check that a name can be that of a modality and of its file.

    Raises:
        ConfigError: it cannot.
    """
    if not modality or Path(modality).name != modality or modality.startswith("."):
        raise ConfigError("a plain name of a modality", repr(modality), "name it such as text")


class ChunkedEncoding:
    """All readable inputs through an encoder, chunk by chunk.

    Args:
        encoder: fitted already if it is a `FittedEncoder`.
        raw: one input per row; None if missing.
        size: inputs in a chunk; None takes the encoder's own number.
        progress: called with (inputs done, all inputs).
    """

    def __init__(
        self,
        encoder: Encoder,
        raw: Sequence[Any],
        size: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.encoder, self.raw, self.size = encoder, raw, size or encoder.batch_size
        self.progress = progress or (lambda done, total: None)
        self.rows = [row for row, one in enumerate(raw) if one is not None]

    def run(
        self, keys: Sequence[bytes | None] | None = None, cache: RowCache | None = None
    ) -> tuple[np.ndarray, np.ndarray, list[tuple[int, str]], int]:
        """Encode all inputs; those with one hash once, and those that a cache has not at all.

        Args:
            keys: the hash of each input; None where its content is not known.
            cache: rows that were encoded before; new ones are written to it chunk by chunk.

        Returns:
            Features, presence, unreadable rows with their reasons, number of rows from the cache.
        """
        n = len(self.raw)
        features = np.zeros((n, self.encoder.dim), np.float32)
        present = np.zeros(n, bool)
        corrupt: list[tuple[int, str]] = []
        # One group for each distinct content, and one for each input whose content is not known.
        marks = [(keys and keys[row]) or f"row {row}".encode() for row in self.rows]
        distinct, first, group = np.unique(
            np.array(marks, KEY), return_index=True, return_inverse=True
        )
        rows = np.array(self.rows, np.int64)
        order = np.argsort(group, kind="stable")
        starts = np.searchsorted(group[order], np.arange(len(distinct) + 1))

        def members(one: int) -> np.ndarray:
            return rows[order[starts[one] : starts[one + 1]]]

        done = np.zeros(len(distinct), bool)
        for places, vectors in [] if cache is None else cache.known(distinct, self.encoder.dim):
            done[places] = True
            where = np.full(len(distinct), -1)
            where[places] = np.arange(len(places))
            mine = where[group] >= 0
            features[rows[mine]] = vectors[where[group[mine]]]
            present[rows[mine]] = True
        reused = finished = int(present.sum())
        self.progress(finished, len(rows))
        left = np.flatnonzero(~done)
        left = left[np.argsort(first[left])]  # in the order of the items
        for start in range(0, len(left), self.size):
            chunk = left[start : start + self.size]
            vectors, reasons = self._encode(rows[first[chunk]].tolist())
            good = reasons == ""
            for place, one in enumerate(chunk):
                same = members(int(one))
                finished += len(same)
                if good[place]:
                    features[same] = vectors[place]
                    present[same] = True
                else:
                    corrupt += [(int(row), str(reasons[place])) for row in same]
            if cache is not None:
                hashed = good & ~np.char.startswith(distinct[chunk], b"row ")
                cache.keep(distinct[chunk][hashed], vectors[hashed])
            self.progress(finished, len(rows))
        if cache is not None and len(left):
            cache.tidy()
        return features, present, sorted(corrupt), reused

    def _encode(self, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of some rows, and for each the reason why it has none, or an empty text."""
        vectors = np.zeros((len(rows), self.encoder.dim), np.float32)
        reasons = np.full(len(rows), "", dtype="U200")
        ready, places = [], []
        for place, row in enumerate(rows):
            try:
                ready.append(self.encoder.read(self.raw[row]))
                places.append(place)
            except UnreadableInput as error:
                reasons[place] = str(error) or "unreadable"
        if ready:
            vectors[places] = self.encoder.encode(ready)
        broken = ~np.isfinite(vectors).all(axis=1)
        reasons[broken] = "the encoder gave NaN or infinite numbers"
        vectors[broken] = 0
        return vectors, reasons


def _kind(modality: str, encoder: str | Encoder | None, columns: Sequence[str] | None) -> InputKind:
    """What a modality is made from: its name says it, or its column, or its encoder."""
    named: tuple[InputKind, ...] = get_args(InputKind)
    by_column = columns[0] if columns and len(columns) == 1 else None
    for kind in named:
        if modality == kind:
            other = by_column if by_column != kind else None
            if other in named:
                raise ConfigError(
                    f"a column of {kind} for the modality {modality!r}",
                    f"column {other!r}",
                    f"name the modality {other}, or another name than a kind",
                )
            return kind
    for column in PATH_COLUMNS:
        if by_column == column:
            return column
    kinds = kinds_of(encoder)
    if len(kinds) == 1:
        return kinds[0]
    if columns:
        return "text"
    raise ConfigError(
        f"what the modality {modality!r} is made from",
        "neither a column nor an encoder of one kind of input",
        f"name it {', '.join(named[:-1])} or {named[-1]}, or add --column or --encoder",
    )


def _inputs(dataset: Dataset, kind: InputKind, columns: Sequence[str] | None) -> list[str]:
    """The columns with the inputs."""
    schema = dataset.item_table.schema
    for name in columns or ():
        if name not in schema:
            raise UnknownName("column of the items", name, schema)
    if kind != "text":
        chosen = list(columns or [PATH_COLUMNS[kind]])
        words = item_files.WORDS[kind]
        if (
            len(chosen) != 1
            or chosen[0] not in schema
            or not _holds_files(dataset, chosen[0], kind)
        ):
            raise ConfigError(
                f"items with {words}, named by one item column, {PATH_COLUMNS[kind]!r} by default",
                f"{dataset.name!r} with the columns {', '.join(columns or schema) or '(none)'}",
                f"import the data with their {words}: --{'images' if kind == 'image' else kind} "
                "FOLDER, or a column of paths in --items",
            )
        return chosen
    chosen = list(columns or text_columns(dataset))
    wrong = [name for name in chosen if not item_text.is_text(schema[name])]
    if wrong or not chosen:
        texts = [name for name in schema if item_text.is_text(schema[name]) and name != "item_id"]
        got = f"column {wrong[0]!r} of {schema[wrong[0]]}" if wrong else "none with a known name"
        fix = f"name some of {', '.join(texts)}" if texts else "import the data with texts"
        raise ConfigError("item columns of text", got, fix)
    return chosen


def _holds_files(dataset: Dataset, column: str, kind: FileKind) -> bool:
    """Whether a column has names of files of this kind."""
    names = dataset.item_table[column].drop_nulls()
    if not item_text.is_text(names.dtype) or isinstance(names.dtype, pl.List):
        return False
    endings = names.cast(pl.String).str.to_lowercase().str.extract(r"(\.[^./]*)$", 1)
    return column == kind or bool(endings.is_in(sorted(item_files.SUFFIXES[kind])).any())


def item_texts(dataset: Dataset, columns: Sequence[str]) -> list[str | None]:
    """The columns joined to sentences; None where all are empty."""
    table = dataset.item_table.select(
        (
            pl.col(name).list.join(", ", ignore_nulls=True)
            if dataset.item_table.schema[name] == pl.List(pl.Utf8)
            else pl.col(name).cast(pl.Utf8)
        ).str.strip_chars()
        for name in columns
    ).with_columns(pl.all().replace("", None))
    # A full stop separates two columns, unless the first ends with a punctuation mark.
    ended = [
        pl.when(pl.col(name).str.contains(r"[.!?]$"))
        .then(pl.col(name))
        .otherwise(pl.col(name) + ".")
        for name in columns[:-1]
    ]
    joined = pl.concat_str([*ended, pl.col(columns[-1])], separator=" ", ignore_nulls=True)
    return table.select(pl.when(joined != "").then(joined).alias("text"))["text"].to_list()


def _paths(dataset: Dataset, column: str) -> list[Path | None]:
    if dataset.folder is None:
        return [Path(one) if one else None for one in dataset.item_table[column]]
    return [item_files.stored(dataset.folder, one) for one in dataset.item_table[column]]


def _provenance(
    dataset: Dataset,
    encoder: Encoder,
    kind: InputKind,
    columns: Sequence[str],
    raw: Sequence[Any],
    keys: Sequence[bytes | None],
) -> dict[str, Any]:
    """All that the numbers depend on, and its hash as `key`; no date, no path."""
    digest = hashlib.sha256(dataset.items.fingerprint.encode())
    for one, key in zip(raw, keys, strict=True):
        digest.update(key or (b"\0none" if one is None else b"\0unreadable"))
    facts = {
        **encoder.provenance(),
        "kind": kind,
        "bag": isinstance(encoder, MakesBags) and encoder.bag,
        "columns": list(columns),
        "input": digest.hexdigest()[:16],
    }
    return {**facts, "key": facts_hash(facts)}


def _content_hash(one: Any, kind: InputKind) -> bytes | None:
    """Hash of a text, or of the bytes of a file; None without one."""
    if one is None:
        return None
    if kind == "text":
        return hashlib.sha256(one.encode()).hexdigest()[:32].encode()
    try:
        with one.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32].encode()
    except OSError:
        return None


def _cache_of(encoder: Encoder, kind: InputKind) -> RowCache | None:
    """Rows that this encoder made before; None for one that is fitted on all inputs."""
    root = cache_folder()
    if root is None or isinstance(encoder, FittedEncoder):
        return None
    made_by = f"{type(encoder).__module__}.{type(encoder).__qualname__}"
    return RowCache(root, {**encoder.provenance(), "kind": kind, "class": made_by})


def _keep(dataset: Dataset, modality: Modality) -> Dataset:
    """Write the modality if the data set has a folder."""
    out = dataset.with_modality(modality)
    if dataset.folder is not None:
        write_modality(dataset.folder / "modalities", modality, dataset.items)
    return out


def _report(
    dataset: Dataset, modality: Modality, start: float, skipped: bool = False, reused: int = 0
) -> EncodeReport:
    n_present = int(modality.present.sum())
    if skipped:
        reused = n_present
    return EncodeReport(
        modality.name,
        dataset.n_items,
        dataset.n_items - n_present,
        tuple((one_id, reason) for one_id, reason in modality.provenance.get("unreadable", ())),
        time.perf_counter() - start,
        skipped,
        reused,
        n_present - reused,
    )
