"""The page's addresses: what each of them gives, and which call of the library is behind it."""

import asyncio
import contextlib
import html
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from storage.errors import UserError
from storage.files import parse_json
from vocsep.config import validated
from vocsep.models.registry import open_registry
from vocsep.page import catalogue
from vocsep.page.chunks import CHUNK_SECONDS, chunk
from vocsep.page.downloads import download_name, title, zipped
from vocsep.page.options import TakeOptions
from vocsep.page.queue import Queue
from vocsep.page.records import STEMS, Song, Take
from vocsep.page.security import REPORT_POLICY
from vocsep.page.songs import FILES, LISTENING, PEAKS, Songs
from vocsep.page.uploads import Announcement, DiskFull, TooLarge, Uploads

_CLEAN_SECONDS = 600.0
_MOST_JSON = 1 << 16
_PICTURES = (*STEMS, "mask")
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True)
class Place:
    """Where models and reports are, and the token that the page holds."""

    models: Path
    reports: Path
    token: str


class Pages:
    """Answers to requests; the guard has let them in."""

    def __init__(self, songs: Songs, queue: Queue, uploads: Uploads, place: Place) -> None:
        self._songs = songs
        self._queue = queue
        self._uploads = uploads
        self._place = place
        self._files = {
            entry.name: entry.read_bytes()
            for package in ("vocsep.html", "vocsep.page")
            for entry in (resources.files(package) / "static").iterdir()
            if Path(entry.name).suffix in _KINDS
        }

    def routes(self) -> list[Route]:
        """All addresses."""
        take = "/songs/{song}/{take:int}"
        reading: list[tuple[str, Handler]] = [
            ("/", self._index),
            ("/static/{name}", self._static),
            ("/api/state", self._state),
            ("/api/models", self._models),
            ("/api/reports", self._reports),
            ("/reports/{name}", self._report),
            ("/all.zip", self._everything),
            (take + "/all.zip", self._take_zip),
            (take + "/files/{stem}", self._file),
            (take + "/peaks", self._peaks),
            (take + "/pictures/{stem}", self._picture),
            (take + "/samples/{stem}/{number:int}", self._samples),
        ]
        changing: list[tuple[str, str, Handler]] = [
            ("/api/songs", "POST", self._announce),
            ("/api/songs/{song}", "PUT", self._receive),
            ("/api/songs/{song}", "DELETE", self._remove_song),
            ("/api/songs/{song}/takes", "POST", self._add_take),
            ("/api/songs/{song}/takes/{take:int}", "DELETE", self._remove_take),
        ]
        return [
            *(Route(path, handler, methods=["GET"]) for path, handler in reading),
            *(Route(path, handler, methods=[method]) for path, method, handler in changing),
        ]

    async def _index(self, request: Request) -> Response:
        page = self._files["index.html"].decode().replace("{{token}}", html.escape(self._place.token))
        return Response(page, media_type="text/html")

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files or name == "index.html":
            raise HTTPException(404, "no such file")
        return Response(self._files[name], media_type=_KINDS[Path(name).suffix])

    async def _state(self, request: Request) -> Response:
        separating = self._queue.separating()
        songs = []
        for song in self._songs.listed():
            shown = song.model_dump(mode="json")
            for take in shown["takes"]:
                if separating and separating[0] == (song.id, take["id"]) and (far := separating[1]):
                    take["progress"] = {"done": far.done, "total": far.total, "speed": far.speed, "left": far.left}
            songs.append(shown)
        prefect = await run_in_threadpool(catalogue.prefect_url)
        limits = {"bytes": self._uploads.most_bytes, "chunk_seconds": CHUNK_SECONDS}
        return JSONResponse({"songs": songs, "limits": limits, "prefect": prefect, "now": time.time()})

    async def _models(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(catalogue.models, self._place.models))

    async def _reports(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(catalogue.reports, self._place.reports))

    async def _report(self, request: Request) -> Response:
        page = await run_in_threadpool(catalogue.report, self._place.reports, request.path_params["name"])
        if page is None:
            raise HTTPException(404, "no such report")
        return FileResponse(page, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})

    async def _announce(self, request: Request) -> Response:
        announcement = validated(Announcement, await _json(request), "upload")
        self._check_model(announcement.options)
        return JSONResponse({"id": await run_in_threadpool(self._uploads.announce, announcement)}, status_code=201)

    async def _receive(self, request: Request) -> Response:
        try:
            song = await self._uploads.receive(request.path_params["song"], request.stream())
        except ClientDisconnect:
            return Response(status_code=400)  # nobody hears it
        if song is None:
            raise HTTPException(404, "no such upload is expected")
        self._queue.look()
        return JSONResponse({"id": song.id}, status_code=201)

    async def _remove_song(self, request: Request) -> Response:
        await run_in_threadpool(self._queue.remove_song, self._song(request).id)
        return Response(status_code=204)

    async def _add_take(self, request: Request) -> Response:
        song = self._song(request)
        options = validated(TakeOptions, await _json(request), "options")
        self._check_model(options)
        take = self._songs.add_take(song.id, options)
        self._queue.look()
        return JSONResponse({"id": take.id}, status_code=201)

    async def _remove_take(self, request: Request) -> Response:
        song = self._song(request)
        await run_in_threadpool(self._queue.remove, song.id, request.path_params["take"])
        return Response(status_code=204)

    async def _file(self, request: Request) -> Response:
        song, take = self._take(request)
        found = {str(stem): name for stem, name in take.files.items()}.get(request.path_params["stem"])
        if found is None:
            raise HTTPException(404, "no such stem")
        path = self._songs.take_folder(song.id, take.id) / FILES / Path(found).name
        name = download_name(song.name, request.path_params["stem"], found)
        return FileResponse(_there(path), filename=name, media_type="application/octet-stream")

    async def _take_zip(self, request: Request) -> Response:
        song, take = self._take(request)
        return _zip_response(self._zip_entries(song, take), f"{title(song.name)}.zip")

    async def _everything(self, request: Request) -> Response:
        songs = self._songs.listed()
        entries = [entry for song in songs for take in song.takes for entry in self._zip_entries(song, take)]
        if not entries:
            raise HTTPException(404, "nothing is separated yet")
        return _zip_response(entries, "stems.zip")

    async def _peaks(self, request: Request) -> Response:
        return FileResponse(self._listening(request, PEAKS), media_type="application/json")

    async def _picture(self, request: Request) -> Response:
        stem = request.path_params["stem"]
        if stem not in _PICTURES:
            raise HTTPException(404, "no such picture")
        return FileResponse(self._listening(request, f"{stem}.png"), media_type="image/png")

    async def _samples(self, request: Request) -> Response:
        stem = request.path_params["stem"]
        if stem not in STEMS:
            raise HTTPException(404, "no such stem")
        path = self._listening(request, f"{stem}.flac")
        content = await run_in_threadpool(chunk, path, request.path_params["number"])
        if content is None:
            raise HTTPException(404, "beyond the song's end")
        return Response(content, media_type="application/octet-stream")

    def _song(self, request: Request) -> Song:
        song = self._songs.get(request.path_params["song"])
        if song is None:
            raise HTTPException(404, "the song is no longer there")
        return song

    def _take(self, request: Request) -> tuple[Song, Take]:
        song = self._song(request)
        take = song.take(request.path_params["take"])
        if take is None or take.state != "done":
            raise HTTPException(404, "no such separation")
        return song, take

    def _listening(self, request: Request, name: str) -> Path:
        song, take = self._take(request)
        return _there(self._songs.take_folder(song.id, take.id) / LISTENING / name)

    def _zip_entries(self, song: Song, take: Take) -> list[tuple[str, Path]]:
        folder = self._songs.take_folder(song.id, take.id) / FILES
        return [
            (f"{title(song.name)}/{stem}{Path(name).suffix}", folder / Path(name).name)
            for stem, name in take.files.items()
            if take.state == "done"
        ]

    def _check_model(self, options: TakeOptions) -> None:
        """Raise `UserError` if there is no such model."""
        open_registry(self._place.models).open(options.model)


