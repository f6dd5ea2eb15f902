"""The routes: the page, what is loaded, images in, work out."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from diascope.viewer.limits import (
    WORDS,
    Doorway,
    Refused,
    choice,
    read_body,
    read_image,
    read_mask,
    whole,
)
from diascope.viewer.session import Attacked, Picture, Shelf
from diascope.viewer.settings import ViewSettings
from diascope.viewer.work import FINAL, Desk, Event, Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diascope.viewer.room import Room
    from diascope.viewer.samples import Samples

PAGES = Path(__file__).parent / "pages"
REPORT = "report.html"
REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'"
)
GRACE = 15.0  # seconds past its time after which work that does not end is no longer waited for
QUIET: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}


class Viewer:
    """All that the routes share: the models, once they are loaded, and what is in memory."""

    def __init__(self, settings: ViewSettings, report: Path | None = None) -> None:
        self.settings, self.report = settings, report
        self.room: Room | None = None
        self.samples: Samples | None = None
        self.failed = ""
        self.pictures: Shelf[Picture] = Shelf(settings.memory // 2)
        self.attacks: Shelf[Attacked] = Shelf(settings.memory // 2)
        self.desk = Desk(settings.waiting)
        self.door = Doorway(settings.uploads)

    def load(self, room: Room, samples: Samples | None = None) -> None:
        """Say that the models are loaded."""
        self.samples = samples
        self.room = room

    @property
    def ready(self) -> Room:
        """The loaded models; raises `Refused` while they are not."""
        if self.room is None:
            raise Refused(503, self.failed or "The models are still loading.")
        return self.room

    def state(self) -> dict[str, Any]:
        """Return what the page must know."""
        if self.room is None:
            return {"state": "failed" if self.failed else "loading", "error": self.failed}
        return {
            "state": "ready",
            **self.room.described(),
            "max_upload": self.settings.max_upload,
            "report": self.report is not None,
            "data": None if self.samples is None else self.samples.described(),
        }


def make_app(viewer: Viewer) -> FastAPI:
    """Return the application; it trusts whoever calls it, so that it must stand behind a guard."""
    app = FastAPI(
        docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, telemetry=QUIET
    )
    app.add_exception_handler(Refused, _refusal)
    app.add_exception_handler(Exception, _failure)
    app.add_exception_handler(RequestValidationError, _nothing)
    app.add_exception_handler(404, _nothing)
    app.add_exception_handler(405, _nothing)
    _pages(app, viewer)
    _images(app, viewer)
    _work(app, viewer)
    return app


def _pages(app: FastAPI, viewer: Viewer) -> None:
    @app.get("/")
    async def page() -> Response:
        return Response((PAGES / "index.html").read_bytes(), media_type="text/html")

    @app.get("/view.js")
    async def script() -> Response:
        return Response((PAGES / "view.js").read_bytes(), media_type="text/javascript")

    @app.get("/plates.js")
    async def plates() -> Response:
        return Response((PAGES / "plates.js").read_bytes(), media_type="text/javascript")

    @app.get("/view.css")
    async def look() -> Response:
        return Response(style(), media_type="text/css")

    @app.get("/state")
    async def state() -> Response:
        return JSONResponse(viewer.state())

    @app.get("/report")
    async def report() -> Response:
        if viewer.report is None:
            raise Refused(404, "No report was given.")
        policy = {"content-security-policy": REPORT_POLICY}
        return FileResponse(viewer.report / REPORT, media_type="text/html", headers=policy)


def _images(app: FastAPI, viewer: Viewer) -> None:
    @app.post("/images")
    async def take_in(request: Request) -> Response:
        """Take an image's bytes, as they are: no name, no form, nothing that goes to a file."""
        room = viewer.ready
        with viewer.door.entered():
            content = await read_body(request, viewer.settings.max_upload)
            image = await to_thread.run_sync(read_image, content, room.depth)
            del content
            picture = await to_thread.run_sync(room.prepare, image)
        return _kept(viewer, picture, {"width": image.shape[1], "height": image.shape[0]})

    @app.post("/images/{name}/mask")
    async def take_mask(name: str, request: Request) -> Response:
        """Take the bytes of the mask of an image in memory; give back its outline, keep nothing."""
        room, picture = viewer.ready, viewer.pictures.get(name)
        with viewer.door.entered():
            content = await read_body(request, viewer.settings.max_upload)
            mask = await to_thread.run_sync(read_mask, content)
            del content
            outline = await to_thread.run_sync(_outline, room, picture, mask)
        return JSONResponse({"outline": outline})

    @app.post("/samples/{number}")
    async def take_out(number: int) -> Response:
        picture = await to_thread.run_sync(_sample, viewer, number)
        return _kept(viewer, picture, {"sample": number})

    @app.get("/samples/{number}")
    async def glance(number: int) -> Response:
        picture = await to_thread.run_sync(_sample, viewer, number)
        from diascope.viewer.pictures import THUMB, as_seen

        return JSONResponse({"image": as_seen(picture.levels, THUMB)})

    @app.post("/forget")
    async def forget() -> Response:
        viewer.pictures.forget()
        viewer.attacks.forget()
        return JSONResponse({})


def _sample(viewer: Viewer, number: int) -> Picture:
    if viewer.samples is None:
        raise Refused(404, "No data was given.")
    return viewer.samples.picture(number, viewer.ready)


