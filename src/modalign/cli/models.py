"""`modalign models`: the models and their options."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from modalign.cli.options import Json
from modalign.cli.render import out, plain, print_json, say, table

EPILOG = (
    "**Examples**\n\n    modalign models\n\n    modalign models cm3\n\n"
    "    modalign models --family multimodal --cold-items"
)


Reads = Literal["ids", "history", "content", "text", "image", "audio", "video"]
FAMILIES = {
    "baseline": "Baselines, solved without training",
    "collaborative": "From interactions alone",
    "multimodal": "From interactions and content",
}


def models(
    name: Annotated[str | None, typer.Argument(help="Show the options of this model.")] = None,
    family: Annotated[
        Literal["baseline", "collaborative", "multimodal"] | None,
        typer.Option(help="List the models of this family only."),
    ] = None,
    needs: Annotated[
        Reads | None,
        typer.Option(
            help="List the models that read this: ids only, histories of users, or content of "
            "items; text, image, audio and video are content."
        ),
    ] = None,
    cold_items: Annotated[
        bool,
        typer.Option(
            "--cold-items", help="List the models that score items without interactions by content."
        ),
    ] = False,
    unseen_users: Annotated[
        bool,
        typer.Option(
            "--unseen-users", help="List the models that score users that training never saw."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """List all models, or with a name show the options and variants of one model."""
    from modalign.models import _registry as registry

    if name is None:
        found = [
            one
            for one in map(_summary, registry.specs().values())
            if (family is None or one["family"] == family)
            and (needs is None or _reads(one, needs))
            and (one["cold_items"] or not cold_items)
            and (one["unseen_users"] or not unseen_users)
        ]
        _list(found, json)
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


def _list(found: list[dict[str, Any]], json: bool) -> None:
    """One line for each model, by family."""
    if json:
        print_json(found)
        return
    for family, title in FAMILIES.items():
        members = [one for one in found if one["family"] == family]
        if not members:
            continue
        out.print(f"\n[bold]{title}[/] ({len(members)})", highlight=False)
        for one in members:
            marks = {
                "h": "history" in one["needs"],
                "u": one["unseen_users"],
                "c": one["cold_items"],
            }
            shown = "".join(mark if holds else "·" for mark, holds in marks.items())
            line = f" {plain(one['name']):<13} {shown}  {plain(one['summary'])}"
            out.print(line, no_wrap=True, overflow="ellipsis", highlight=False)
    if not found:
        say("No model fits all filters.", out)
    say(
        "\nh: reads histories; u: scores users that training never saw;\n"
        "c: scores items without interactions by their content\n"
        "`modalign models NAME` shows the options and variants of a model",
        out,
    )


def _reads(one: dict[str, Any], what: Reads) -> bool:
    """Whether a model reads this; each kind of content is read by all models that read content."""
    if what == "history":
        return "history" in one["needs"]
    return ("modalities" in one["needs"]) != (what == "ids")


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
        "cold_items": spec.cold_items,
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
