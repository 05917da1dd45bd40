"""`modalign data ...`: files in, a prepared folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from modalign.cli.options import Json, choose
from modalign.cli.render import downloading, err, out, print_json, say, table
from modalign.cli.summaries import show_dataset

app = typer.Typer(
    help="Import, look at, download and export data sets.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

KINDS = """**Kinds of source**

- `table`: a CSV, TSV or Parquet file, a row per user, item, and optional rating and time
- `movielens`: a MovieLens folder as downloaded; posters/ and descriptions.csv welcome
- `amazon`: review files of 2014, 2018, 2023, gzipped or not, with metadata
- `citeulike`: users.dat, mult.dat, vocabulary.dat
- `mmrec`: NAME.inter and NAME_feat.npy files; the split is kept
- `recbole`: atomic files .inter, .item, .user
- `split`: a folder with train, valid and test files; the split is kept

**Splits** (`--split`): each has a seed, and options with `--split-set`

- `ratio`: each user's interactions at random, 8:1:1; `--split-set train=7`
- `leave-one-out`: each user's last is for the test, the one before for validation
- `time`: two moments cut all users alike
- `cold-items`: 20% of the items are unknown in training; `--split-set share=0.1`
- `unseen-users`: 20% of the users are unknown in training
- `given`: that of the source

**Examples**

    modalign data import movielens ml-100k --out data/ml --min-rating 4 --k-core 5

    modalign data import table orders.csv --out data/shop --items items.csv --images pictures

    modalign data import split amazon-baby --out data/baby
