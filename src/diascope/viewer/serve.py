"""The server: a socket, a page at once, models behind it, and a clean end."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from diascope.errors import UserError
from diascope.viewer.app import REPORT, Viewer, make_app
from diascope.viewer.guard import Guard, is_loopback
from diascope.viewer.settings import ViewSettings
from diascope.viewer.work import note

FLAG = "--i-know-this-is-reachable"
LINGER = 3.0  # seconds in which the page may still learn why the models do not open
Say = Callable[[str], None]


def serve(
    addresses: Sequence[str],
    settings: ViewSettings,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    data: str | None = None,
    report: Path | None = None,
    reachable: bool = False,
    open_page: bool = False,
    say: Say = print,
) -> None:
    """Serve the live page until interrupted, which raises `KeyboardInterrupt`.

    Raises `UserError` for a host that others reach without `reachable`, for a port that is taken,
    and for models or data that cannot be opened.
    """
    inside = is_loopback(host)
    if not inside and not reachable:
        raise UserError(
            f"--host {host}: others could reach the viewer and the images in it, unencrypted; "
            f"leave it away, or add {FLAG}"
        )
    if report is not None and not (report / REPORT).is_file():
        raise UserError(f"--report {report}: holds no {REPORT}; name the folder of an audit")
    with _bound(host, port) as listening:
        number = listening.getsockname()[1]
        viewer = Viewer(settings, report)
        names = {"localhost", "127.0.0.1", "[::1]", _bracketed(host).casefold()}
        if not inside:
            names |= {socket.gethostname().casefold(), socket.getfqdn().casefold()}
        guard = Guard(make_app(viewer), names, any_address=not inside)
        server = _Server(guard, viewer)
        base = f"http://{_shown(host)}:{number}"
        if not inside:
            say(
                f"warning: at --host {host} other machines can reach this viewer; the token in its "
                "address is all that keeps them out, and what is sent is not encrypted"
            )
        say(f"open {base}/{guard.token}/ (Ctrl-C stops; the address is a secret of this run)")
        loader = threading.Thread(
            target=_load, args=(viewer, server, list(addresses), data, say), daemon=True
        )
        loader.start()
        if open_page:
            threading.Thread(
                target=webbrowser.open, args=[base + guard.once()], daemon=True
            ).start()
        try:
            server.run(sockets=[listening])
        finally:
            _end(viewer, loader, say, interrupted=not viewer.failed)
    if viewer.failed:
        raise UserError(viewer.failed)


class _Server(uvicorn.Server):
    """A server that says nothing, and ends the work under way when it is interrupted."""

    def __init__(self, app: Guard, viewer: Viewer) -> None:
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=64,
            timeout_graceful_shutdown=2,
        )
        super().__init__(config)
        self.viewer = viewer

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End the work, then the server."""
        threading.Thread(target=self.viewer.desk.close, args=[0.0], daemon=True).start()
        super().handle_exit(sig, frame)


def _load(
    viewer: Viewer, server: uvicorn.Server, addresses: list[str], data: str | None, say: Say
) -> None:
    """Open models and data; where that fails, tell the page, then end the server."""
    began = time.monotonic()
    try:
        from diascope.hardware import keep_memory
        from diascope.viewer import tasks  # noqa: F401  the first request finds it loaded
        from diascope.viewer.room import Room
        from diascope.viewer.samples import Samples

        keep_memory()
        room = Room.open(addresses, viewer.settings)
        viewer.load(room, None if data is None else Samples.open(data, room))
        names = ", ".join(subject.name for subject in room.subjects)
        say(f"loaded {names} in {time.monotonic() - began:.0f} s")
        return
    except UserError as error:
        viewer.failed = str(error)
    except Exception as error:  # whatever a foreign model raises
        viewer.failed = f"the models cannot be opened ({note(error)})"
    time.sleep(LINGER)
    server.should_exit = True


def _end(viewer: Viewer, loader: threading.Thread, say: Say, *, interrupted: bool) -> None:
    """Wait for the threads; where one does not end, leave without the rites of the interpreter.

    A thread within native code would be met by them half way, and could crash the process.
    """
    ended = viewer.desk.close()
    viewer.pictures.forget()
    viewer.attacks.forget()
    loader.join(0.1)
    if ended and not loader.is_alive():
        return
    say("interrupted" if interrupted else f"error: {viewer.failed}")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(130 if interrupted else 2)


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raises `UserError` where none can be had."""
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    try:
        return socket.create_server((bare, port), family=family)
    except OverflowError:
        raise UserError(f"--port {port}: a port lies from 0 to 65535") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"--host {host} --port {port}: cannot be listened at ({reason})") from None


def _bracketed(host: str) -> str:
    bare = host.strip("[]")
    return f"[{bare}]" if ":" in bare else bare


def _shown(host: str) -> str:
    """Return the host of the printed address: a name where the server listens at all of them."""
    return socket.gethostname() if host in ("0.0.0.0", "::", "[::]") else _bracketed(host)
