"""Every route declares who may call it, or the service does not start.

    router = APIRouter(route_class=GuardedRoute)

    @router.get("/v1/things", openapi_extra=allow("analyst"))
    async def things(request: Request) -> Response:
        actor = caller_of(request).name

The declaration stands in the OpenAPI document (`x-roles`) and is enforced before the body is read.
"""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from api.access import Caller, declared, require

_CALLER: Final = "cordon.caller"


class UndeclaredRoute(RuntimeError):
    """A route does not say who may call it: write `openapi_extra=allow(...)` or `anybody()`."""


class GuardedRoute(APIRoute):
    """A route that lets in whom it declares. Raises `UndeclaredRoute` when it is made."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        roles = declared(options.get("openapi_extra"))
        if roles is None:
            raise UndeclaredRoute(f"{path}: write openapi_extra=allow(...) or anybody()")
        self.roles = roles
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, behind the declaration."""
        inner = super().get_route_handler()
        roles = self.roles

        async def guarded(request: Request) -> Response:
            if roles:
                caller = request.app.state.gate.caller(request.scope["headers"])
                require(caller, roles)
                request.scope[_CALLER] = caller
            return await inner(request)

        return guarded


def caller_of(request: Request) -> Caller:
    """Who calls a route that declares roles; on one for anybody this is a `KeyError`."""
    found: Caller = request.scope[_CALLER]
    return found


def check_declared(routes: Iterable[BaseRoute]) -> None:
    """Raises `UndeclaredRoute` for a route or a mounted application that is no `GuardedRoute`."""
    for route in routes:
        included = getattr(route, "original_router", None)  # what `include_router` leaves in the list
        if included is not None:
            check_declared(included.routes)
        elif not isinstance(route, GuardedRoute):
            raise UndeclaredRoute(f"{getattr(route, 'path', route)}: use route_class=GuardedRoute")
