"""Named things of one kind: models, sources, encoders, splits, providers.

One table a kind. A name is taken once; other packages add to a table by an entry point of the
group `modalign.KIND`, whose module registers when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from modalign.errors import UnknownName

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A table of things by name, sorted, filled on first use.

    Args:
        kind: what one of them is called in messages, such as "model".
        group: entry points of other packages that add to it, such as "modalign.models".
        load: imports the own modules that register; called once, before the first look-up.

    Example:
        >>> shapes = Registry("shape", "modalign.shapes")
        >>> shapes.register("circle", 0)
        >>> shapes.register("square", 4)
        >>> list(shapes), shapes["square"]
        (['circle', 'square'], 4)
        >>> shapes["sqare"]
        Traceback (most recent call last):
        ...
        modalign_serve.errors.UnknownName: Expected a shape, one of circle, square, got 'sqare'. \
To fix: did you mean 'square'?
    """

    def __init__(self, kind: str, group: str, load: Callable[[], None] | None = None) -> None:
        self.kind, self.group = kind, group
        self._load = load
        self._things: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str, thing: T) -> None:
        """Add a thing.

        Raises:
            ValueError: another thing has that name.
        """
        old = self._things.get(name)
        # A module that is imported again makes a new class of the same name and place.
        if old is not None and _place(old) != _place(thing):
            raise ValueError(
                f"two {self.kind}s are called {name!r}: {_place(old)} and {_place(thing)}; "
                "rename one"
            )
        self._things[name] = thing

    def __getitem__(self, name: str) -> T:
        """The thing of this name.

        Raises:
            UnknownName: there is none; the nearest name is suggested.
        """
        self._fill()
        if name not in self._things:
            raise UnknownName(self.kind, name, self._things)
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        self._fill()
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        self._fill()
        return iter(sorted(self._things))

    def __len__(self) -> int:
        self._fill()
        return len(self._things)

    def _fill(self) -> None:
        if self._loaded:
            return
        self._loaded = True  # first, since what is imported may look a name up
        try:
            if self._load is not None:
                self._load()
            for point in entry_points(group=self.group):
                point.load()
        except BaseException:
            self._loaded = False
            raise


def _place(thing: object) -> str:
    """Where a thing was defined, as far as it tells."""
    of = getattr(thing, "cls", thing)
    name = getattr(of, "__qualname__", None)
    return repr(thing) if name is None else f"{of.__module__}.{name}"
