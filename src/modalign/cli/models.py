"""`modalign models`: what there is to train."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from modalign.cli.render import Json, out, print_json, table


def register(root: typer.Typer) -> None:
    """Add the command to the top level."""
    root.command()(models)


def models(
    name: Annotated[str | None, typer.Argument(help="One model: its options.")] = None,
    json: Json = False,
) -> None:
    """Every model: family, paper, what it needs; with a name, all its options."""
    from modalign import registry

    if name is None:
        found = [_summary(spec) for spec in registry.specs().values()]
        if json:
            print_json(found)
            return
        rows = [
            [m["name"], m["family"], m["paper"], ", ".join(m["needs"]) or "ids", m["summary"]]
            for m in found
        ]
        out.print(table("Models", ["name", "family", "paper", "needs", "what it is"], rows))
        out.print("modalign models NAME shows a model's options")
        return
    spec = registry.get(name)
    options = _options(spec.config)
    if json:
        print_json({**_summary(spec), "options": options})
        return
    out.print(f"{spec.name}: {spec.summary} ({spec.paper})", markup=False)
    rows = [[o["name"], o["default"], o["bounds"], o["help"]] for o in options]
    out.print(table("Options, each as --set name=value", ["name", "default", "bounds", ""], rows))
    if spec.variants:
        rows = [
            [key, ", ".join(f"{k}={v}" for k, v in values.items())]
            for key, values in spec.variants.items()
        ]
        out.print(table("Variants", ["name", "options"], rows))


def _summary(spec: Any) -> dict[str, Any]:
    return {
        "name": spec.name,
        "family": spec.family,
        "paper": spec.paper,
        "needs": sorted(spec.needs),
        "unseen_users": spec.cls.unseen_users,
        "summary": spec.summary,
    }


def _options(config: Any) -> list[dict[str, Any]]:
    schema = config.model_json_schema()["properties"]
    return [
        {
            "name": key,
            "default": field.get_default(call_default_factory=True),
            "bounds": _bounds(schema[key]),
            "help": field.description or "",
        }
        for key, field in config.model_fields.items()
    ]


def _bounds(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(filter(None, (_bounds(one) for one in schema["anyOf"])))
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return " ".join(filter(None, [schema.get("type", str(schema.get("const", ""))), *limits]))
