"""`modalign export`: from a run to the folder that is served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modalign.cli.options import Data, Json, choose
from modalign.cli.render import out as console
from modalign.cli.render import print_json, say, table

if TYPE_CHECKING:
    from modalign.export.export_run import Exported

DTYPES = ("float32", "float16", "int8")
INDEXES = ("auto", "exact", "hnsw")
EPILOG = """**Examples**

    modalign export runs/cm3 --out artifacts/shop

    modalign export runs/tarec/student --out artifacts/small --dtype int8 --no-images
"""


def export(
    run: Annotated[Path, typer.Argument(help="Run folder of a trained or distilled model.")],
    out: Annotated[Path, typer.Option(help="Folder for the artifact.")],
    dtype: Annotated[
        str, typer.Option(help="How vectors are stored: float32, float16 or int8.")
    ] = "float32",
    index: Annotated[
        str, typer.Option(help="auto (approximate above a million items), exact, or hnsw.")
    ] = "auto",
    adapter: Annotated[
        bool, typer.Option(help="Train the content adapter for items without interactions.")
    ] = True,
    images: Annotated[bool, typer.Option(help="Copy the items' pictures into the folder.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an artifact.")] = False,
    data: Data = None,
    json: Json = False,
) -> None:
    """Write an artifact that the server loads without torch or pickle, with checksums of all files.

    The loss of storing vectors, the fold-in of new users and the placement of new items are
    measured, printed, and stored in `manifest.json`.
    """
    choose("dtype", dtype, DTYPES)
    choose("index", index, INDEXES)
    from modalign.experiments.fit import load_model
    from modalign.export.export_run import export_run
    from modalign_serve.artifact.write import check_place

    check_place(out, overwrite)
    made = export_run(
        load_model(run, data),
        out,
        dtype=dtype,  # type: ignore[arg-type]
        index=index,  # type: ignore[arg-type]
        adapter=adapter,
        images=images,
        overwrite=overwrite,
    )
    if json:
        print_json({"folder": str(made.folder), "seconds": made.seconds, **_as_json(made)})
        return
    _show(made)


def _as_json(made: Exported) -> dict[str, Any]:
    m = made.manifest
    return {
        "kind": m.kind,
        "model": m.model,
        "users": m.n_users,
        "items": m.n_items,
        "width": m.width,
        "dtype": m.dtype,
        "bytes": sum(file.size for file in m.files.values()),
        "loss": m.loss,
        "fold_in": m.fold_in,
        "adapter": m.adapter,
        "index": m.index,
        "left_out": made.left_out,
    }


def _show(made: Exported) -> None:
    m = made.manifest
    size = sum(file.size for file in m.files.values()) / 2**20
    rows = [
        ["model", f"{m.model}, served by its {m.kind}"],
        ["users, items", f"{m.n_users:,}, {m.n_items:,}"],
        ["size", f"{size:.1f} MB in {len(m.files):,} files, vectors as {m.dtype}"],
    ]
    if "overlap@20" in m.loss:
        rows.append(["kept of the top 20", f"{m.loss['overlap@20']:.4f}"])
    if m.fold_in:
        by, way = m.fold_in["chosen_by"], m.fold_in["default"]
        known = m.fold_in["trained"].get(by)
        beside = "" if known is None else f" (trained vectors {known:.4f})"
        rows.append(["new users", f"by {way}: {by} {m.fold_in[way][by]:.4f}{beside}"])
    if m.adapter:
        random = m.adapter["recall@20 of random vectors"]
        found = m.adapter["recall@20"]
        rows.append(["new items", f"held-out recall@20 {found:.4f} (random vectors {random:.4f})"])
    if m.index:
        rows.append(["index", f"{m.index['kind']}, recall@20 {m.index['recall@20']:.4f}"])
    console.print(table("Artifact", ["", ""], rows))
    if made.left_out:
        say(f"columns of unsupported types, left out: {', '.join(made.left_out)}", console)
    say(f"written to {made.folder} in {made.seconds:.0f} s", console)
