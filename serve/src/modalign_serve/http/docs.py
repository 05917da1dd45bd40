"""The documentation of the API: one page without external resources."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from jinja2 import Template


def quoted(part: str) -> str:
    """One part of a path, with all characters quoted that have a meaning in paths.

    Example:
        >>> quoted("a/b?c")
        'a%2Fb%3Fc'
    """
    return quote(part, safe="")


@cache
def _template() -> Template:
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    environment.filters["type"] = described
    text = (files("modalign_serve.http") / "docs.html").read_text("utf-8")
    return environment.from_string(text)


def page(document: dict[str, Any]) -> str:
    """An OpenAPI document as a page."""
    operations = [
        {"method": method.upper(), "path": path, **operation}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return _template().render(
        info=document["info"], operations=operations, schemas=document["components"]["schemas"]
    )


def described(schema: dict[str, Any]) -> str:
    """A schema in a few words.

    Example:
        >>> described({"type": "array", "items": {"$ref": "#/components/schemas/Event"}})
        'array of Event'
    """
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(json.dumps(one) for one in schema["enum"]) or "nothing"
    for key in ("anyOf", "oneOf"):
        if key in schema and "type" not in schema:
            return " or ".join(dict.fromkeys(described(one) for one in schema[key]))
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"array of {described(schema.get('items', {}))}"
    bounds = []
    if "minimum" in schema:
        bounds.append(f"from {schema['minimum']:g}")
    if "maximum" in schema:
        bounds.append(f"to {schema['maximum']:g}")
    return " ".join([str(kind), *bounds])
