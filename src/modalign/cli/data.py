"""`modalign data ...` and `modalign encode`: files in, a prepared folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from modalign.cli.render import Json, err, out, print_json, progress, table

app = typer.Typer(
    help="Import, look at, download and export data sets.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

KINDS = """**Kinds of source**

- `table`: CSV, TSV, Parquet with a row per user, item, optional rating and time
- `movielens`: a MovieLens folder as downloaded; posters/ and descriptions.csv welcome
- `amazon`: review files of 2014, 2018, 2023, gzipped or not, with metadata
- `citeulike`: users.dat, mult.dat, vocabulary.dat
- `mmrec`: NAME.inter and NAME_feat.npy files; the split is kept
- `recbole`: atomic files .inter, .item, .user
- `split`: a folder with train, valid and test files; the split is kept

**Examples**

    modalign data import movielens ml-100k --out data/ml --min-rating 4 --k-core 5

    modalign data import table orders.csv --out data/shop --items items.csv --images pictures/
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
        int, typer.Option(help="Keep users and items with at least so many interactions.")
    ] = 0,
    duplicates: Annotated[
        str, typer.Option(help="Which of several interactions of a pair stays.")
    ] = "last",
    split: Annotated[
        str | None,
        typer.Option(
            help="ratio (8:1:1 per user), leave_one_out, time, cold_items, unseen_users, given. "
            "A source that brings a split keeps it unless another is named."
        ),
    ] = None,
    split_set: Annotated[
        list[str] | None,
        typer.Option("--split-set", help="Option of the split as key=value; repeat it."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 1,
    user: Annotated[str | None, typer.Option(help="table: column of user ids.")] = None,
    item: Annotated[str | None, typer.Option(help="table: column of item ids.")] = None,
    weight: Annotated[str | None, typer.Option(help="table: column of ratings.")] = None,
    time: Annotated[str | None, typer.Option(help="table: column of times.")] = None,
    separator: Annotated[str | None, typer.Option(help="table: between fields.")] = None,
    items: Annotated[
        Path | None, typer.Option(help="table: items with item_id, title, description, ...")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="table: folder of pictures named by item id.")
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
    """Read files of some kind, filter, split, and write a prepared folder."""
    from modalign.data import sources
    from modalign.data.prepare import prepare
    from modalign.settings import parse_assignments

    options: dict[str, Any] = {
        key: value
        for key, value in {
            "user": user,
            "item": item,
            "weight": weight,
            "time": time,
            "separator": separator,
            "items": items,
            "images": images,
        }.items()
        if value is not None
    }
    options |= parse_assignments(source_set or [])
    with err.status("reading") as status:
        raw = sources.read(kind, path, **options)
        dataset = prepare(
            raw,
            out_folder,
            min_rating=min_rating,
            k_core=k_core,
            duplicates=duplicates,  # type: ignore[arg-type]
            split=split,
            split_options=parse_assignments(split_set or []) or None,
            seed=seed,
            name=name,
            images="link" if link_images else "copy",
            all_items=all_items,
            progress=lambda stage: status.update(stage),
        )
    show(dataset, json)
    if not json:
        err.print(f"written to {out_folder}; next: modalign encode {out_folder}", markup=False)


@app.command()
def info(
    folder: Annotated[Path, typer.Argument(help="Prepared folder.")], json: Json = False
) -> None:
    """What a prepared folder holds: sizes, filters, split, modalities, provenance."""
    from modalign.data.dataset import Dataset

    show(Dataset.load(folder), json)


@app.command()
def get(
    name: Annotated[
        str | None, typer.Argument(help="Data set, such as ml-100k; none lists all.")
    ] = None,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to unpack into.")] = Path(
        "downloads"
    ),
    base_url: Annotated[str | None, typer.Option(help="A mirror to take it from.")] = None,
    json: Json = False,
) -> None:
    """Download an official data set: checked, resumed where it broke off, licence shown."""
    from modalign.data import download

    if name is None:
        rows = [[r.name, r.source, r.licence, r.url] for r in download.RECORDS.values()]
        if json:
            print_json(
                [dict(zip(("name", "kind", "licence", "url"), r, strict=True)) for r in rows]
            )
        else:
            out.print(table("Official data sets", ["name", "kind", "licence", "address"], rows))
        return
    with progress("downloading") as bar:
        task = bar.add_task(name, total=None)
        found = download.get(
            name,
            out_folder,
            base_url=base_url,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json:
        print_json(found.to_dict())
        return
    record = download.RECORDS[name]
    out.print(f"{name} is in {found.folder}", markup=False)
    out.print(f"licence: {record.licence}", markup=False)
    out.print(f"please cite: {record.citation}", markup=False)
    out.print(
        f"next: modalign data import {record.source} {found.folder} --out data/{name}", markup=False
    )


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Prepared folder.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    layout: Annotated[str, typer.Option("--format", help="recbole or mmrec.")] = "recbole",
    json: Json = False,
) -> None:
    """Write a prepared folder in another library's layout."""
    from modalign.data.dataset import Dataset
    from modalign.data.export_layout import export_mmrec, export_recbole
    from modalign.errors import UnknownName

    writers = {"recbole": export_recbole, "mmrec": export_mmrec}
    if layout not in writers:
        raise UnknownName("format", layout, writers)
    written = writers[layout](Dataset.load(folder), out_folder)
    if json:
        print_json({"format": layout, "folder": str(written)})
    else:
        out.print(f"written to {written}", markup=False)


def register(root: typer.Typer) -> None:
    """Add `encode` to the top level."""
    root.command()(encode)


def encode(
    folder: Annotated[Path, typer.Argument(help="Prepared folder.")],
    modality: Annotated[
        list[str] | None,
        typer.Option(help="text, image or another name; none takes all there is; repeat it."),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="minilm, tfidf, efficientnet-lite0, st:NAME, hf:NAME, precomputed."),
    ] = None,
    dim: Annotated[int | None, typer.Option(help="tfidf: width after a truncated SVD.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Item column that makes the text; repeat it.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Items encoded at a time.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Encode again what is there.")] = False,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="Option of the encoder as key=value; repeat it."),
    ] = None,
    json: Json = False,
) -> None:
    """Turn the items' texts and pictures into feature matrices; goes on where a kill left it.

    Without options: text with all-MiniLM-L6-v2 and pictures with EfficientNet-Lite0, both
    from installed packages, nothing downloaded.
    """
    from modalign.data.dataset import Dataset
    from modalign.features.encode import encodable
    from modalign.features.encode import encode as run
    from modalign.settings import parse_assignments

    dataset = Dataset.load(folder)
    names = list(modality or encodable(dataset))
    options = parse_assignments(sets or [])
    reports = []
    for name in names:
        with progress("encoding") as bar:
            task = bar.add_task(name, total=None)
            dataset, report = run(
                dataset,
                name,
                encoder,
                columns=column or None,
                dim=dim,
                batch_size=batch_size,
                device=device,
                force=force,
                progress=lambda done, total: bar.update(task, completed=done, total=total),  # noqa: B023
                **options,
            )
        reports.append(report)
    if json:
        print_json([report.to_dict() for report in reports])
        return
    rows = []
    for report in reports:
        m = dataset.modalities[report.modality]
        note = "already there" if report.skipped else f"{report.seconds:.1f} s"
        rows.append(
            [report.modality, m.provenance.get("encoder"), m.dim, len(m), report.n_missing, note]
        )
    out.print(
        table("Modalities", ["name", "encoder", "width", "items", "missing", ""], rows, (2, 3, 4))
    )
    for report in reports:
        for item_id, reason in report.corrupt[:5]:
            err.print(f"  {report.modality} of item {item_id} unreadable: {reason}", markup=False)
        if len(report.corrupt) > 5:
            err.print(f"  and {len(report.corrupt) - 5} more unreadable", markup=False)


