"""`modalign data ...`: files in, a prepared folder out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from modalign.cli.options import Json, Sets, choose
from modalign.cli.render import downloading, err, out, plain, print_json, say, table
from modalign.cli.summaries import show_dataset
from modalign.core.settings import DEFAULT_SEED, parse_assignments
from modalign_serve.command.grouped import grouped

app = typer.Typer(
    help="Import, inspect, download and export data sets.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a prepared folder that is there.")
]
EXAMPLES = """**Examples**

    modalign data import movielens ml-100k --out data/ml --min-rating 4 --k-core 5

    modalign data import table orders.csv --out data/shop --items items.csv --images pictures

    modalign data import split amazon-baby --out data/baby
"""


def sources_and_splits() -> str:
    """The kinds of source and the splits with their options, from their registries."""
    from modalign.data.sources import SOURCES
    from modalign.data.splits import SPLITTERS

    lines = ["**Kinds of source**, each with its options (`--set`)\n"]
    lines += [f"- `{name}`: {spec.help}{_options(spec.options)}" for name, spec in SOURCES.items()]
    lines += ["\n**Splits** (`--split`), each with its options (`--split-set`)\n"]
    lines += [f"- `{name}`: {one.help}{_options(one.options)}" for name, one in SPLITTERS.items()]
    return "\n".join([*lines, "- `given`: the split of the source"])


def _options(config: Any) -> str:
    shown = [
        f"`{name}`" if field.default is None else f"`{name}={field.default}`"
        for name, field in config.model_fields.items()
    ]
    return f" ({', '.join(shown)})" if shown else ""


class _WithKinds(TyperCommand):
    """A command whose help ends with the registered sources and splits, read when it is shown."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        self.epilog = f"{sources_and_splits()}\n\n{EXAMPLES}"
        super().format_help(ctx, formatter)


@dataclass(frozen=True)
class Filters:
    """What is kept of the interactions."""

    min_rating: Annotated[
        float | None, typer.Option(help="Minimum rating of an interaction that is kept.")
    ] = None
    k_core: Annotated[
        int, typer.Option(min=0, help="Minimum number of interactions per user and item (k-core).")
    ] = 0
    duplicates: Annotated[
        str, typer.Option(help="Which of several interactions of a pair is kept: last, first, max.")
    ] = "last"
    all_items: Annotated[
        bool, typer.Option("--all-items", help="Keep items without interactions.")
    ] = False
    overwrite: Overwrite = False
    allow_unmatched: Annotated[
        bool,
        typer.Option(
            "--allow-unmatched", help="Accept an items' table that lacks more than half the items."
        ),
    ] = False


@dataclass(frozen=True)
class Splitting:
    """How the interactions are split."""

    split: Annotated[
        str | None,
        typer.Option(
            help="ratio, leave-one-out, time, cold-items, unseen-users or given, see below.  "
            "[default: the split of the source, if it has one, else ratio]"
        ),
    ] = None
    split_set: Annotated[
        list[str] | None,
        typer.Option("--split-set", help="Option of the split as key=value; repeat for more."),
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split.")] = DEFAULT_SEED


@dataclass(frozen=True)
class Keeping:
    """How items are kept."""

    text_columns: Annotated[
        str | None,
        typer.Option(
            help="Item columns that make the text of an item, in order: title,brand,features.  "
            "[default: those with known names]"
        ),
    ] = None
    link_images: Annotated[
        bool, typer.Option("--link-images", help="Store the paths of pictures instead of copies.")
    ] = False


@dataclass(frozen=True)
class TableFlags:
    """Options of the sources that read tables; short forms of `--set`."""

    user: Annotated[str | None, typer.Option(help="table, split, recbole: column of users.")] = None
    item: Annotated[str | None, typer.Option(help="table, split, recbole: column of items.")] = None
    weight: Annotated[str | None, typer.Option(help="table, split: column of ratings.")] = None
    time: Annotated[str | None, typer.Option(help="table, split: column of times.")] = None
    separator: Annotated[
        str | None, typer.Option(help="table, split: separator between fields.")
    ] = None
    quote: Annotated[
        str | None,
        typer.Option(help="table, split: auto, none or double quotes.  [default: auto]"),
    ] = None
    encoding: Annotated[
        str | None, typer.Option(help="table, split: encoding of text files, such as cp1252.")
    ] = None
    no_header: Annotated[
        bool, typer.Option("--no-header", help="table, split: no line names the columns.")
    ] = False
    columns: Annotated[
        str | None,
        typer.Option(help="table, split: their names then, such as user,item,rating,time."),
    ] = None
    time_unit: Annotated[
        str | None,
        typer.Option(help="table, split: unit of numbers that are times: s, ms, us, ns."),
    ] = None
    time_format: Annotated[
        str | None, typer.Option(help="table, split: form of times, such as '%d/%m/%Y %H:%M'.")
    ] = None
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad", help="table, split: leave out bad rows and write them to bad_rows.csv."
        ),
    ] = False
    returns: Annotated[
        str | None,
        typer.Option(help="table, split: drop or keep quantities of zero or less. [default: drop]"),
    ] = None
    decimal: Annotated[
        str | None,
        typer.Option(help="table, split: sign before decimals, . or ,.  [default: found in file]"),
    ] = None
    items: Annotated[
        Path | None,
        typer.Option(help="table, split: table of items with item_id, title, description, ..."),
    ] = None
    images: Annotated[
        Path | None, typer.Option(help="table, split: folder of pictures named by item id.")
    ] = None
    audio: Annotated[
        Path | None, typer.Option(help="table, split: folder of sounds named by item id.")
    ] = None
    video: Annotated[
        Path | None, typer.Option(help="table, split: folder of videos named by item id.")
    ] = None


