"""Text that people read is in plain technical English: the words of an old idiom are refused."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What to write instead stands behind each.
REFUSED = {
    r"mend(s|ed|ing)?": "to fix",
    r"told": "reported, documented, distinguished, passed; or name who says it",
    r"tell(s|ing)? (apart|of)": "distinguish, report",
    r"so many": "this number of, the maximum number of",
    r"likewise": "say the thing itself",
    r"nobody": "no user, no caller; or name the subject",
    r"everybody": "all users",
    r"somebody": "a user, a caller, another package",
    r"whoever": "name the subject",
    r"begun": "started",
    r"by heart": "memorizes",
    r"(is|are|was|were) to be": "must be, should be, is",
    r"as it is to be": "the final form",
    r"go(es)? round": "bypasses",
    r"aloud": "reasoning",
    r"written aside": "written to a temporary file",
    r"blot(s|ted)?": "redacted",
    r"stillborn|bury|buried": "exited before its first task",
    r"no say": "has no influence",
    r"unasked": "without being requested",
}
# At the start of a help text or an error: "Most passes" is "Maximum number of epochs".
REFUSED_AT_THE_START = {
    r"(Most|Fewest|Least) (?!often)[a-z]": "Maximum number of, Minimum number of",
    r"Of (what|which|whom|the|a|an) ": "subject first",
}
ANYWHERE = re.compile(r"\b(" + "|".join(REFUSED) + r")\b", re.IGNORECASE)
STARTS = re.compile("(" + "|".join(REFUSED_AT_THE_START) + ")")
# CSS, and lines of code in Markdown, are no text.
CODE_BLOCKS = re.compile(r"```.*?```|^(?: {4}|\t).*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def texts_of_python(source: str) -> Iterator[tuple[int, str]]:
    """Strings, docstrings and comments of a module with their lines.

    Neighbouring comment lines are one text, and a formatted string is one with `{}` for a value.
    """
    tree = ast.parse(source)
    inner: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(value) for value in node.values}
            parts = [
                str(value.value) if isinstance(value, ast.Constant) else "{}"
                for value in node.values
            ]
            yield node.lineno, "".join(parts)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.lineno, node.value
    comments = [
        (token.start[0], token.string.lstrip("# "))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    joined: list[tuple[int, int, str]] = []
    for line, text in comments:
        if joined and joined[-1][1] == line - 1:
            joined[-1] = (joined[-1][0], line, f"{joined[-1][2]} {text}")
        else:
            joined.append((line, line, text))
    yield from ((first, text) for first, _, text in joined)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """What a file holds for people: strings and comments of Python, all of other files."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from texts_of_python(source)
        return
    if path.suffix == ".md":
        source = CODE_BLOCKS.sub(lambda code: "\n" * code[0].count("\n"), source)
    # A paragraph is one text, so that a phrase broken over two lines is found.
    line = 1
    for paragraph in re.split(r"(\n\s*\n)", source):
        if paragraph.strip():
            yield line, paragraph
        line += paragraph.count("\n")


def refused(path: Path) -> list[str]:
    """Refused words of a file, with line and context."""
    found = []
    for line, text in texts(path):
        flat = re.sub(r"[\s#*|]+", " ", text)
        hits = [*ANYWHERE.finditer(flat), *filter(None, [STARTS.match(flat.strip())])]
        found += [
            f"{line}: ...{flat[max(0, hit.start() - 30) : hit.end() + 30]}..." for hit in hits
        ]
    return found


def files() -> list[str]:
    """Every file with text for people, relative to the repository."""
    patterns = (
        *(
            f"{root}/**/*.{end}"
            for root in ("src", "serve/src")
            for end in ("py", "html", "js", "css")
        ),
        *("docs/**/*.md", "*.md", "serve/*.md", "scripts/*", "benchmarks/*.py", "Makefile"),
        *("pyproject.toml", "serve/pyproject.toml", "mkdocs.yml", ".ci/run", ".github/workflows/*"),
    )
    found = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


@pytest.mark.parametrize("name", files())
def test_text_is_plain_english(name: str) -> None:
    assert refused(ROOT / name) == []


def test_refused_words_are_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        '"""Nobody reads this."""\n'
        "# What an article was\n# told of.\n"
        "def told(mend: int) -> str:\n"
        '    return f"so {mend} many" "which is to" + " be seen"\n'
        'HELP = "Most passes over"\nOTHER = "The Most passes"\n'
        'LONG = (\n    "so "\n    "many"\n)\n'
    )
    assert [one.split(":")[0] for one in refused(module)] == ["1", "6", "9", "2"]
    page = tmp_path / "page.md"
    page.write_text(
        "One.\n\nIt is\nlikewise here; `told` is code.\n\n    mend()\n\n```\nbegun\n```\n"
    )
    assert [one.split(":")[0] for one in refused(page)] == ["3"]
