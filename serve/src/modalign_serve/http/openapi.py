"""The OpenAPI document, written from the table of endpoints and the types of their bodies.

It includes what depends on the served artifacts (names of models, columns of metadata, modalities),
so a request that conforms to the document is answered, and any other is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from modalign_serve import __version__
from modalign_serve.http.http import JSON, Endpoint, Table
from modalign_serve.service import schemas

_REF = "#/components/schemas/{name}"
_ALWAYS = (421, 429, 500, 503)
_OF_BODY = (400, 408, 413, 415, 422)
_MEANING = {
    400: "The body is not JSON, or did not arrive completely.",
    401: "No API key, or an unknown one.",
    403: "Not permitted with this key, or from a page of another site.",
    404: "There is no such model, user, item or file.",
    405: "The path has no such method.",
    408: "The body took too long.",
    409: "Not possible in the present state, or with this model.",
    413: "The body is too large.",
    415: "The body is compressed.",
    421: "Host is not a name of this service.",
    422: "The body or the query does not conform to this document.",
    429: "Too many requests; Retry-After says when to try again.",
    500: "An error inside the service.",
    503: "The service cannot answer now; Retry-After says when to try again.",
}


@dataclass(frozen=True)
class ServedFacts:
    """What the document says of the served artifacts.

    Attributes:
        columns: kinds ("text", "category", "number") of each column of metadata, over all models.
        modalities: width of the features of each modality, or None if models differ.
        width: of the items' vectors, or None if models differ.
        encoder: whether new items may be sent as text and picture.
    """

    models: Sequence[str]
    columns: Mapping[str, frozenset[str]]
    modalities: Mapping[str, int | None]
    width: int | None = None
    keys: bool = False
    encoder: bool = False


def document(table: Table, known: ServedFacts) -> dict[str, Any]:
    """The OpenAPI 3.1 document as plain data."""
    types = [t for e in table.endpoints for t in _types(e)]
    _, components = msgspec.json.schema_components([*types, schemas.Error], ref_template=_REF)
    _narrow(components, known)
    paths: dict[str, Any] = {}
    for endpoint in table.endpoints:
        path = endpoint.path.replace(":path}", "}")
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, known)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "modalign",
            "version": __version__,
            "description": "Recommendations from trained models. Every error is a JSON object that "
            "says what was expected, what was received instead, and how to fix it.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }
    if known.keys:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return found


def _types(endpoint: Endpoint) -> list[Any]:
    gives = endpoint.gives if isinstance(endpoint.gives, tuple) else (endpoint.gives,)
    return [t for t in (endpoint.takes, *gives) if t is not None and not isinstance(t, str)]


def _schema(wanted: Any) -> dict[str, Any]:
    if isinstance(wanted, tuple):
        return {"oneOf": [_schema(one) for one in wanted]}
    (found,), _ = msgspec.json.schema_components([wanted], ref_template=_REF)
    return found


def _operation(endpoint: Endpoint, known: ServedFacts) -> dict[str, Any]:
    statuses = {*_ALWAYS, *endpoint.statuses}
    if endpoint.method == "POST":
        statuses |= {*_OF_BODY, 403}
    if any(p.place == "query" for p in endpoint.parameters):
        statuses.add(422)
    if known.keys and endpoint.access != "open":
        statuses.add(401)
    if endpoint.access == "admin":
        statuses |= {403}
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": _operation_id(endpoint),
        "responses": {"200": _success(endpoint.gives)},
    }
    error = {"content": {JSON: {"schema": {"$ref": _REF.format(name="Error")}}}}
    for status in sorted(statuses):
        operation["responses"][str(status)] = {"description": _MEANING[status], **error}
    if endpoint.parameters:
        operation["parameters"] = [
            {
                "name": p.name,
                "in": p.place,
                "required": p.place == "path",
                "description": p.description,
                "schema": {**p.schema, "enum": list(known.models)}
                if p.place == "path" and p.name == "name"
                else dict(p.schema),
            }
            for p in endpoint.parameters
        ]
    if endpoint.takes is not None:
        content: dict[str, Any] = {"schema": _schema(endpoint.takes)}
        if endpoint.example is not None:
            content["example"] = endpoint.example
        operation["requestBody"] = {"required": True, "content": {JSON: content}}
    if known.keys and endpoint.access != "open":
        operation["security"] = [{"key": []}]
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    words = [w for w in endpoint.path.replace("{", "").replace("}", "").split("/") if w != "v1"]
    return "_".join([endpoint.method.lower(), *filter(None, words)]).replace(":path", "")


def _success(gives: Any) -> dict[str, Any]:
    described = {"description": "Success."}
    if gives is None:
        return described
    if isinstance(gives, str):
        return {**described, "content": {gives: {"schema": {"type": "string"}}}}
    return {**described, "content": {JSON: {"schema": _schema(gives)}}}


def _narrow(components: dict[str, Any], known: ServedFacts) -> None:
    """Add constraints between fields, and what depends on the artifacts, to the schemas."""
    columns = sorted(known.columns)
    where = _where(components, known)
    recommend = components["Recommend"]
    recommend["oneOf"] = [{"required": [one]} for one in ("user_id", "user_ids", "items")]
    recommend["properties"]["at_most_per"]["propertyNames"] = {
        "enum": [c for c in columns if known.columns[c] == {"category"}]
    }
    similar = components["Similar"]
    similar["oneOf"] = [{"required": [one]} for one in ("item_id", "item_ids")]
    for one in (recommend, similar):
        one["properties"]["where"] = {
            "anyOf": [where, {"type": "null"}],
            "default": None,
            "description": "Conditions on metadata, all of which must hold.",
        }
        one["properties"]["fields"]["items"] = {"enum": columns}
    boost = components["Boost"]
    boost["properties"]["where"] = {"anyOf": [where, {"type": "null"}]}
    boost["anyOf"] = [
        {"required": ["where"], "properties": {"where": {"type": "object"}}},
        {"required": ["items"], "properties": {"items": {"minItems": 1}}},
    ]
    if "NewItem" in components:
        _narrow_item(components["NewItem"], known)


def _where(components: dict[str, Any], known: ServedFacts) -> dict[str, Any]:
    number: dict[str, Any] = {"type": "number", "minimum": -1e30, "maximum": 1e30}
    text: dict[str, Any] = {"type": "string"}
    by_kind: dict[str, list[dict[str, Any]]] = {
        "number": [number, _range(number)],
        "text": [text, {"type": "array", "items": text}, _range(text)],
    }
    by_kind["category"] = by_kind["text"]
    properties = {}
    for name, kinds in known.columns.items():
        # A column of different kinds in two models has no condition that fits both.
        ways = by_kind[next(iter(kinds))] if len({k == "number" for k in kinds}) == 1 else []
        properties[name] = {"anyOf": copy.deepcopy(ways)} if ways else {"type": "string"}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _range(bound: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": "Values from min to max, both included; either may be omitted.",
        "properties": {"min": bound, "max": bound},
        "additionalProperties": False,
        "minProperties": 1,
    }


def _narrow_item(item: dict[str, Any], known: ServedFacts) -> None:
    properties = item["properties"]
    ways = ["vector", *(("features",) if known.modalities else ())]
    ways += ["text", "image"] if known.encoder else []
    item["anyOf"] = [{"required": [way]} for way in ways]
    for way in ("features", "text", "image"):
        if way not in ways:
            del properties[way]
    if known.width is not None:
        properties["vector"] |= {"minItems": known.width, "maxItems": known.width}
    if known.modalities:
        widths = {}
        for name, width in known.modalities.items():
            sizes = {} if width is None else {"minItems": width, "maxItems": width}
            number = {"type": "number", "minimum": -1e6, "maximum": 1e6}
            some = {"contains": {"not": {"const": 0}}}
            widths[name] = {"type": "array", "items": number, **some, **sizes}
        properties["features"] |= {"properties": widths, "additionalProperties": False}
    numbers = [name for name, kinds in known.columns.items() if "number" in kinds]
    finite = {"type": ["number", "null"], "minimum": -1e30, "maximum": 1e30}
    properties["fields"]["properties"] = {name: dict(finite) for name in numbers}
