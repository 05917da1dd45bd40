"""A wrong implementation of an equation, and how it takes the place of the right one.

A mutant replaces a fragment of the source of one function. The function keeps its identity and
gets the code of the changed source, so that whoever imported it, decorated it or made it a
default runs the mutant. The fragment occurs exactly once in the function: a refactoring that
moves the line fails loudly instead of leaving a mutant that changes nothing.
"""

from __future__ import annotations
import __future__

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """One wrong implementation.

    Attributes:
        equation: number of the equation in the system's specification, such as "C5".
        wrong: what is wrong.
        where: the function, as "module:name" or "module:Class.name", below `modalign`.
        old: a fragment of its source that occurs once.
        new: what stands there in the mutant.
        killer: the test that must turn red, as a node id below `tests`.
    """

    equation: str
    wrong: str
    where: str
    old: str
    new: str
    killer: str

    @property
    def name(self) -> str:
        """The mutant's name in the tests."""
        return f"{self.equation}-{self.wrong.replace(' ', '-')}"


def function_of(where: str) -> FunctionType:
    """The function itself, below decorators, properties and static methods."""
    module, _, path = where.partition(":")
    found: Any = importlib.import_module(f"modalign.{module}")
    for name in path.split("."):
        found = inspect.getattr_static(found, name)
    if isinstance(found, staticmethod | classmethod):
        found = found.__func__
    elif isinstance(found, property):
        found = found.fget
    elif isinstance(found, cached_property):
        found = found.func
    found = inspect.unwrap(found)
    assert isinstance(found, FunctionType), where
    return found


def changed(function: FunctionType, old: str, new: str) -> FunctionType:
    """The function with another source.

    Raises:
        LookupError: the fragment does not occur exactly once.
    """
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(old) != 1:
        times = source.count(old)
        raise LookupError(f"{function.__qualname__} contains {old!r} {times} times instead of once")
    inner = ast.parse(source.replace(old, new)).body[0]
    assert isinstance(inner, ast.FunctionDef)
    inner.decorator_list.clear()
    # `super()` without arguments reads `__class__` from the surrounding scope.
    outer = ast.parse(f"def outer({', '.join(function.__code__.co_freevars)}): pass").body[0]
    assert isinstance(outer, ast.FunctionDef)
    # A function that calls itself finds the one in its module.
    outer.body = [ast.Global([inner.name]), inner, ast.Return(ast.Name(inner.name, ast.Load()))]
    module = ast.fix_missing_locations(ast.Module([outer], []))
    flags = __future__.annotations.compiler_flag
    names = dict(function.__globals__)
    exec(compile(module, "<mutant>", "exec", flags, True), names)
    made = names["outer"](*[None] * len(function.__code__.co_freevars))
    assert isinstance(made, FunctionType)
    return made


@contextmanager
def in_place(mutant: Mutant) -> Iterator[None]:
    """The mutant runs wherever the right function is called."""
    function = function_of(mutant.where)
    other = changed(function, mutant.old, mutant.new)
    parts = ("__code__", "__defaults__", "__kwdefaults__")
    right = {part: getattr(function, part) for part in parts}
    try:
        for part in parts:
            setattr(function, part, getattr(other, part))
        yield
    finally:
        for part, value in right.items():
            setattr(function, part, value)
