"""One row of the table of routes."""

from msgspec import Struct

from supervisor.dispatch.request import Scope
from supervisor.http.edge.middleware import Handler


class Route(Struct, frozen=True):
    """One route. `scope` is the right that it needs; `PUBLIC` needs none.

    A `short` route is served in the reserve of connections too. A request of a route that `queues`
    is refused before its body is read if no sequence could wait. The credentials of a route that
    `signs_in` are in its body: its handler checks them. A browser that is refused a `page` gets a
    sign-in form.
    """

    method: str
    path: str
    handler: Handler
    scope: Scope | None
    short: bool = False
    queues: bool = False
    signs_in: bool = False
    page: bool = False
