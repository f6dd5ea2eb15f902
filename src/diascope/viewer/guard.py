"""Who may speak to the server: who knows the token, by the right name, from the page itself."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import time
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, RedirectResponse, Response

from diascope.viewer.limits import Refused
from diascope.viewer.work import note

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
ONCE = "/open/"
ONCE_SECONDS = 60.0


class Guard:
    """The outermost of the server: every request passes it or is refused in one sentence.

    app: what is guarded; its paths stand behind `/TOKEN`. names: the hosts by which the server may
    be called; `any_address`: also by any IP address, which no web page can rebind. token: 256 bits
    by default. `once()` gives a path that leads to the page a single time, for the command line of
    a browser, which others on the machine can read.
    """

    def __init__(
        self, app: ASGIApp, names: set[str], *, any_address: bool = False, token: str = ""
    ) -> None:
        self.app, self.names, self.any_address = app, names, any_address
        self.token = token or secrets.token_urlsafe(32)
        self._once: dict[str, float] = {}

    def once(self) -> str:
        """Return a path that leads to the page once, within a minute."""
        word = secrets.token_urlsafe(32)
        self._once[word] = time.monotonic() + ONCE_SECONDS
        return ONCE + word

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                own = {name for name, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
                message["headers"] = [*message["headers"], *(m for m in more if m[0] not in own)]
            await send(message)

        try:
            inner = self._admit(scope)
            await (inner or self.app)(scope, receive, sending)
        except Refused as refused:
            await _sentence(refused.status, refused.sentence)(scope, receive, sending)
        except Exception as error:
            kind = note(error)
            if not begun:
                answer = _sentence(500, f"The viewer failed ({kind}).")
                await answer(scope, receive, sending)

    def _admit(self, scope: Scope) -> Response | None:
        """Take the token off the path; raises `Refused`. Returns an answer where that is all."""
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        host = headers.get("host", "")
        if not self._known(host):
            raise Refused(421, "This server does not go by that name.")
        origin = headers.get("origin")
        if origin is not None and origin.casefold() != f"{scope['scheme']}://{host}".casefold():
            raise Refused(403, "Another page may not use this server.")
        foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if foreign and headers.get("sec-fetch-mode") != "navigate":
            raise Refused(403, "Another page may not use this server.")
        path = scope["path"]
        if path.startswith(ONCE):
            until = self._once.pop(path[len(ONCE) :], 0.0)
            if time.monotonic() > until:
                raise Refused(410, "This link was for one visit: open the address in the terminal.")
            return RedirectResponse(f"/{self.token}/", 303)
        given, slash, rest = path[1:].partition("/")
        if not slash or not hmac.compare_digest(given.encode(), self.token.encode()):
            raise Refused(404, "There is nothing here: open the address in the terminal.")
        scope["path"] = "/" + rest
        scope["raw_path"] = scope["path"].encode()
        return None

    def _known(self, host: str) -> bool:
        name = _without_port(host).casefold()
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return self.any_address


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a server at `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.casefold() == "localhost"


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _sentence(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status)