def application(songs: Songs, queue: Queue, uploads: Uploads, place: Place) -> Starlette:
    """The page without its guard."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        queue.start()
        cleaning = asyncio.create_task(_clean(songs, queue, uploads))
        yield
        cleaning.cancel()
        queue.end()

    async def on_user_error(request: Request, error: Exception) -> Response:
        status = 413 if isinstance(error, TooLarge) else 507 if isinstance(error, DiskFull) else 400
        return JSONResponse({"error": str(error)}, status_code=status)

    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)

    return Starlette(
        routes=Pages(songs, queue, uploads, place).routes(),
        lifespan=lifespan,
        exception_handlers={UserError: on_user_error, HTTPException: on_http_error},
    )


async def _clean(songs: Songs, queue: Queue, uploads: Uploads) -> None:
    while True:
        uploads.forget_old()
        for song in songs.old(time.time()):
            await run_in_threadpool(queue.remove_song, song)
        await asyncio.sleep(_CLEAN_SECONDS)


async def _json(request: Request) -> Any:
    content = b""
    async for block in request.stream():
        content += block
        if len(content) > _MOST_JSON:
            raise TooLarge("the request is larger than any of this page")
    try:
        return parse_json(content)
    except ValueError:
        raise UserError("the request is no JSON") from None


def _there(path: Path) -> Path:
    if not path.is_file():
        raise HTTPException(404, "no longer there")
    return path


def _zip_response(entries: list[tuple[str, Path]], name: str) -> Response:
    # Quoted as FileResponse does it: a name may have any letters.
    header = FileResponse("", filename=name).headers["content-disposition"]
    return StreamingResponse(zipped(entries), media_type="application/zip", headers={"Content-Disposition": header})
