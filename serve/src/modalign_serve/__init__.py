"""modalign-serve: serves what modalign trained, over HTTP, in a process without torch.

It reads an artifact (a folder of arrays that `modalign export` writes) and answers with lists of
items, similar items and a page; it stores feedback and takes new items while it runs.

    errors     the exceptions, which modalign builds on
    artifact   the format: written, read, checked
    ranker     lists from an artifact, with numpy alone
    stores     feedback in SQLite or PostgreSQL
    service    what runs behind the API: models, keys, limits, metrics
    http       the API
    web        the page
    command    the command line, and the server process

A room imports only from the rooms above it, and nothing from `modalign`.
"""

from importlib.metadata import version

__version__ = version("modalign-serve")
