"""The package stands alone, and its list of names is true."""

import ast
from pathlib import Path

from modalign import ot

FOLDER = Path(ot.__file__).parent


def test_every_name_resolves_and_has_a_docstring_with_an_example():
    for name in ot.__all__:
        thing = getattr(ot, name)
        assert thing.__doc__
        if not isinstance(thing, type):
            assert ">>>" in thing.__doc__, name


def test_nothing_else_of_the_library_is_imported():
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                assert not name.startswith("modalign") or name.startswith("modalign.ot"), path.name