"""


@app.command("import", epilog=KINDS)
def import_(
    kind: Annotated[str, typer.Argument(help="Kind of source, see below.")],
    path: Annotated[Path, typer.Argument(help="File or folder to read.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Prepared folder to write.")],
    name: Annotated[str | None, typer.Option(help="Short name for people.")] = None,
    min_rating: Annotated[
        float | None, typer.Option(help="Keep interactions with at least this rating.")
    ] = None,
    k_core: Annotated[
        int,
        typer.Option(min=0, help="Keep users and items with at least so many interactions."),
    ] = 0,
    duplicates: Annotated[
        str,
        typer.Option(help="Which of several interactions of a pair stays: last, first, max."),
    ] = "last",
    split: Annotated[
        str | None,
        typer.Option(
            help="ratio, leave-one-out, time, cold-items, unseen-users or given, see below; "
            "left out, the source's own split is kept, else ratio."
        ),
    ] = None,
    split_set: Annotated[
        list[str] | None,
        typer.Option("--split-set", help="Option of the split as key=value; repeat it."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split.")] = 1,
    user: Annotated[str | None, typer.Option(help="table, split: column of user ids.")] = None,
    item: Annotated[str | None, typer.Option(help="table, split: column of item ids.")] = None,
    weight: Annotated[str | None, typer.Option(help="table, split: column of ratings.")] = None,
    time: Annotated[str | None, typer.Option(help="table, split: column of times.")] = None,
    separator: Annotated[str | None, typer.Option(help="table, split: between fields.")] = None,
    items: Annotated[
        Path | None,
        typer.Option(help="table, split: table of items with item_id, title, description, ..."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="table, split: folder of pictures named by item id.")
    ] = None,
    source_set: Annotated[
        list[str] | None,
        typer.Option("--set", help="Further option of the source as key=value; repeat it."),
    ] = None,
    link_images: Annotated[
        bool, typer.Option("--link-images", help="Do not copy pictures, keep their paths.")
    ] = False,
    all_items: Annotated[
        bool, typer.Option("--all-items", help="Keep items without interactions.")
    ] = False,
    json: Json = False,
) -> None:
    """Read files of some kind, filter, split, and write a prepared folder.

    An earlier prepared folder of that name is replaced, once the new one is complete.
    """
    from typing import get_args

    from modalign.core.settings import parse_assignments
    from modalign.data import filters, sources, splits
    from modalign.data.prepare import prepare

    choose("kind of source", kind, sources.SOURCES)
    choose("way to treat duplicates", duplicates, get_args(filters.Keep))
    if split is not None:
        known = {kind.replace("_", "-"): kind for kind in splits.KINDS}
        split = known[choose("split", split.replace("_", "-"), known)]
    named = {
        "user": user,
        "item": item,
        "weight": weight,
        "time": time,
        "separator": separator,
        "items": items,
        "images": images,
    }
    options: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    options |= parse_assignments(source_set or [])
    split_options = parse_assignments(split_set or [])
    with err.status(f"reading {path}") as status:
        dataset = prepare(
            sources.read(kind, path, **options),
            out_folder,
            min_rating=min_rating,
            k_core=k_core,
            duplicates=duplicates,  # type: ignore[arg-type]
            split=split,
            split_options=split_options or None,
            seed=seed,
            name=name,
            images="link" if link_images else "copy",
            all_items=all_items,
            progress=status.update,
        )
    show_dataset(dataset, json)
    if not json:
        from modalign.encoding.encode import encodable

        next_step = (
            f"modalign encode {out_folder}"
            if encodable(dataset)
            else (f"modalign train --data {out_folder} --model MODEL --out runs/NAME")
        )
        say(f"written to {out_folder}; next: {next_step}")


@app.command(
    epilog="**Example**\n\n    modalign data append data/shop feedback.parquet --out data/shop-2"
)
def append(
    folder: Annotated[Path, typer.Argument(help="Prepared folder.")],
    feedback: Annotated[
        Path, typer.Argument(help="Parquet file of `modalign serve-feedback`, or of the API.")
    ],
    out_folder: Annotated[
        Path, typer.Option("--out", help="Folder to write; may be the prepared folder itself.")
    ],
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="Kind of event that becomes an interaction; repeat it.  [default: "
            "click, like, cart, buy]"
        ),
    ] = None,
    items: Annotated[
        Path | None, typer.Option(help="Table of new items with item_id, title, ...")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of pictures of new items, named by item id.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split everything anew in this way; left out, valid and test stay."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of a new split.")] = 1,
    json: Json = False,
) -> None:
    """Put feedback of the service into a prepared folder, for the next training."""
    from modalign.data import splits
    from modalign.data.append import KINDS
    from modalign.data.append import append as append_feedback
    from modalign.data.sources.table import item_table

    if split is not None:
        choose("split", split, splits.SPLITTERS)
    table = item_table(items, images)
    kinds = tuple(kind or KINDS)
    with err.status(f"reading {folder}"):
        dataset = append_feedback(
            folder, feedback, out_folder, kinds=kinds, items=table, split=split, seed=seed
        )
    show_dataset(dataset, json)
    if not json:
        say(f"written to {out_folder}; encode new items before the next training")


@app.command(epilog="**Example**\n\n    modalign data info data/ml")
def info(
    folder: Annotated[Path, typer.Argument(help="Prepared folder.")], json: Json = False
) -> None:
    """What a prepared folder holds: sizes, filters, split, modalities, provenance."""
    from modalign.data.dataset import Dataset

    show_dataset(Dataset.load(folder), json)


@app.command(epilog="**Example**\n\n    modalign data get ml-100k --out downloads")
def get(
    name: Annotated[
        str | None, typer.Argument(help="Data set, such as ml-100k; left out, all are listed.")
    ] = None,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to unpack into.")] = Path(
        "downloads"
    ),
    base_url: Annotated[
        str | None, typer.Option(help="Address of a mirror that holds the files.")
    ] = None,
    json: Json = False,
) -> None:
    """Download an official data set: checked, resumed where it broke off, licence shown."""
    from modalign.data import download

    if name is None:
        _list_official(json)
        return
    with downloading(name) as told:
        found = download.get(name, out_folder, base_url=base_url, progress=told)
    if json:
        print_json(found.to_dict())
        return
    say(f"{name} is in {found.folder}", out)
    say(f"licence: {found.licence}", out)
    say(f"please cite: {found.citation}", out)
    for remark in found.remarks:
        say(f"note: {remark}", out)
    say(f"next: modalign data import {found.source} {found.folder} --out data/{name}")


def _list_official(json: bool) -> None:
    from modalign.data.official import RECORDS

    if json:
        fields = ("name", "source", "licence", "citation", "url")
        print_json([{f: getattr(one, f) for f in fields} for one in RECORDS.values()])
        return
    few = [one for one in RECORDS.values() if not one.name.startswith("amazon-")]
    rows = [[one.name, one.source, one.url.split("/")[2]] for one in few]
    out.print(table("Official data sets", ["name", "kind of source", "publisher"], rows))
    for year in ("2014", "2023"):
        start = f"amazon-{year}-"
        names = [one.removeprefix(start) for one in RECORDS if one.startswith(start)]
        say(f"{start}CATEGORY, with CATEGORY one of: {', '.join(names)}\n", out)
    say("`modalign data get NAME` fetches one and shows its licence; --json lists them in full")


@app.command(
    epilog="**Example**\n\n    modalign data export data/ml --format recbole --out recbole/ml"
)
def export(
    folder: Annotated[Path, typer.Argument(help="Prepared folder.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    layout: Annotated[str, typer.Option("--format", help="recbole or mmrec.")] = "recbole",
    json: Json = False,
) -> None:
    """Write a prepared folder in another library's layout."""
    from modalign.data.dataset import Dataset
    from modalign.data.export_layout import export_mmrec, export_recbole

    writers = {"recbole": export_recbole, "mmrec": export_mmrec}
    choose("format", layout, writers)
    written = writers[layout](Dataset.load(folder), out_folder)
    if json:
        print_json({"format": layout, "folder": str(written)})
    else:
        say(f"written to {written}", out)