def _outline(room: Room, picture: Picture, mask: NDArray[np.bool_]) -> str:
    if picture.frame is None:
        raise Refused(415, "Of this image nobody knows how it was cut.")
    outline = room.outline(mask, picture.frame)
    if not outline:
        raise Refused(415, "The mask has nothing inside that the models see.")
    return outline


def _kept(viewer: Viewer, picture: Picture, more: dict[str, Any]) -> Response:
    from diascope.viewer.pictures import THUMB, as_seen

    name = viewer.pictures.put(picture)
    images = {"image": as_seen(picture.levels), "thumb": as_seen(picture.levels, THUMB)}
    known = {"label": picture.label, "outline": picture.outline}
    return JSONResponse({"id": name, **known, **images, **more})


def _work(app: FastAPI, viewer: Viewer) -> None:
    @app.post("/work")
    async def work(request: Request) -> Response:
        """Begin what a page asks for; the answer is a line of JSON for each event."""
        asked = await _asked(request)
        kind = choice(asked, "kind", ["predict", "explain", "attack"])
        page = asked.get("page")
        if not isinstance(page, str) or not 8 <= len(page) <= 64:
            raise Refused(422, "'page' is no name of a page.")
        task, begin = _task(viewer, kind, asked)
        events: asyncio.Queue[Event] = asyncio.Queue()
        tell = _teller(events)
        job = Job(page, kind, str(asked["image"]), task, tell, viewer.settings.timeout)
        ahead = viewer.desk.submit(job)
        lines = _lines(viewer.desk, job, events, {"state": "queued", "ahead": ahead, **begin})
        return StreamingResponse(lines, media_type="application/x-ndjson")


def _teller(events: asyncio.Queue[Event]) -> Callable[[Event], None]:
    """Return what puts events into the queue of the running loop, from any thread."""
    loop = asyncio.get_running_loop()

    def tell(event: Event) -> None:
        with contextlib.suppress(RuntimeError):  # the server has stopped
            loop.call_soon_threadsafe(events.put_nowait, event)

    return tell


async def _asked(request: Request) -> dict[str, Any]:
    try:
        found = json.loads(await read_body(request, WORDS))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(422, "The request is no JSON object.")
    return found


def _task(viewer: Viewer, kind: str, asked: dict[str, Any]) -> tuple[Callable[[Job], None], Event]:
    """Return the work that is asked for, and what the page must know of it at once."""
    from diascope.viewer import tasks

    room, picture = viewer.ready, viewer.pictures.get(asked.get("image"))
    if kind == "predict":
        return tasks.predict(room, picture), {}
    if kind == "explain":
        method = choice(asked, "method", list(room.methods))
        target = None
        if asked.get("target") is not None:
            target = whole(asked, "target", 0, len(room.classes) - 1)
        held, first = None, 0
        if asked.get("attack") is not None:
            held = viewer.attacks.get(asked["attack"])
            first = whole(asked, "first", 0, len(held.epsilons) - 1)
        return tasks.explain(room, picture, method, target, held, first), {}
    norm: Any = choice(asked, "norm", ["l2", "linf"])
    steps, grid = whole(asked, "steps", 1, 200), room.grid(norm)
    size = picture.levels.numel() * 4 * len(grid) * len(room.subjects)
    held = Attacked(picture, norm, grid, nbytes=size)
    return tasks.attack(room, held, steps), {"attack": viewer.attacks.put(held)}


async def _lines(
    desk: Desk, job: Job, events: asyncio.Queue[Event], begin: Event
) -> AsyncIterator[bytes]:
    """Yield the events of a job as lines; a page that has gone away ends it."""
    event, waited = begin, None
    try:
        while True:
            yield json.dumps(event, allow_nan=False).encode() + b"\n"
            if event.get("state") in FINAL:
                return
            if event.get("state") == "running":
                waited = asyncio.get_running_loop().time() + job.timeout + GRACE
            async with asyncio.timeout_at(waited):
                event = await events.get()
    except TimeoutError:
        late = "This does not come to an end: stop the viewer if it does not answer any more."
        yield json.dumps({"state": "error", "error": late}).encode() + b"\n"
    finally:
        desk.drop(job)


def style() -> str:
    """Return the style sheet: the report's palette and typefaces, and what is the viewer's own."""
    look = Path(__file__).parents[1] / "report" / "templates"
    light, dark = ((look / name).read_text("utf-8") for name in ("light.css", "dark.css"))
    return (
        f"{light}\n@media (prefers-color-scheme: dark) {{\n"
        f':root:not([data-theme="light"]) {{ {dark} }}\n}}\n'
        f':root[data-theme="dark"] {{ {dark} }}\n'
        f"{(PAGES / 'view.css').read_text('utf-8')}"
    )


async def _refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"error": error.sentence}, error.status)


async def _nothing(_: Request, error: Exception) -> Response:
    status = (
        404 if isinstance(error, RequestValidationError) else getattr(error, "status_code", 404)
    )
    return JSONResponse({"error": "There is nothing here."}, status)


async def _failure(_: Request, error: Exception) -> Response:
    """Answer for an error that the guard, which meets it next, prints without what it says."""
    return JSONResponse({"error": f"The viewer failed ({type(error).__name__})."}, 500)
