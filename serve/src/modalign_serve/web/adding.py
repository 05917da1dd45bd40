"""From the form for a new item to the request of the API."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from modalign_serve.artifact.artifact import Category
from modalign_serve.errors import Failure
from modalign_serve.http.reading import read
from modalign_serve.service.schemas import NEW_ITEM, NewItem
from modalign_serve.service.served import Served
from modalign_serve.web.forms import Form
from modalign_serve.web.titles import title_column

SUGGESTED = 100


@dataclass(frozen=True)
class Way:
    """How a new item can be described to a model.

    Attributes:
        refused: why the model takes no new items; empty if it does.
        modalities: for which a similar item of the catalogue can be named; empty if only its
            whole vector can be copied.
        encoded: which of "text" and "image" the service encodes.
    """

    refused: str
    modalities: Sequence[str]
    encoded: Sequence[str]
    width: int
    widths: dict[str, int]


@dataclass(frozen=True)
class Column:
    """A column of metadata in the form.

    Attributes:
        name, kind: as in the manifest.
        values: to suggest.
        long: whether its texts are long.
    """

    name: str
    kind: str
    values: Sequence[str]
    long: bool


def way_of(served: Served, encoder: bool) -> Way:
    """How a new item can be described to this model."""
    artifact, adapter = served.ranker.artifact, served.ranker.adapter
    manifest = artifact.manifest
    refused = ""
    if not served.ranker.takes_new_items:
        refused = (
            f"{manifest.model} scores items by interactions, not by vectors, so it cannot rank an "
            "item without interactions. Serve a model with vectors."
        )
    names = () if adapter is None else adapter.names
    made = {name: manifest.modalities.get(name, {}).get("provenance", {}) for name in names}
    kinds = {one.get("kind") for one in made.values() if "encoder" in one}
    reduced = all(name in artifact.bases and name in artifact.features for name in names)
    return Way(
        refused,
        names if reduced else (),
        [kind for kind in ("text", "image") if encoder and kind in kinds],
        manifest.width,
        {} if adapter is None else adapter.widths,
    )


def columns_of(served: Served) -> list[Column]:
    """Columns of metadata to ask for, without the file of the picture."""
    columns = served.ranker.columns
    title = title_column(served.ranker.catalogue)
    found = []
    for name, kind in served.ranker.manifest.columns.items():
        held = columns.get(name)
        if name != "image" and held is not None:
            values = held.names[:SUGGESTED] if isinstance(held, Category) else ()
            found.append(Column(name, kind, values, kind == "text" and name != title))
    # The title first, long texts last.
    return sorted(found, key=lambda one: (one.name != title, one.long))


def item_of(served: Served, form: Form, encoder: bool) -> NewItem:
    """The new item of a form.

    Its text is the title and all other texts of the form, one sentence each. Features of an item of
    the catalogue come from the artifact, which holds only their first 64 principal directions:
    they are close to, but not exactly, the output of the encoder for that item.

    Args:
        served: the model.
        form: as it was sent.
        encoder: whether the service encodes texts and pictures.

    Raises:
        Failure: 422 for an invalid value.
        UnknownIds: a similar item that is not in the catalogue.
    """
    body: dict[str, Any] = {"item_id": form.text("id"), "fields": _fields(served, form)}
    body |= _numbers(form)
    way = way_of(served, encoder)
    features = dict(body.get("features", {}))
    for name in way.modalities:
        if form.text(f"like.{name}") and name not in features:
            features[name] = _features(served, name, form.text(f"like.{name}"))
    if features:
        body["features"] = features
    if not way.modalities and form.text("like") and "vector" not in body:
        row = served.ranker.catalogue.rows([form.text("like")])
        body["vector"] = served.ranker.catalogue.vectors(row)[0].tolist()
    words = [form.text(f"field.{one.name}") for one in columns_of(served) if one.kind != "number"]
    text = form.text("text") or ". ".join(one.rstrip(".") for one in words if one)
    if text and "text" in way.encoded:
        body["text"] = text
    if "picture" in form.files and "image" in way.encoded:
        body["image"] = base64.b64encode(form.files["picture"]).decode()
    return read(NEW_ITEM, msgspec.json.encode(body), "/v1/models/{name}/items")


def _features(served: Served, name: str, like: str) -> list[float]:
    ranker = served.ranker
    row = ranker.catalogue.rows([like])
    reduced = ranker.catalogue.features(name, row)[0]
    if not reduced.any():
        raise Failure(
            422, f"an item with {name} features", f"{like!r}, which has none",
            "name another item, or leave it out",
        )  # fmt: skip
    found: list[float] = (reduced @ np.asarray(ranker.artifact.bases[name]).T).tolist()
    return found


def _numbers(form: Form) -> dict[str, Any]:
    text = form.text("numbers")
    if not text:
        return {}
    shape = '{"vector": [...]} or {"features": {"text": [...]}}'
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Failure(422, f"JSON such as {shape}", str(error), "correct the JSON") from error
    if (
        isinstance(found, dict)
        and set(found) <= {"vector", "features"}
        and isinstance(found.get("features", {}), dict)
    ):
        return found
    raise Failure(422, shape, "something else", "correct the JSON")


def _fields(served: Served, form: Form) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column in columns_of(served):
        text = form.text(f"field.{column.name}")
        if not text:
            continue
        if column.kind != "number":
            found[column.name] = text
            continue
        try:
            found[column.name] = float(text)
        except ValueError as error:
            raise Failure(422, f"a number as {column.name}", repr(text), "correct it") from error
    return found
