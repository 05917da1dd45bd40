"""`modalign models`: the models and their options."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from modalign.cli.options import Json
from modalign.cli.render import out, plain, print_json, say, table

EPILOG = "**Examples**\n\n    modalign models\n\n    modalign models cm3"


def models(
    name: Annotated[str | None, typer.Argument(help="Show the options of this model.")] = None,
    json: Json = False,
) -> None:
    """List all models, or with a name show the options and variants of one model."""
    from modalign.models import _registry as registry

    if name is None:
        found = [_summary(spec) for spec in registry.specs().values()]
        if json:
            print_json(found)
            return
        rows = [
            [
                m["name"],
                m["family"],
                " + ".join(_data_needs(m)),
                "yes" if m["unseen_users"] else "",
                f"{plain(m['summary'])} [dim]({plain(m['paper'])})[/]",
            ]
            for m in found
        ]
        columns = ["name", "family", "learns from", "scores unseen users", "description"]
        out.print(table("Models", columns, rows))
        say("`modalign models NAME` shows the options and variants of a model", out)
        return
    spec = registry.get(name)
    options = _options(spec.config)
    variants = {key: dict(values) for key, values in spec.variants.items()}
    if json:
        print_json({**_summary(spec), "options": options, "variants": variants})
        return
    say(f"\n{spec.name}: {spec.summary}", out)
    say(f"{spec.paper}; learns from {', '.join(_data_needs(_summary(spec)))}", out)
    if options:
        rows = [
            [plain(o["name"]), plain(_shown(o["default"])), plain(o["bounds"]), plain(o["help"])]
            for o in options
        ]
        title = "Options, set with --set name=value"
        out.print(table(title, ["name", "default", "values", "description"], rows))
    else:
        say("The model has no options.", out)
    if variants:
        rows = [
            [key, plain(", ".join(f"{k}={_shown(v)}" for k, v in values.items()))]
            for key, values in variants.items()
        ]
        out.print(table("Variants, chosen with --variant name", ["name", "options"], rows))


def _data_needs(summary: dict[str, Any]) -> list[str]:
    """What the data must contain."""
    return ["ids", "features"] if "modalities" in summary["needs"] else ["ids"]


def _shown(value: Any) -> str:
    """A value as `--set` reads it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(_shown, value))}]" if isinstance(value, list | tuple) else str(value)


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
