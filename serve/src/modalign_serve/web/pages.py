"""The pages and their addresses.

Everything a page depends on is in its address, so links and the buttons of the browser work, and
the script only saves reloads. Changes are made by a POST from this site.
"""

from __future__ import annotations

from functools import partial

from modalign_serve.errors import Failure
from modalign_serve.http.http import Answer, Call, Endpoint
from modalign_serve.service.service import Service
from modalign_serve.web import templating
from modalign_serve.web.door import Door, Show
from modalign_serve.web.item_pages import YEAR, ItemPages
from modalign_serve.web.list_pages import ListPages
from modalign_serve.web.site import Site, to


def endpoints(service: Service) -> list[Endpoint]:
    """The endpoints of the pages; they are not part of the documented API."""
    site = Site(service)
    door, lists, items = Door(site), ListPages(site), ItemPages(site)

    def endpoint(method: str, path: str, show: Show) -> Endpoint:
        # Open to all: a visitor without a key gets a form instead of an error.
        return Endpoint(method, path, show, "A page", "open", failed=site.failed)

    shown: dict[str, Show] = {
        "recommend": lists.recommend,
        "random": lists.random_user,
        "search": lists.search,
        "compare": lists.compare,
        "item": items.item,
        "reach": items.reach,
        "card": items.card,
        "new": items.new,
        "picture": items.picture,
    }
    found = [endpoint("GET", f"/page/{name}", door.guarded(show)) for name, show in shown.items()]
    found += [
        endpoint("POST", "/page/new", door.guarded(items.add)),
        endpoint("GET", "/page/key", door.key),
        endpoint("POST", "/page/key", door.start),
        endpoint("POST", "/page/forget", door.end),
        endpoint("GET", "/", _home),
    ]
    found += [endpoint("GET", f"/page/{name}", partial(_static, name)) for name in templating.KINDS]
    return [*found, endpoint("GET", "/page/{rest:path}", _missing)]


async def _home(call: Call) -> Answer:
    return to("page/recommend")


async def _static(name: str, call: Call) -> Answer:
    return Answer(
        200, templating.static(name), templating.KINDS[name], [*templating.HEADERS, *YEAR]
    )


async def _missing(call: Call) -> Answer:
    raise Failure(404, "an existing page", repr(call.path[:200]), "start at the first page")
