"""Readers of pages, and runs with a change."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser

import yaml

EVIL = '<script>alert("1")</script> & Söhne $x^2$'


class Page(HTMLParser):
    """What a test asks of a page."""

    VOID = {"meta", "link", "img", "br", "hr", "input"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[tuple[list[str], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append((list(self.open), data))

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]

    def values(self, attribute):
        return [attrs[attribute] for _, attrs in self.tags if attribute in attrs]

    @property
    def shown(self):
        """The words between the tags, style sheets left out."""
        return " ".join(" ".join(w for where, w in self.words if "style" not in where).split())


class Tables(HTMLParser):
    """Tables as lists of rows of (class, text)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[list[str]]]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append([dict(attrs).get("class", ""), ""])
            self.inside = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.tables[-1][-1][-1][1] += data


def changed(folder, to, config=None, results=None):
    """A copy of a run with other words in its files."""
    shutil.copytree(folder, to)
    for name, changes, read, write in (
        ("config.yaml", config, yaml.safe_load, yaml.safe_dump),
        ("results.json", results, json.loads, json.dumps),
    ):
        found = read((to / name).read_text()) | (changes or {})
        (to / name).write_text(write(found))
    return to
