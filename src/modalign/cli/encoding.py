"""`modalign encode`: texts, pictures, sounds and videos in, modalities out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from modalign.cli.options import Device, Json, Sets, own_options
from modalign.cli.render import counting, err, out, plain, print_json, say, table
from modalign.cli.summaries import source_of

SHOWN = 5
EPILOG = """**Encoders**

- `minilm`: texts with all-MiniLM-L6-v2, 384 numbers, no download; the default
- `tfidf`: texts by the catalogue's own words, reduced by a truncated SVD
- `words`: texts by the catalogue's own words, a column each, as BANDVAE reads them
- `efficientnet-lite0`: pictures, 1,280 numbers, no download; the default
- `spectra`: sounds by statistics of their spectra, 256 numbers, no download; the default
- `frames`: videos by eight frames and the sound track, 1,536 numbers, no download; the default
- `st:NAME`: any sentence-transformers model of texts or sounds, by name or folder
- `hf:NAME`: any transformers model of texts, pictures or sounds (CLAP, wav2vec2), by name or folder
- `precomputed`: your own features, joined by item id, with `--set path=FILE`

Sounds and videos need the extra `media`: `pip install "modalign[media]"`.

**Examples**

    modalign encode data/ml

    modalign encode data/cul --modality text --encoder tfidf --dim 256

    modalign encode data/ml --modality plot --column description

    modalign encode data/music --modality clap --encoder hf:laion/clap-htsat-unfused --column audio

    modalign encode data/ml --modality clip --encoder precomputed --set path=clip.parquet
"""


def encode(
    folder: Annotated[Path, typer.Argument(help="Prepared folder.")],
    modality: Annotated[
        list[str] | None,
        typer.Option(
            help="text, image, audio, video, or any other name; repeat for more. Default: all."
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Name of an encoder, see below. Default: that of the kind of input."),
    ] = None,
    dim: Annotated[
        int | None, typer.Option(min=1, help="tfidf: dimension after the truncated SVD.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Item column that makes the text; repeat for more.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Items encoded at a time. Default: the encoder's own.")
    ] = None,
    device: Device = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Encode all again, without the cache.")
    ] = False,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Turn the texts, pictures, sounds and videos of items into feature matrices.

    Without options, texts are encoded with all-MiniLM-L6-v2 and pictures with
    EfficientNet-Lite0, both from installed packages without a download. Existing modalities are
    not encoded again, nor is a content that the same encoder has met before, in any data folder
    (`MODALIGN_CACHE` names the folder of the cache, `off` keeps none). Broken files are listed and
    count as absent.
    """
    from modalign.core import devices
    from modalign.data.dataset import Dataset
    from modalign.encoding.encode import encode as run

    devices.resolve(device)
    taken = {"modality", "encoder", "dim", "columns", "batch_size", "device", "force"}
    options = own_options(sets, taken, "the encoder")
    if dim is not None:
        options["dim"] = dim
    dataset = Dataset.load(folder)
    reports = []
    for name in _names(dataset, modality, encoder):
        with counting("encoding", name) as progress:
            dataset, report = run(
                dataset,
                name,
                encoder,
                columns=column or None,
                batch_size=batch_size,
                device=device,
                force=force,
                progress=progress,
                **options,
            )
        reports.append(report)
    if json:
        print_json([report.to_dict() for report in reports])
        return
    _show(dataset, reports)
    say(f"next: modalign train --data {folder} --model cm3 --out runs/cm3")


def encode_missing(dataset: Any, encoders: Mapping[str, str], device: str) -> Any:
    """Encode the texts and pictures of a data set without modalities; standard error says so.

    Args:
        dataset: returned unchanged if nothing can be encoded.
        encoders: by kind of input, encoders that replace the default ones.
        device: where they run.
    """
    from modalign.encoding.encode import encodable
    from modalign.encoding.encode import encode as run

    names = encodable(dataset)
    if names:
        chosen = [f"{name} with {encoders[name]}" if name in encoders else name for name in names]
        say(f"{dataset.name} has no modality yet; encoding {', '.join(chosen)}")
    for name in names:
        with counting("encoding", name) as progress:
            dataset, _ = run(dataset, name, encoders.get(name), device=device, progress=progress)
    return dataset


def _names(dataset: Any, modality: list[str] | None, encoder: str | None) -> list[str]:
    """The requested modalities, by default all that can be encoded and the encoder reads."""
    from modalign.encoding.encode import encodable
    from modalign.encoding.encoders.encoder import ENCODERS
    from modalign.errors import DataError

    if modality:
        return modality
    if encoder is not None and encoder in ENCODERS:
        return list(ENCODERS[encoder])
    found = encodable(dataset)
    if not found:
        columns = ", ".join(dataset.item_table.columns)
        got = f"{dataset.name!r}, whose items have the columns {columns}"
        fix = "import the data with --items TABLE, --images, --audio or --video, or name a --column"
        raise DataError("items with texts, pictures, sounds or videos", got, fix)
    return found


def _show(dataset: Any, reports: list[Any]) -> None:
    rows = []
    for report in reports:
        m = dataset.modalities[report.modality]
        rows.append(
            [
                plain(report.modality),
                plain(source_of(m.provenance)),
                f"{m.dim:,}",
                f"{len(m):,}",
                f"{report.n_missing:,}",
                f"{report.reused:,}",
                f"{report.encoded:,}",
                f"{report.seconds:.1f} s",
            ]
        )
    columns = ["name", "encoder", "width", "items", "missing", "reused", "new", "time"]
    out.print(table("Modalities", columns, rows, (2, 3, 4, 5, 6)))
    if there := [plain(report.modality) for report in reports if report.skipped]:
        say(f"{', '.join(there)}: existed already, nothing was done (--force encodes again)", out)
    for report in reports:
        if texts := dataset.modalities[report.modality].provenance.get("columns"):
            say(f"{report.modality}: from the columns {', '.join(texts)}", out)
    for report in reports:
        for item_id, reason in report.corrupt[:SHOWN]:
            say(f"  {report.modality} of item {item_id} could not be read: {reason}", err)
        if len(report.corrupt) > SHOWN:
            say(f"  and {len(report.corrupt) - SHOWN} more, see --json", err)