def describe(dataset: Any) -> dict[str, Any]:
    """All that `data info` shows, as JSON."""
    known = {name: len(dataset.part(name)) for name in _parts() if len(dataset.part(name))}
    total = sum(known.values())
    return {
        "name": dataset.name,
        "synthetic": bool(dataset.info.get("synthetic", False)),
        "fingerprint": dataset.fingerprint,
        "n_users": dataset.n_users,
        "n_items": dataset.n_items,
        "interactions": known,
        "density": total / max(dataset.n_users * dataset.n_items, 1),
        "modalities": {
            name: {
                "width": m.dim,
                "missing": int((~m.present).sum()),
                "fingerprint": m.fingerprint,
                "provenance": dict(m.provenance),
            }
            for name, m in sorted(dataset.modalities.items())
        },
        "columns": dataset.item_table.columns,
        "info": dict(dataset.info),
    }


def show(dataset: Any, json: bool) -> None:
    """Print what a data set holds."""
    found = describe(dataset)
    if json:
        print_json(found)
        return
    total = sum(found["interactions"].values())
    rows: list[list[Any]] = [
        ["users", f"{found['n_users']:,}", f"{total / max(found['n_users'], 1):.1f} items each"],
        ["items", f"{found['n_items']:,}", f"{total / max(found['n_items'], 1):.1f} users each"],
        ["interactions", f"{total:,}", f"{found['density']:.3%} of all pairs"],
    ]
    rows += [[f"  {k}", f"{n:,}", f"{n / total:.1%}"] for k, n in found["interactions"].items()]
    title = f"{found['name']}" + (" (synthetic)" if found["synthetic"] else "")
    out.print(table(title, ["", "", ""], rows, (1,)))
    filters = found["info"].get("filters")
    if filters:
        steps = [
            [s["step"], *(f"{s[c]:,}" for c in ("interactions", "users", "items"))] for s in filters
        ]
        columns = ["left after", "interactions", "users", "items"]
        out.print(table("Filters", columns, steps, (1, 2, 3)))
    split = found["info"].get("split", {})
    if split:
        out.print(f"split: {split.get('kind')}, seed {split.get('seed')}", markup=False)
    out.print(f"fingerprint: {found['fingerprint']}", markup=False)
    for remark in found["info"].get("remarks", []):
        out.print(f"note: {remark}", markup=False)
    if found["modalities"]:
        parts = [
            [name, m["provenance"].get("encoder", "given"), m["width"], m["missing"]]
            for name, m in found["modalities"].items()
        ]
        out.print(table("Modalities", ["name", "from", "width", "missing"], parts, (2, 3)))
    else:
        out.print("modalities: none yet (modalign encode makes them)", markup=False)


def _parts() -> tuple[str, ...]:
    from modalign.data.dataset import SPLITS

    return SPLITS
