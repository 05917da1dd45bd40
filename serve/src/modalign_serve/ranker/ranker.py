"""The ranker: recommendations from an artifact, in one process, without torch.

All methods may be called from many threads at once. Two things change while it runs: what users
had (`update`, `hide`) and the items there are (`add_items`). Each change replaces an immutable
record, so a request sees all of it or nothing, and the next call sees it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from modalign_serve.artifact.artifact import Artifact, Column
from modalign_serve.artifact.manifest import Manifest
from modalign_serve.artifact.read import Verify, read_artifact
from modalign_serve.errors import ConfigError
from modalign_serve.ranker.adapter import ContentAdapter, unit_rows
from modalign_serve.ranker.catalogue import Catalogue, Record
from modalign_serve.ranker.foldin import fold_in_of
from modalign_serve.ranker.index import Hnsw, Search, index_of, looked_up
from modalign_serve.ranker.people import (
    UNKNOWN,
    Basis,
    Block,
    Person,
    block_of,
    block_of_rows,
    person_of,
)
from modalign_serve.ranker.picking import picked
from modalign_serve.ranker.rules import DEFAULT, Lift, Rules
from modalign_serve.ranker.scoring import scores_of
from modalign_serve.ranker.topk import best_of_rows
from modalign_serve.ranker.why import Why, nearest_liked, parts_of

CELLS = 2**20
"""Scores computed at a time: 4 MB, which fits the caches of a processor."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The best items of each user (or item) asked for, best first.

    Attributes:
        rows: rows of items, int64, (B, k); -1 where fewer than k are left.
        scores: float32, (B, k); minus infinity where the row is -1.
        basis: what each list is based on: "trained", "updated", "folded" or "popular".
        catalogue: the items it was made from; turns rows into ids and metadata.
    """

    rows: np.ndarray
    scores: np.ndarray
    basis: tuple[Basis, ...]
    catalogue: Catalogue

    def __len__(self) -> int:
        return len(self.rows)

    def kept(self, place: int = 0) -> np.ndarray:
        """Rows of items of one list; at most k, as many as there are."""
        rows = self.rows[place]
        found: np.ndarray = rows[rows >= 0]
        return found

    def ids(self, place: int = 0) -> list[str]:
        """Ids of the items of one list."""
        return self.catalogue.ids(self.kept(place))

    def pairs(self, place: int = 0) -> list[tuple[str, float]]:
        """Ids and scores of the items of one list."""
        ids = self.ids(place)
        return list(zip(ids, self.scores[place, : len(ids)].tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Reach:
    """Which users have an item in their list.

    Attributes:
        asked: number of users whose lists were made.
        users: id of each user whose list holds the item, and its place there (from 1), best first.
    """

    asked: int
    users: tuple[tuple[str, int], ...]


class Ranker:
    """Recommend from an artifact.

    Args:
        artifact: what to serve.
        fold_in: "map", "ridge" or "encoder"; None takes the best measured at export.
        search: "exact" scores every item; "hnsw" searches the artifact's index, where no rule
            asks for more than leaving items out; "auto" does so if the artifact has an index.

    Raises:
        ArtifactError: a part is missing that this needs.

    Example:
        >>> from modalign_serve.artifact.sample import small_artifact
        >>> ranker = Ranker(small_artifact())
        >>> ranker.recommend(["u0"], k=3).ids()
        ['i1', 'i6', 'i7']
        >>> ranker.recommend(["u0"], 3, Rules(where={"category": "b"})).ids()
        ['i1', 'i7']
    """

    def __init__(
        self, artifact: Artifact, fold_in: str | None = None, search: Search = "auto"
    ) -> None:
        self.artifact = artifact
        self._index = index_of(artifact, search)
        self._scores = scores_of(artifact)
        self._fold = fold_in_of(artifact, fold_in)
        self._encodes = (fold_in or artifact.manifest.fold_in.get("default")) == "encoder"
        held = artifact.adapter
        names = artifact.manifest.adapter.get("modalities", ())
        self.adapter = None if held is None else ContentAdapter(held, names)
        self._catalogue = Catalogue(artifact)
        self._live: dict[str, Person] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    @classmethod
    def open(
        cls,
        folder: str | Path,
        verify: Verify = "auto",
        fold_in: str | None = None,
        search: Search = "auto",
    ) -> Ranker:
        """Read an artifact and recommend from it.

        Args:
            folder: of the artifact.
            verify: how its files are checked; see `modalign_serve.artifact.read.read_artifact`.
            fold_in: as for the class.
            search: as for the class.

        Raises:
            ArtifactError: the folder holds no complete artifact.
        """
        return cls(read_artifact(folder, verify), fold_in, search)

    @property
    def catalogue(self) -> Catalogue:
        """The items there are now."""
        return self._catalogue

    @property
    def manifest(self) -> Manifest:
        """The artifact's description."""
        return self.artifact.manifest

    @property
    def columns(self) -> Mapping[str, Column]:
        """The artifact's item metadata by name."""
        return self.artifact.columns

    @property
    def has_vectors(self) -> bool:
        """Whether items have vectors, which similarity and diversity need."""
        return self.artifact.items is not None

    @property
    def takes_items(self) -> bool:
        """Whether it can recommend from a list of items, without a user."""
        return self.manifest.kind != "factors" or self._fold is not None

    @property
    def takes_new_items(self) -> bool:
        """Whether items can be added: scores must be products of vectors."""
        return self.manifest.kind == "factors"

    def find(self, user_id: str) -> Person | None:
        """What is known of a user, by the artifact or by an `update`; None for an unknown one."""
        live = self._live.get(user_id)
        if live is not None:
            return live
        row = self.artifact.user_ids.row(user_id)
        return None if row < 0 else person_of(self.artifact, row)

    def person(self, user_id: str) -> Person:
        """What is known of a user.

        Raises:
            UnknownIds: an unknown user.
        """
        live = self._live.get(user_id)
        if live is not None:
            return live
        return person_of(self.artifact, int(self.artifact.user_ids.rows([user_id])[0]))

    def person_of_items(self, items: Sequence[str]) -> Person:
        """An anonymous user who liked `items`; without any, a user of whom nothing is known.

        Raises:
            UnknownIds: an unknown item.
            ConfigError: the artifact cannot make a user's vector from items.
        """
        return self._folded(UNKNOWN, self._catalogue.rows(items))

    def history(self, user_id: str) -> list[str]:
        """Ids of all items that a user is known to have had.

        Raises:
            UnknownIds: an unknown user.
        """
        return self._catalogue.ids(self.person(user_id).seen)

    def recommend(self, users: Sequence[str], k: int = 10, rules: Rules = DEFAULT) -> Ranked:
        """The best `k` items for each user.

        A user without a history gets the most popular items (`basis` says so).

        Args:
            users: user ids.
            k: length of the lists, at least 1; at most all items are listed.
            rules: filters, boosts and limits.

        Raises:
            UnknownIds: an unknown user.
            ConfigError: k or a rule that cannot be followed.
            UnknownName: a rule about a column that items do not have.
        """
        return self._rank(self._blocks(users), k, rules)

    def recommend_people(
        self, people: Sequence[Person], k: int = 10, rules: Rules = DEFAULT
    ) -> Ranked:
        """The best `k` items for each of some users that `find` or `person_of_items` gave.

        Args:
            people: the users.
            k: length of the lists.
            rules: as for `recommend`.

        Raises:
            ConfigError: k or a rule that cannot be followed.
            UnknownName: a rule about a column that items do not have.
        """
        return self._rank(self._blocks_of(people), k, rules)

    def recommend_for_items(
        self, items: Sequence[str], k: int = 10, rules: Rules = DEFAULT
    ) -> Ranked:
        """The best `k` items for one user who liked `items`; popular items if there are none.

        Args:
            items: ids of items; `rules.filter_seen` leaves them out of the list.
            k: length of the list.
            rules: as for `recommend`.

        Raises:
            UnknownIds: an unknown item.
            ConfigError: the artifact cannot make a user's vector from items.
        """
        return self.recommend_people([self.person_of_items(items)], k, rules)

    def similar_items(self, items: Sequence[str], k: int = 10, rules: Rules = DEFAULT) -> Ranked:
        """The `k` items most similar to each given one, by the cosine of their vectors.

        The item itself is left out.

        Args:
            items: ids.
            k: length of the lists.
            rules: `where`, `allow` and `exclude` apply; the others are about users.

        Raises:
            UnknownIds: an unknown item.
            DataError: the artifact has no item vectors.
        """
        catalogue = self._catalogue
        _check_k(k)
        rows = catalogue.rows(items)
        found = np.full((len(rows), min(k, len(catalogue))), -1, np.int64)
        scores = np.full(found.shape, -np.inf, np.float32)
        unit = _unit_items(catalogue)
        step = max(1, CELLS // max(1, len(catalogue)))
        for start in range(0, len(rows), step):
            rules.check_time()
            some = rows[start : start + step]
            cells = unit[some] @ unit.T
            cells[np.arange(len(some)), some] = -np.inf
            _mask(cells, rules, catalogue)
            part = slice(start, start + len(some))
            found[part], scores[part] = best_of_rows(cells, found.shape[1])
        basis: list[Basis] = ["trained"] * len(rows)
        return Ranked(found, scores, tuple(basis), catalogue)

    def explain(
        self, item_id: str, *, user: str | None = None, items: Sequence[str] = (), n: int = 3
    ) -> Why:
        """Why an item would be recommended to a user, or to one who liked `items`.

        Args:
            item_id: the item.
            user: a known user; None takes `items`.
            items: ids of what an anonymous user liked.
            n: number of liked items to name per modality.

        Raises:
            UnknownIds: an unknown user or item.
        """
        person = self.person_of_items(items) if user is None else self.person(user)
        return self.explain_person(item_id, person, n)

    def explain_person(self, item_id: str, person: Person, n: int = 3) -> Why:
        """Why an item would be recommended to a user that `find` or `person_of_items` gave.

        Args:
            item_id: the item.
            person: the user.
            n: number of liked items to name per modality.

        Raises:
            UnknownIds: an unknown item.
        """
        catalogue = self._catalogue
        row = catalogue.rows([item_id])
        liked = person.history[person.history != row[0]]
        nearest = {}
        for name in self.artifact.features:
            rows = catalogue.features(name, np.append(row, liked))
            found = nearest_liked(rows[0], rows[1:], n)
            nearest[name] = [(catalogue.id(int(liked[at])), cosine) for at, cosine in found]
        if person.vector is None or person.basis == "popular":
            return Why(item_id, None, nearest, {})
        vector = catalogue.vectors(row)[0]
        parts = parts_of(self.artifact, person.vector, vector)
        return Why(item_id, float(person.vector @ vector), nearest, parts)

    def reach(self, item_id: str, k: int = 20, sample: int = 1000, rules: Rules = DEFAULT) -> Reach:
        """Which users have an item in their list, among evenly spaced users of the artifact.

        Args:
            item_id: an item, which may have been added.
            k: length of the lists.
            sample: maximum number of users.
            rules: of the lists.

        Raises:
            UnknownIds: an unknown item.
            TooSlow: after `rules.until`.
        """
        row = int(self._catalogue.rows([item_id])[0])
        n = self.artifact.n_users
        asked = np.unique(np.linspace(0, n - 1, min(sample, n)).astype(np.int64))
        users = self.artifact.user_ids.take(asked)
        who, place = np.nonzero(self.recommend(users, k, rules).rows == row)
        order = np.lexsort((who, place))
        found = ((users[int(who[at])], int(place[at]) + 1) for at in order)
        return Reach(len(users), tuple(found))

    def update(self, seen: Mapping[str, Sequence[str]]) -> None:
        """Record what users, known or new, had; lists and vectors follow in the next call.

        A new user's vector is folded in from the history. A trained one is moved by the change of
        its fold-in, `trained + fold(all) - fold(before)`; where the fold-in is the model's own
        encoder it becomes `fold(all)`. Recording the same twice changes nothing.

        Args:
            seen: ids of items by user id.

        Raises:
            UnknownIds: an unknown item; nothing is changed then.
        """
        rows = {user: self._catalogue.rows(list(items)) for user, items in seen.items()}
        with self._lock:
            for user, new in rows.items():
                self._live[user] = self._moved(self.find(user) or UNKNOWN, new)

    def hide(self, items: Mapping[str, Sequence[str]]) -> None:
        """Leave items out of users' lists from now on; users' vectors stay as they are.

        Args:
            items: ids of items by user id.

        Raises:
            UnknownIds: an unknown item; nothing is changed then.
        """
        rows = {user: self._catalogue.rows(list(hidden)) for user, hidden in items.items()}
        with self._lock:
            for user, new in rows.items():
                person = self.find(user) or UNKNOWN
                self._live[user] = replace(person, seen=np.union1d(person.seen, new))

    def adapt(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Vectors in the item space of items that have features only, (n, width).

        Args:
            features: (n, width of the modality) by name; see `ContentAdapter`.

        Raises:
            ConfigError: the artifact has no content adapter.
            UnknownName: a modality that the adapter was not trained on.
            DataError: features of another shape, or not finite.
        """
        if self.adapter is None:
            got = f"one of {self.manifest.model} without"
            fix = "export a model with item vectors from data with modalities"
            raise ConfigError("an artifact with a content adapter", got, fix)
        return self.adapter(features)

    def add_item(
        self,
        item_id: str,
        vector: np.ndarray | None = None,
        record: Record | None = None,
        features: Mapping[str, np.ndarray] | None = None,
        *,
        only_check: bool = False,
    ) -> None:
        """Add one new item; see `add_items`.

        Args:
            item_id: its id.
            vector: in the item space, (width,).
            record: metadata by column.
            features: (width of the modality,) by modality.
            only_check: raise what adding it would raise, and change nothing.
        """
        self.add_items(
            [item_id],
            None if vector is None else np.asarray(vector)[None],
            [record or {}],
            None if features is None else {k: np.asarray(v)[None] for k, v in features.items()},
            only_check=only_check,
        )

    def add_items(
        self,
        ids: Sequence[str],
        vectors: np.ndarray | None = None,
        records: Sequence[Record] | None = None,
        features: Mapping[str, np.ndarray] | None = None,
        *,
        only_check: bool = False,
    ) -> None:
        """Add new items, ranked for all users from the next call on.

        Args:
            ids: ids that the artifact does not have; one that was added before is replaced.
            vectors: in the item space, (len(ids), width); None: `adapt(features)`.
            records: metadata by column.
            features: (len(ids), width of the modality) by modality, from the encoders named in
                the manifest; `explain` compares them.
            only_check: raise what adding them would raise, and change nothing.

        Raises:
            DataError: an id of the artifact, vectors of another shape or not finite, or a model
                without item vectors.
            ConfigError: no vectors, and no adapter or no features to make them from.
        """
        if not self.takes_new_items:
            expected = "a model whose scores are products of vectors, to rank items it never saw"
            fix = "serve a model with vectors, or distil one: modalign distill"
            raise ConfigError(expected, f"{self.manifest.model}", fix)
        if vectors is None:
            if not features:
                raise ConfigError("vectors or features of new items", "neither", "give one of them")
            vectors = self.adapt(features)
        given = records if records is not None else [{}] * len(ids)
        bases = self.artifact.bases
        reduced = {
            name: unit_rows(unit_rows(rows) @ bases[name])
            for name, rows in (features or {}).items()
            if name in bases
        }
        with self._lock:
            longer = self._catalogue.with_items(ids, vectors, given, reduced)
            if not only_check:
                self._catalogue = longer

    def _step(self) -> int:
        """How many users are scored at a time."""
        return max(1, CELLS // max(1, len(self._catalogue)))

    def _blocks(self, users: Sequence[str]) -> list[Block]:
        if len(users) == 1 or (self._live and any(user in self._live for user in users)):
            return self._blocks_of([self.person(user) for user in users])
        rows = self.artifact.user_ids.rows(users)
        step, reads = self._step(), self._scores.reads_history
        edges = range(0, len(users), step)
        return [block_of_rows(self.artifact, rows[a : a + step], reads) for a in edges]

    def _blocks_of(self, people: Sequence[Person]) -> list[Block]:
        step, reads = self._step(), self._scores.reads_history
        return [block_of(people[a : a + step], reads) for a in range(0, len(people), step)]

    def _folded(self, person: Person, rows: np.ndarray) -> Person:
        history = np.union1d(person.history, self._readable(rows))
        seen = np.union1d(person.seen, rows)
        if not len(history):
            return replace(UNKNOWN, seen=seen)
        if self._scores.reads_history:
            return Person(seen, history, None, "folded")
        return Person(seen, history, self._fold_in(history), "folded")

    def _fold_in(self, history: np.ndarray) -> np.ndarray:
        if self._fold is None:
            expected = "an artifact with a fold-in, to make a user's vector from items"
            got = f"one of {self.manifest.model} without"
            raise ConfigError(expected, got, "export the run again with a fold-in")
        return self._fold(history, self._catalogue.vectors(history))

    def _readable(self, rows: np.ndarray) -> np.ndarray:
        """Rows the model can read: its own encoder and its item-item matrix have no added items."""
        own = self._scores.reads_history or self._encodes
        return rows[rows < self.artifact.n_items] if own else rows

    def _moved(self, person: Person, rows: np.ndarray) -> Person:
        seen = np.union1d(person.seen, rows)
        fresh = np.setdiff1d(self._readable(rows), person.history)
        if not len(fresh):
            return replace(person, seen=seen)
        if person.basis not in ("trained", "updated"):
            return self._folded(person, rows)
        history = np.union1d(person.history, fresh)
        if person.vector is None:
            return Person(seen, history, None, "updated")
        vector = self._fold_in(history)
        if not self._encodes:
            vector = person.vector + vector - self._fold_in(person.history)
        return Person(seen, history, vector, "updated")

    def _buffer(self, n_rows: int, width: int) -> np.ndarray:
        """Memory for scores, kept per thread: fresh pages would cost more than the product."""
        held: np.ndarray | None = getattr(self._local, "scores", None)
        if held is None or held.size < n_rows * width:
            held = self._local.scores = np.empty(n_rows * width, np.float32)
        return held[: n_rows * width].reshape(n_rows, width)

    def _rank(self, blocks: Sequence[Block], k: int, rules: Rules) -> Ranked:
        _check_k(k)
        catalogue = self._catalogue
        k = min(k, len(catalogue))
        if len(blocks) == 1:
            rows, scores = self._best(blocks[0], k, rules, catalogue)
            return Ranked(rows, scores, blocks[0].basis, catalogue)
        parts = [self._best(block, k, rules, catalogue) for block in blocks]
        basis = tuple(one for block in blocks for one in block.basis)
        empty_rows, empty_scores = np.zeros((0, k), np.int64), np.zeros((0, k), np.float32)
        return Ranked(
            np.concatenate([empty_rows, *(rows for rows, _ in parts)]),
            np.concatenate([empty_scores, *(scores for _, scores in parts)]),
            basis,
            catalogue,
        )

    def _best(
        self, block: Block, k: int, rules: Rules, catalogue: Catalogue
    ) -> tuple[np.ndarray, np.ndarray]:
        rules.check_time()
        if self._index is not None and rules.only_hides and not block.popular:
            found = self._looked_up(self._index, block, k, rules, catalogue)
            if found is not None:
                return found
        cells = self._buffer(block.n, len(catalogue))
        self._scores.fill(block, catalogue, cells)
        if block.popular:
            cells[block.popular] = catalogue.counts()
        if rules.boost:
            _boost(cells, rules.boost, catalogue)
        _mask(cells, rules, catalogue)
        if rules.filter_seen:
            owner, items = block.seen
            cells[owner, items] = -np.inf
        if rules.diversity or rules.at_most_per:
            return picked(cells, k, rules, catalogue)
        return best_of_rows(cells, k)

    def _looked_up(
        self, index: Hnsw, block: Block, k: int, rules: Rules, catalogue: Catalogue
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """From the index; None if it found too few."""
        owner, items = block.seen
        if not rules.filter_seen:
            owner, items = owner[:0], items[:0]
        hidden = catalogue.find(list(rules.exclude))
        hidden = hidden[hidden >= 0]
        if len(hidden):
            owner = np.append(owner, np.repeat(np.arange(block.n), len(hidden)))
            items = np.append(items, np.tile(hidden, block.n))
        return looked_up(index, block, owner, items, k, catalogue)


def _boost(cells: np.ndarray, boosts: Sequence[Lift], catalogue: Catalogue) -> None:
    spread = cells.std(axis=1, dtype=np.float64)
    lift = np.zeros(len(catalogue))
    for boost in boosts:
        met = np.zeros(len(catalogue), bool)
        if boost.where is not None:
            met |= catalogue.meets(boost.where)
        rows = catalogue.find(list(boost.items))
        met[rows[rows >= 0]] = True
        lift[met] += boost.amount
    cells += (spread[:, None] * lift).astype(np.float32)


def _mask(cells: np.ndarray, rules: Rules, catalogue: Catalogue) -> None:
    if rules.where:
        cells += catalogue.mask(rules.where)
    if rules.allow is not None:
        rows = catalogue.find(list(rules.allow))
        hidden = np.ones(len(catalogue), bool)
        hidden[rows[rows >= 0]] = False
        cells[:, hidden] = -np.inf
    if len(rules.exclude):
        rows = catalogue.find(list(rules.exclude))
        cells[:, rows[rows >= 0]] = -np.inf


def _unit_items(catalogue: Catalogue) -> np.ndarray:
    vectors = catalogue.vectors(np.arange(len(catalogue)))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(lengths, 1e-12)
    return unit


def _check_k(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ConfigError("k of at least 1", repr(k), "ask for at least one item")