@dataclass(frozen=True)
class ItemFlags:
    """What is known of new items."""

    items: Annotated[
        Path | None, typer.Option(help="Table of new items with item_id, title, ...")
    ] = None
    images: Annotated[
        Path | None, typer.Option(help="Folder of pictures of new items, named by item id.")
    ] = None
    audio: Annotated[
        Path | None, typer.Option(help="Folder of sounds of new items, named by item id.")
    ] = None
    video: Annotated[
        Path | None, typer.Option(help="Folder of videos of new items, named by item id.")
    ] = None

    def table(self) -> Any:
        """The table of new items with their files; what was not taken is printed."""
        from modalign.data.sources.flat_table import TableOptions, item_table

        options = TableOptions(images=self.images, audio=self.audio, video=self.video)
        remarks: list[str] = []
        found = item_table(self.items, options.folders(), remarks=remarks)
        for remark in remarks:
            say(f"note: {remark}", err)
        return found


@dataclass(frozen=True)
class RowFlags:
    """Columns and rows of a table that is appended."""

    user: Annotated[str | None, typer.Option(help="Column of users in the file.")] = None
    item: Annotated[str | None, typer.Option(help="Column of items in the file.")] = None
    time: Annotated[str | None, typer.Option(help="Column of times in the file.")] = None
    time_unit: Annotated[
        str | None, typer.Option(help="Unit of numbers that are times: s, ms, us, ns.")
    ] = None
    time_format: Annotated[
        str | None, typer.Option(help="Form of times, such as '%d/%m/%Y %H:%M'.")
    ] = None
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave out bad rows and write them to bad_rows.csv."),
    ] = False
    returns: Annotated[
        Literal["drop", "keep"],
        typer.Option(help="Drop or keep rows whose quantity is zero or less."),
    ] = "drop"

    def names(self) -> dict[Any, str | None]:
        """Names of columns by role."""
        return {"user": self.user, "item": self.item, "time": self.time}

    def rules(self) -> Any:
        """How the rows are read."""
        from modalign.data.sources._columns import RowRules

        return RowRules(self.time_unit, self.time_format, self.skip_bad, self.returns)


@app.command("import", cls=_WithKinds)
@grouped
def import_(
    kind: Annotated[str, typer.Argument(help="Kind of source, see below.")],
    path: Annotated[Path, typer.Argument(help="File or folder to read.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Prepared folder to write.")],
    filters: Filters,
    splitting: Splitting,
    columns: TableFlags,
    kept: Keeping,
    name: Annotated[str | None, typer.Option(help="Short name of the data set.")] = None,
    source_set: Sets = None,
    json: Json = False,
) -> None:
    """Read files of some kind, filter and split them, and write a prepared folder.

    With --overwrite an existing prepared folder is replaced once the new one is complete.
    """
    from typing import get_args

    from modalign.data import sources
    from modalign.data.filters import Keep
    from modalign.data.prepare import prepare

    choose("way to treat duplicates", filters.duplicates, get_args(Keep))
    choose("kind of source", kind, sources.SOURCES)
    given = {key: value for key, value in vars(columns).items() if value not in (None, False)}
    if given.pop("no_header", False):
        given["header"] = False
    given |= parse_assignments(source_set or [])
    with err.status(f"reading {plain(path)}") as status:
        dataset = prepare(
            sources.read(kind, path, **given),
            out_folder,
            progress=status.update,
            **vars(filters),
            split=splitting.split,
            split_options=parse_assignments(splitting.split_set or []) or None,
            seed=splitting.seed,
            name=name,
            images="link" if kept.link_images else "copy",
            text_columns=kept.text_columns,
        )
    show_dataset(dataset, json)
    if not json:
        from modalign.encoding.encode import encodable

        next_step = (
            f"modalign encode {out_folder}"
            if encodable(dataset)
            else f"modalign train --data {out_folder} --model MODEL --out runs/NAME"
        )
        say(f"written to {out_folder}; next: {next_step}")


