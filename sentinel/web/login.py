"""Log in with the code of a link, and log out."""

from collections.abc import Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from sentinel.web.desk import Desk, Visitor, client_of, read_form, refuse
from sentinel.web.session import SESSION_S, end_session, redeem

VOID = "This link is void: it was used, or it is older than ten minutes. Make a new one."


def show(desk: Desk, request: Request, visitor: Visitor) -> Response:
    """Show how to log in, or the button that uses up the code of a link: a preview of the link does not."""
    return desk.render("login.html", request, visitor, code=request.query_params.get("code", ""), problem="")


def redeem_endpoint(desk: Desk) -> Callable[[Request], Any]:
    """Return the endpoint that begins a session."""

    def begin(request: Request, code: str) -> Response:
        if desk.logins.exceeded(client_of(request)):
            return refuse(request, 429, "too many attempts: wait a minute")
        cookie = redeem(desk.store, code)
        if cookie is None:
            return desk.render("login.html", request, desk.visitor(request), 403, code="", problem=VOID)
        response = RedirectResponse("/", 303)
        # Lax, so that a link in a message opens with the session; forms are protected by origin and token.
        secure = bool(desk.config.web.certificate) or not desk.config.web.is_local
        response.set_cookie(
            desk.cookie, cookie, max_age=int(SESSION_S), httponly=True, samesite="lax", secure=secure, path="/"
        )
        return response

    async def endpoint(request: Request) -> Response:
        fields = await read_form(request) or {}
        return await run_in_threadpool(begin, request, fields.get("code", [""])[0])

    return endpoint


def log_out(desk: Desk, request: Request, _: Visitor, __: Mapping[str, list[str]]) -> Response:
    """End the session."""
    end_session(desk.store, request.cookies.get(desk.cookie, ""))
    response = RedirectResponse("/", 303)
    response.delete_cookie(desk.cookie, path="/")
    return response
