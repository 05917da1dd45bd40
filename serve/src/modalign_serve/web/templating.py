"""The templates, the style sheet and the script of the page, each read once."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from modalign_serve.http.http import Answer

if TYPE_CHECKING:
    from jinja2 import Environment

KINDS = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
# Nothing is loaded from other sites and no script in the page itself runs, so markup in a title
# would have no effect even if it were not escaped.
POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


@cache
def static(name: str) -> bytes:
    """A static file of the page."""
    return (files("modalign_serve.web") / name).read_bytes()


@cache
def stamp(name: str) -> str:
    """A hash of a static file, so browsers may cache it for long."""
    return hashlib.sha256(static(name)).hexdigest()[:12]


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("modalign_serve.web", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters["number"] = number
    made.globals["stamp"] = stamp
    return made


def number(value: Any) -> str:
    """A number as the page shows it.

    Example:
        >>> number(12345), number(0.07722), number(1e-6), number("adam"), number(True)
        ('12,345', '0.0772', '1e-06', 'adam', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}" if 0.001 <= abs(value) < 1000 or not value else f"{value:.4g}"
    return "none" if value is None else str(value)


def page(template: str, status: int = 200, **values: Any) -> Answer:
    """A page from its template; every value is escaped.

    Args:
        template: name of its file.
        status: of HTTP.
        **values: for the template.
    """
    text = _environment().get_template(template).render(**values)
    return Answer(status, text.encode(), "text/html; charset=utf-8", HEADERS)
