"""The tables of options in `docs/models` repeat the documentation of the fields.

python tests/models/test_pages.py      # writes the tables anew
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from modalign.core.interfaces import MultimodalConfig, TrainedConfig
from modalign.models._registry import ModelSpec, specs

PAGES = Path(__file__).parents[2] / "docs" / "models"
HEAD = "| option | default | what |\n| --- | --- | --- |\n"
TABLE = re.compile(re.escape(HEAD) + r"(\|.*\n)*")


def shown(value: Any) -> str:
    """A default as `--set` takes it."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def table(spec: ModelSpec) -> str:
    """The options of a model, without those that it has from a base with the same default."""
    rows = ""
    for name, field in spec.config.model_fields.items():
        common = MultimodalConfig.model_fields.get(name)
        inherited = common is not None and issubclass(spec.config, TrainedConfig)
        if inherited and common is not None and common.default == field.default:
            continue
        text = " ".join((field.description or "").split()).replace("|", "\\|")
        rows += f"| `{name}` | `{shown(field.get_default(call_default_factory=True))}` | {text} |\n"
    return HEAD + rows


@pytest.mark.parametrize("name", specs())
def test_the_table_of_options_is_that_of_the_fields(name: str) -> None:
    found = TABLE.search((PAGES / f"{name}.md").read_text())
    assert found is not None, f"docs/models/{name}.md has no table that starts with {HEAD}"
    assert found[0] == table(specs()[name]), "run `python tests/models/test_pages.py`"


@pytest.mark.parametrize("name", specs())
def test_the_page_names_every_variant(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()
    assert [one for one in specs()[name].variants if f"`{one}`" not in page] == []


def test_the_list_of_models_and_the_navigation_have_every_model() -> None:
    listed = set(re.findall(r"^\| \[([\w-]+)\]\(\1\.md\)", (PAGES / "index.md").read_text(), re.M))
    assert listed == set(specs())
    navigation = (PAGES.parents[1] / "mkdocs.yml").read_text()
    assert [name for name in specs() if f": models/{name}.md\n" not in navigation] == []


def test_a_changed_default_is_seen() -> None:
    text = (PAGES / "bpr.md").read_text()
    assert TABLE.search(text.replace("`0.03`", "`0.02`"))[0] != table(specs()["bpr"])  # type: ignore[index]


def test_the_list_of_models_says_what_each_declares() -> None:
    rows = re.findall(r"^\| \[([\w-]+)\].*$", (PAGES / "index.md").read_text(), re.M)
    lines = {
        name: [cell.strip() for cell in line.strip("|").split("|")]
        for line in (PAGES / "index.md").read_text().splitlines()
        for name in re.findall(r"^\| \[([\w-]+)\]", line)
    }
    assert len(rows) == len(lines)
    said = {True: "yes", False: "no"}
    for name, cells in lines.items():
        spec = specs()[name]
        assert spec.family in cells[1], name
        assert ("modalities" in cells[3]) == ("modalities" in spec.needs), name
        assert ("histories" in cells[3]) == ("history" in spec.needs), name
        assert cells[4:6] == [said[spec.cls.unseen_users], said[spec.cold_items]], name


if __name__ == "__main__":
    for name, spec in specs().items():
        page = PAGES / f"{name}.md"
        page.write_text(TABLE.sub(lambda _, spec=spec: table(spec), page.read_text(), count=1))