@app.command(
    epilog="**Example**\n\n    modalign data append data/shop feedback.parquet --out data/shop-2"
    "\n\n    modalign data append data/shop orders-of-today.csv --out data/shop-2 --split time"
)
@grouped
def append(
    folder: Annotated[Path, typer.Argument(help="Prepared folder.")],
    feedback: Annotated[
        Path,
        typer.Argument(
            help="Parquet file from `modalign serve-feedback` or the API, or a table like that of "
            "the import, such as new-orders.csv."
        ),
    ],
    out_folder: Annotated[
        Path, typer.Option("--out", help="Folder to write; may be the prepared folder itself.")
    ],
    new_items: ItemFlags,
    rows: RowFlags,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="Kind of event that becomes an interaction, where the file has a column kind; "
            "repeat for more.  [default: click, like, cart, buy]"
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split all interactions again, in this way.  [default: valid and test are kept]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of a new split.")] = DEFAULT_SEED,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Add recorded feedback or new orders to a prepared folder, for the next training.

    Columns of a table are found as in the import, first by the names that it has used.
    """
    from modalign.data.append import KINDS
    from modalign.data.append import append as append_feedback

    table = new_items.table()
    kinds = tuple(kind or KINDS)
    with err.status(f"reading {plain(folder)}"):
        dataset = append_feedback(
            folder,
            feedback,
            out_folder,
            kinds=kinds,
            items=table,
            columns=rows.names(),
            rules=rows.rules(),
            split=split,
            seed=seed,
            overwrite=overwrite,
        )
    show_dataset(dataset, json)
    if not json:
        say(f"written to {out_folder}; encode new items before the next training")


@app.command(epilog="**Example**\n\n    modalign data info data/ml")
def info(
    folder: Annotated[Path, typer.Argument(help="Prepared folder.")], json: Json = False
) -> None:
    """Show a prepared folder: sizes, filters, split, modalities, provenance."""
    from modalign.data.dataset import Dataset

    show_dataset(Dataset.load(folder), json)


@app.command(
    "drop-modality", epilog="**Example**\n\n    modalign data drop-modality data/shop words"
)
def drop_modality(
    folder: Annotated[Path, typer.Argument(help="Prepared folder.")],
    names: Annotated[list[str], typer.Argument(help="Names of the modalities to remove.")],
    json: Json = False,
) -> None:
    """Remove modalities from a prepared folder, so that new trainings do not read them.

    Runs that were trained with one of them cannot be loaded until it is encoded again.
    """
    from modalign.data.modality_file import drop_modalities

    left = drop_modalities(folder, names)
    if json:
        print_json({"dropped": names, "left": left})
    else:
        say(f"dropped {', '.join(map(plain, names))}; left: {', '.join(left) or 'none'}", out)


@app.command(epilog="**Example**\n\n    modalign data get ml-100k --out downloads")
def get(
    name: Annotated[
        str | None, typer.Argument(help="Data set, such as ml-100k.  [default: list all]")
    ] = None,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to unpack into.")] = Path(
        "downloads"
    ),
    base_url: Annotated[
        str | None, typer.Option(help="Address of a mirror that holds the files.")
    ] = None,
    json: Json = False,
) -> None:
    """Download an official data set: verified, resumable, with its licence."""
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
    from modalign.data.official import RECORDS, SPLITS_2023

    if json:
        fields = ("name", "source", "licence", "citation", "url")
        print_json([{f: getattr(one, f) for f in fields} for one in RECORDS.values()])
        return
    few = [one for one in RECORDS.values() if not one.name.startswith("amazon-")]
    rows = [[one.name, one.source, one.url.split("/")[2]] for one in few]
    out.print(table("Official data sets", ["name", "kind of source", "publisher"], rows))
    splits = [f"amazon-2023-{split}-" for split in SPLITS_2023]
    for start in ("amazon-2014-", "amazon-2023-", *splits):
        others = tuple(one for one in splits if one != start)
        names = [
            one.removeprefix(start)
            for one in RECORDS
            if one.startswith(start) and not one.startswith(others)
        ]
        say(f"{start}CATEGORY, with CATEGORY one of: {', '.join(names)}\n", out)
    say("`modalign data get NAME` downloads one and shows its licence; --json lists all details")


@app.command(
    epilog="**Example**\n\n    modalign data export data/ml --format recbole --out recbole/ml"
)
def export(
    folder: Annotated[Path, typer.Argument(help="Prepared folder.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    layout: Annotated[str, typer.Option("--format", help="recbole or mmrec.")] = "recbole",
    json: Json = False,
) -> None:
    """Write a prepared folder in the layout of another library."""
    from modalign.data.dataset import Dataset
    from modalign.data.export_layout import export_mmrec, export_recbole

    writers = {"recbole": export_recbole, "mmrec": export_mmrec}
    choose("format", layout, writers)
    written = writers[layout](Dataset.load(folder), out_folder)
    if json:
        print_json({"format": layout, "folder": str(written)})
    else:
        say(f"written to {written}", out)
