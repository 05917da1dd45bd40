"""The pages: which address each has.

Everything a page depends on stands in its address, so that links and the browser's own buttons do
all the work and the script only saves a reload. What changes something is a POST from this site.
"""

from __future__ import annotations

from functools import partial

from modalign_serve.errors import Failure
from modalign_serve.http.http import Answer, Call, Endpoint
from modalign_serve.service.service import Service
from modalign_serve.web import render
from modalign_serve.web.door import Door, Show
from modalign_serve.web.items import YEAR, Items
from modalign_serve.web.lists import Lists
from modalign_serve.web.site import Site, to


def endpoints(service: Service) -> list[Endpoint]:
    """What the server's table needs of the pages; the API's description does not tell of them."""
    site = Site(service)
    door, lists, items = Door(site), Lists(site), Items(site)

    def endpoint(method: str, path: str, show: Show) -> Endpoint:
        # Open to all, as a person without a key is shown a form instead of a refusal.
        return Endpoint(method, path, show, "A page", "open", failed=site.failed)

    shown: dict[str, Show] = {
        "recommend": lists.recommend,
        "somebody": lists.somebody,
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
        endpoint("POST", "/page/key", door.begin),
        endpoint("POST", "/page/forget", door.end),
        endpoint("GET", "/", _home),
    ]
    found += [endpoint("GET", f"/page/{name}", partial(_static, name)) for name in render.KINDS]
    return [*found, endpoint("GET", "/page/{rest:path}", _missing)]


async def _home(call: Call) -> Answer:
    return to("page/recommend")


async def _static(name: str, call: Call) -> Answer:
    return Answer(200, render.static(name), render.KINDS[name], [*render.HEADERS, *YEAR])


async def _missing(call: Call) -> Answer:
    raise Failure(404, "a page that there is", repr(call.path[:200]), "start at the first page")
