"""Public functions describe their parameters, if they have three or more, and what they raise."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

import modalign
import modalign_serve

PARAMETERS = 3

MODULES = [
    module.name
    for package in (modalign, modalign_serve)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]


def functions(module: ModuleType) -> Iterator[tuple[str, Callable[..., object], list[str]]]:
    """Public functions defined in a module and public methods of its public classes.

    With each its documentation, followed by that of the methods that it overrides: what a base
    class describes need not be repeated.
    """
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing):
            yield name, thing, [inspect.getdoc(thing) or ""]
        if inspect.isclass(thing):
            for method, value in vars(thing).items():
                inner = inspect.unwrap(getattr(value, "__func__", value))
                if not method.startswith("_") and inspect.isfunction(inner):
                    found = [getattr(one, method, None) for one in thing.__mro__]
                    texts = [inspect.getdoc(one) or "" for one in found if one is not None]
                    yield f"{name}.{method}", getattr(thing, method), texts


def parameters(function: Callable[..., object]) -> list[str]:
    """Names of the parameters, without `self` and `cls`."""
    found = inspect.signature(inspect.unwrap(function)).parameters
    return [name for name in found if name not in ("self", "cls")]


def described(text: str) -> list[str]:
    """Names under `Args:`, in their order; `a, b: ...` describes two."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n|\n)*)", inspect.cleandoc(text) + "\n", re.MULTILINE)
    if section is None:
        return []
    names = re.findall(
        r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?:", section[1], re.MULTILINE
    )
    return [one.strip().lstrip("*") for line in names for one in line.split(",")]


def is_command(function: Callable[..., object]) -> bool:
    """Whether a function is a command, whose options are described by their help texts."""
    inner = inspect.unwrap(function)
    return "typer." in " ".join(map(str, getattr(inner, "__annotations__", {}).values()))


def wrong(module: ModuleType) -> list[str]:
    """What differs between signature and `Args:`, per function.

    A module whose name starts with an underscore has no public functions: they may go without the
    section, but one that is there has to be right.
    """
    found, private = [], any(part.startswith("_") for part in module.__name__.split("."))
    for name, function, texts in functions(module):
        taken = parameters(function)
        if len(taken) < PARAMETERS or is_command(function):
            continue
        given = next(filter(None, map(described, texts)), [])
        if given != taken and (given or not private):
            found.append(f"{name}: has {', '.join(taken)}; Args: {', '.join(given) or 'none'}")
    return found


def raises(function: Callable[..., object]) -> bool:
    """Whether the function's own code raises something new; what it calls does not count."""
    source = textwrap.indent(inspect.getsource(inspect.unwrap(function)), " ")
    todo: list[ast.AST] = [*ast.parse("if True:\n" + source).body[0].body[0].body]  # type: ignore[attr-defined]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Raise) and node.exc is not None:
            return True
        if not isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            todo += ast.iter_child_nodes(node)
    return False


def silent(module: ModuleType) -> list[str]:
    """Public functions of a public module that raise and do not say so."""
    if any(part.startswith("_") for part in module.__name__.split(".")):
        return []
    return [
        name
        for name, function, texts in functions(module)
        if raises(function)
        and not is_command(function)
        and not any("aise" in t or "See `" in t for t in texts)
    ]


@pytest.mark.parametrize("name", MODULES)
def test_what_a_function_raises_is_described(name: str) -> None:
    assert silent(importlib.import_module(name)) == []


@pytest.mark.parametrize("name", MODULES)
def test_every_parameter_is_described(name: str) -> None:
    assert wrong(importlib.import_module(name)) == []


def test_what_is_missing_or_too_much_is_found() -> None:
    module = ModuleType("made_up")
    source = (
        "def none(a, b, c):\n    'Nothing.'\n"
        "def two(a, b): 'Two parameters need no list.'\n"
        "def some(a, b, c):\n    '''One.\n\n    Args:\n        a: x\n        c: y: z\n    '''\n"
        "def swapped(a, b, c):\n    '''One.\n\n    Args:\n        b, a: x\n        c: y\n    '''\n"
        "def right(a, *b, c=1, **d):\n"
        "    '''One.\n\n    Args:\n        a: x\n            b: no name\n        *b: y\n\n"
        "        c (int): z\n        **d: w\n\n    Returns:\n        e: x\n    '''\n"
        "class Some:\n    'It.'\n    def method(self, a, b, c): 'Nothing.'\n"
        "    def _private(self, a, b, c): 'Nothing.'\n"
        "    @staticmethod\n    def static(a, b, c): 'Nothing.'\n"
        "class Base:\n    'It.'\n    def over(self, a, b, c):\n"
        "        '''One.\n\n        Args:\n            a, b, c: x\n        '''\n"
        "class Derived(Base):\n    'It.'\n    def over(self, a, b, c): 'Another.'\n"
        "class Other(Base):\n    'It.'\n    def over(self, a, b, d): 'Another.'\n"
    )
    exec(compile(source, "made_up", "exec"), module.__dict__)
    assert wrong(module) == [
        "none: has a, b, c; Args: none",
        "some: has a, b, c; Args: a, c",
        "swapped: has a, b, c; Args: b, a, c",
        "Some.method: has a, b, c; Args: none",
        "Some.static: has a, b, c; Args: none",
        "Other.over: has a, b, d; Args: a, b, c",
    ]


def loud() -> None:
    """Ends in an error."""
    raise ValueError("told to")


def passes_on() -> None:
    """Raises nothing of its own."""
    try:
        loud()
    except ValueError:
        raise


def test_a_function_that_raises_in_silence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("made_up")
    for function in (loud, passes_on):
        monkeypatch.setattr(function, "__module__", "made_up")
        vars(module)[function.__name__] = function
    assert silent(module) == ["loud"]
