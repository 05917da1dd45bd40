"""Imports point up the rows; read off the syntax trees, so that one inside a function counts."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import modalign
import modalign_serve

# A room may import from the rooms of earlier rows and from itself; nothing beside it or below.
# There is no list of exceptions.
ROWS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "modalign_serve": (
        ("errors",),
        ("artifact",),
        ("ranker", "stores"),
        ("service",),
        ("http",),
        ("web",),
        ("command",),
    ),
    "modalign": (
        ("errors", "ot"),
        ("core",),
        ("data", "graph", "engines"),
        ("encoding", "evaluate", "train"),
        ("features",),
        ("nn", "preferences"),
        ("models",),
        ("experiments", "testing"),
        ("export",),
        ("report",),
        ("sweeps",),
        ("distillation",),
        ("cli",),
    ),
}
ROOTS = {
    "modalign_serve": Path(modalign_serve.__file__).parent,
    "modalign": Path(modalign.__file__).parent,
}
# Files of a root that are no rooms: what `import` and what `python -m` read.
DOORS = {"__init__", "__main__"}
PICTURE = Path(__file__).parents[1] / "docs" / "img" / "rooms.svg"
# What a room never imports, not even inside a function.
NEVER = {
    "modalign.ot": ("modalign.errors", "modalign_serve"),
    "modalign.models": ("modalign.data.sources", "modalign.train", "modalign.evaluate"),
    "modalign_serve": (
        "torch",
        "lightning_fabric",
        "scipy",
        "sklearn",
        "matplotlib",
        "onnx",
        "pickle",
    ),
}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every import, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            # `from modalign.core import seeds` imports modalign.core.seeds.
            yield from ((node.lineno, f"{dots}{node.module}.{one.name}") for one in node.names)


def below(name: str, parent: str) -> bool:
    """Whether a dotted name is `parent` or stands inside it."""
    return name == parent or name.startswith(parent + ".")


def height(package: str, room: str) -> int | None:
    """Which row of a package a room stands in."""
    return next((row for row, names in enumerate(ROWS[package]) if room in names), None)


def violations(package: str, root: Path) -> list[str]:
    """Every import of a package that points down or aside, and every room outside the rows."""
    found = []
    for path in sorted(root.rglob("*.py")):
        room = path.relative_to(root).parts[0].removesuffix(".py")
        if room in DOORS:
            continue
        for line, name in imports(path):
            why = why_not(package, room, name)
            if why:
                found.append(f"{package}/{path.relative_to(root)}:{line} imports {name}: {why}")
    return found


def why_not(package: str, room: str, name: str) -> str:
    """Why a room of a package may not import a name; empty where it may."""
    if name.startswith("."):
        return "relative"
    for who, banned in NEVER.items():
        if below(f"{package}.{room}", who) and any(below(name, one) for one in banned):
            return f"{who} never imports it"
    top, _, rest = name.partition(".")
    if top == "modalign_serve" and package == "modalign":
        return ""
    if top == "modalign" and package == "modalign_serve":
        return "the server stands alone"
    target = rest.partition(".")[0]
    if top != package or target in ("", room, "__version__"):
        return ""
    mine, its = height(package, room), height(package, target)
    if mine is None or its is None:
        return f"{room if mine is None else target} stands in no row"
    return "" if its < mine else f"{room} (row {mine}) may not see {target} (row {its})"


@pytest.mark.parametrize("package", ROWS)
def test_imports_point_up(package: str) -> None:
    assert violations(package, ROOTS[package]) == []


@pytest.mark.parametrize("package", ROWS)
def test_every_room_stands_in_a_row(package: str) -> None:
    rooms = {
        path.name.removesuffix(".py")
        for path in ROOTS[package].iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert rooms - DOORS == {room for row in ROWS[package] for room in row}


@pytest.mark.parametrize("package", ROWS)
def test_the_root_holds_no_loose_module(package: str) -> None:
    assert {path.stem for path in ROOTS[package].glob("*.py")} == {*DOORS, "errors"}
    room = {"modalign": "cli", "modalign_serve": "command"}[package]
    called = [name for _, name in imports(ROOTS[package] / "__main__.py") if name[0] != "_"]
    assert called == [f"{package}.{room}.main.run"]


def files_of(package: str) -> dict[str, set[str]]:
    """Every module of a package, and the modules of it that it imports."""
    root = ROOTS[package]
    names = {}
    for path in root.rglob("*.py"):
        parts = (package, *path.relative_to(root).with_suffix("").parts)
        names[".".join(parts).removesuffix(".__init__")] = path
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        known = ({one, one.rpartition(".")[0]} & names.keys() for _, one in imports(path))
        # `from package.room import module` means the module, not the room around it.
        found[name] = {max(one, key=len) for one in known if one} - {name}
    return found


@pytest.mark.parametrize("package", ROWS)
def test_no_circle_between_files(package: str) -> None:
    graph = files_of(package)
    # The root and a room's table of names import lazily, for type checkers' eyes alone.
    for name in list(graph):
        if (ROOTS[package].parent / Path(*name.split(".")) / "__init__.py").is_file():
            graph[name] = set()
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def arrows(package: str) -> set[tuple[str, str]]:
    """A room and another room of the same package that it imports from."""
    found: set[tuple[str, str]] = set()
    root = ROOTS[package]
    for path in root.rglob("*.py"):
        room = path.relative_to(root).parts[0].removesuffix(".py")
        names = {one.split(".")[1] for _, one in imports(path) if one.startswith(package + ".")}
        rooms = {room for row in ROWS[package] for room in row}
        found.update((room, other) for other in (names & rooms) - {room} if room in rooms)
    return found


def picture() -> str:
    """Both packages as an SVG: a box for each room, rows from top to bottom, a line an import."""
    wide, high, left = 120, 66, 24
    lines: list[str] = []
    boxes: list[str] = []
    offset = left
    for package, rows in ROWS.items():
        columns = max(map(len, rows))
        centre = offset + columns * wide / 2
        places = {
            room: (centre + (column - (len(row) - 1) / 2) * wide, 70 + level * high)
            for level, row in enumerate(rows)
            for column, room in enumerate(row)
        }
        boxes.append(f'<text x="{centre:g}" y="28" class="package">{package}</text>')
        for room, other in sorted(arrows(package)):
            (x1, y1), (x2, y2) = places[room], places[other]
            bend = 0 if abs(y1 - y2) <= high else 60 if x1 <= centre else -60
            lines.append(
                f'<path d="M{x1:g} {y1 - 14:g} Q{(x1 + x2) / 2 + bend:g} {(y1 + y2) / 2:g} '
                f'{x2:g} {y2 + 14:g}"><title>{room} imports {other}</title></path>'
            )
        for room, (x, y) in places.items():
            boxes.append(f'<rect x="{x - 52:g}" y="{y - 14:g}" width="104" height="28" rx="5"/>')
            boxes.append(f'<text x="{x:g}" y="{y + 4:g}">{room}</text>')
        offset += columns * wide + 60
    height = 70 + max(map(len, ROWS.values())) * high - 20
    style = (
        "rect{fill:#eef3f8;stroke:#34506b} path{fill:none;stroke:#7b93ab;opacity:.55} "
        "text{font:13px sans-serif;text-anchor:middle;fill:#1c2b3a} .package{font-weight:bold}"
    )
    size = f'viewBox="0 0 {offset} {height}" width="{offset}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>'
    background = '<rect width="100%" height="100%" style="fill:#fff;stroke:none"/>'
    return "\n".join([head, background, *lines, *boxes, "</svg>"]) + "\n"


def test_the_picture_of_the_rooms_is_of_today() -> None:
    draw = ".venv/bin/python scripts/rooms > docs/img/rooms.svg"
    assert PICTURE.read_text() == picture(), f"draw it again: {draw}"


@pytest.mark.parametrize(
    ("package", "room", "name"),
    [
        ("modalign", "data", "modalign.models.bpr.BPR"),
        ("modalign", "graph", "modalign.data.dataset"),
        ("modalign", "models", "modalign.train.trainer"),
        ("modalign", "models", "modalign.evaluate"),
        ("modalign", "models", "modalign.data.sources.flat_table"),
        ("modalign", "train", "modalign.models.bpr"),
        ("modalign", "evaluate", "modalign.train.trainer"),
        ("modalign", "ot", "modalign.errors.InputError"),
        ("modalign", "models", ".ease"),
        ("modalign", "errors", "modalign.cli.main"),
        ("modalign", "strange", "modalign.errors.InputError"),
        ("modalign", "cli", "modalign.strange.thing"),
        ("modalign_serve", "http", "torch"),
        ("modalign_serve", "ranker", "scipy.sparse"),
        ("modalign_serve", "http", "modalign.core.view"),
        ("modalign_serve", "ranker", "modalign_serve.http.app"),
        ("modalign_serve", "stores", "modalign_serve.ranker.topk"),
    ],
)
def test_a_violation_is_seen(package: str, room: str, name: str) -> None:
    assert why_not(package, room, name)


@pytest.mark.parametrize(
    ("package", "room", "name"),
    [
        ("modalign", "models", "modalign.graph.bipartite"),
        ("modalign", "models", "modalign.models._registry.register"),
        ("modalign", "cli", "modalign.experiments.fit"),
        ("modalign", "cli", "modalign.__version__"),
        ("modalign", "export", "modalign_serve.artifact.write"),
        ("modalign", "train", "torch"),
        ("modalign_serve", "ranker", "modalign_serve.artifact.read"),
    ],
)
def test_a_fair_import_passes(package: str, room: str, name: str) -> None:
    assert not why_not(package, room, name)
