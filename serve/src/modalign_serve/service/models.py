"""The models that are served: a ranker each, exchanged in one step, and who gets which."""

from __future__ import annotations

import bisect
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modalign_serve.artifact.manifest import NAME
from modalign_serve.errors import ConfigError, Failure, UnknownName
from modalign_serve.ranker.ranker import Ranked, Ranker
from modalign_serve.service.schemas import PLAIN
from modalign_serve.stores.feedback import KINDS


@dataclass(slots=True)
class Told:
    """What feedback told of a user and the ranker does not know yet.

    Attributes:
        liked: items that move the user's vector; each is also seen.
        hidden: items that are only left out of the lists.
    """

    liked: dict[str, None] = field(default_factory=dict)
    hidden: dict[str, None] = field(default_factory=dict)


class Served:
    """A ranker with its name and version, and feedback that waits for its user.

    Feedback is folded into a user's vector when that user next asks, not when it comes: a shop
    sends far more events than it asks for lists, and starting with millions of them kept takes
    no longer than reading them. The asyncio thread alone calls these methods.

    Args:
        name: the model's name in paths.
        folder: of its artifact.
        ranker: made from it.
    """

    def __init__(self, name: str, folder: Path, ranker: Ranker) -> None:
        self.name, self.folder, self.ranker = name, folder, ranker
        self.version = version_of(folder)
        self._told: dict[str, Told] = {}

    @classmethod
    def open(cls, name: str, folder: Path) -> Served:
        """Read an artifact, check it, and answer once, so that the first caller need not wait.

        Raises:
            ArtifactError: it cannot be served.
        """
        served = cls(name, folder, Ranker.open(folder))
        users = served.ranker.artifact.user_ids
        if len(users):
            served.ranker.recommend([users[0]], 10)
        return served

    def tell(self, events: Iterable[tuple[str, str, str]]) -> None:
        """Take (user_id, item_id, kind) of events; the next call sees them."""
        told = self._told
        for user, item, kind in events:
            meaning = KINDS.get(kind)
            if meaning is None or not meaning.seen:
                continue
            of_user = told.get(user)
            if of_user is None:
                of_user = told[user] = Told()
            (of_user.liked if meaning.liked else of_user.hidden)[item] = None

    def knows(self, user: str) -> bool:
        """Whether the artifact or feedback tells of a user."""
        if user in self._told:
            self.settle((user,))
        return self.ranker.knows_user(user)

    def unknown_items(self, items: Sequence[str]) -> int:
        """How many of the items are not in the catalogue."""
        return int((self.ranker.catalogue.find(items) < 0).sum())

    def recommend(self, users: Sequence[str], k: int, **rules: Any) -> Ranked:
        """See `Ranker.recommend`; what feedback told of the users counts."""
        self.settle(users)
        return self.ranker.recommend(users, k, **rules)

    def settle(self, users: Sequence[str]) -> None:
        """Fold in what waits for these users."""
        told = self._told
        if not told:
            return
        for user in users:
            one = told.pop(user, None)
            if one is None:
                continue
            liked, hidden = self._known(one.liked), self._known(one.hidden)
            if liked:
                try:
                    self.ranker.update({user: liked})
                except ConfigError:
                    # This artifact has no way from items to a vector: they are seen, no more.
                    hidden = [*liked, *hidden]
            if hidden:
                self.ranker.hide({user: hidden})

    def _known(self, items: Mapping[str, None]) -> list[str]:
        """Those in the catalogue: feedback of other models' items is kept, not read."""
        listed = list(items)
        if not listed:
            return listed
        rows = self.ranker.catalogue.find(listed)
        return [one for one, row in zip(listed, rows.tolist(), strict=True) if row >= 0]


def version_of(folder: Path) -> str:
    """Twelve hexadecimal digits that differ wherever anything in the artifact differs."""
    return hashlib.sha256((folder / NAME).read_bytes()).hexdigest()[:12]


class Models:
    """Served models by name, and the split of traffic between them.

    Args:
        served: the models; the first is the default.
        split: share by name, adding up to 1; all to the first where empty.
    """

    def __init__(self, served: Sequence[Served], split: Mapping[str, float]) -> None:
        self._by_name = {one.name: one for one in served}
        shares = dict(split) or {served[0].name: 1.0}
        self.shares = {name: float(shares.get(name, 0.0)) for name in self._by_name}
        self._names = [name for name, share in self.shares.items() if share > 0]
        edges, total = [], 0.0
        for name in self._names:
            total += self.shares[name]
            edges.append(total)
        self._edges = edges

    def __iter__(self) -> Iterator[Served]:
        return iter(self._by_name.values())

    def names(self) -> list[str]:
        """All names."""
        return list(self._by_name)

    def get(self, name: str) -> Served:
        """A model by name.

        Raises:
            Failure: 404, the nearest name is suggested.
        """
        found = self._by_name.get(name)
        if found is None:
            told = UnknownName("served model", name, self._by_name)
            raise Failure(404, told.expected, told.got, told.fix)
        return found

    def of_user(self, user: str) -> Served:
        """Whom the split gives a user to: the same model for the same user, always.

        The user's hash, as a number from 0 to 1, falls into one of the shares.
        """
        if len(self._names) == 1:
            return self._by_name[self._names[0]]
        digest = hashlib.blake2b(user.encode(), digest_size=8, person=b"modalign").digest()
        place = int.from_bytes(digest, "big") / 2**64
        which = min(bisect.bisect_right(self._edges, place), len(self._names) - 1)
        return self._by_name[self._names[which]]

    def replace(self, served: Served) -> Served:
        """Serve a model from another ranker from now on; what was served before."""
        old = self._by_name[served.name]
        self._by_name[served.name] = served
        return old


def beside(folder: Path, name: str) -> Path:
    """A folder beside another by its plain name; nothing else can be reached.

    Raises:
        Failure: 422 where the name is a path, 404 where there is no such artifact.
    """
    if not re.search(PLAIN, name):
        raise Failure(
            422, "the plain name of a folder", repr(name),
            f"put the artifact beside {folder.name} and send its name",
        )  # fmt: skip
    root = folder.resolve().parent
    path = root / name
    # A link may lead anywhere; what it leads to must lie here as well.
    if path.resolve().parent != root or not (path / NAME).is_file():
        raise Failure(
            404, f"an artifact beside {folder.name}", f"none called {name!r}",
            f"copy it there, with its {NAME}",
        )  # fmt: skip
    return path


def open_all(artifacts: Mapping[str, Path], split: Mapping[str, float]) -> Models:
    """Open every artifact.

    Raises:
        ArtifactError: one cannot be served.
    """
    return Models([Served.open(name, folder) for name, folder in artifacts.items()], split)
