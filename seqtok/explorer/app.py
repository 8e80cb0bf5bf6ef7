"""The explorer's requests and answers. Errors are {"error": one sentence}; a drawing is a stream of JSON lines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from torch import Tensor

from ar_model import SampleConfig
from seqtok.explorer.guard import MOST_BYTES, REPORT_POLICY, Guard
from seqtok.explorer.line import BusyError, ModelLine
from seqtok.explorer.studio import Opened, Studio
from seqtok.explorer.wire import (
    CaptionQuery,
    DrawQuery,
    PrefixQuery,
    SwapQuery,
    from_base64,
    heat,
    to_base64,
)
from seqtok.grids import data_uri
from seqtok.pictures.reconstruct import ReconstructConfig
from seqtok_core.foundation.errors import ConfigError, SeqtokError

_PAGE = Path(__file__).parent / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def build_app(
    studio: Studio, report: Path | None = None, listens: str = "127.0.0.1", most_bytes: int = MOST_BYTES
) -> FastAPI:
    """The application of one studio. `listens`: where, which says who may be asked for; see Guard."""
    line = ModelLine()
    app = FastAPI(openapi_url=None)  # the pages of documentation that it would make load scripts from afar
    app.add_middleware(Guard, listens=listens, most_bytes=most_bytes)
    app.add_exception_handler(SeqtokError, _refused)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(Exception, _failed)
    app.include_router(_pages(report))
    app.include_router(_pictures(studio, line))
    app.include_router(_tokens(studio, line))

    @app.get("/api/about")
    async def about() -> dict[str, Any]:
        return {**await line.run(studio.about), "report": report is not None}

    return app


def _pages(report: Path | None) -> APIRouter:
    pages = APIRouter()
    files = {file.name: file for file in _PAGE.iterdir() if file.suffix in _TYPES}

    @pages.get("/")
    async def index() -> Response:
        return FileResponse(files["index.html"], media_type="text/html")

    @pages.get("/page/{name}")
    async def part(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "there is no such file")
        return FileResponse(files[name], media_type=_TYPES[files[name].suffix])

    @pages.get("/report")
    async def show_report() -> Response:
        if report is None or not report.is_file():
            raise HTTPException(404, "this run has no report; `seqtok report` writes one")
        return FileResponse(report, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})

    return pages


def _pictures(studio: Studio, line: ModelLine) -> APIRouter:
    pictures = APIRouter(prefix="/api")

    async def seen(work: Callable[[], Opened]) -> dict[str, Any]:
        found = await line.run(work)
        looks = found.looks
        return {
            "image": data_uri(found.picture),
            "latents": to_base64(found.latents),
            "looks": None if looks is None else {"grid": list(looks.shape[1:]), "maps": heat(looks)},
            "captions": found.captions,
            "notes": found.notes,
        }

    @pictures.post("/picture")
    async def open_upload(request: Request) -> dict[str, Any]:
        """The body is the file itself."""
        return await seen(partial(studio.open, await request.body()))

    @pictures.get("/scene/{number}")
    async def scene(number: int) -> dict[str, Any]:
        return await seen(partial(studio.scene, number))

    @pictures.get("/example/{number}")
    async def example(number: int) -> dict[str, Any]:
        return await seen(partial(studio.example, number))

    return pictures


def _tokens(studio: Studio, line: ModelLine) -> APIRouter:
    tokens = APIRouter(prefix="/api")
    read = partial(from_base64, length=studio.length, dim=studio.dim)

    @tokens.post("/prefix")
    async def prefix(asked: PrefixQuery) -> dict[str, Any]:
        latents = read(asked.latents)

        def work() -> dict[str, Any]:
            picture = data_uri(studio.decode(latents, asked.k))
            return {"image": picture, **studio.says(latents, asked.k, asked.captions)}

        return await line.run(work)

    @tokens.post("/swap")
    async def swap(asked: SwapQuery) -> dict[str, Any]:
        first, second = read(asked.first), read(asked.second)
        return {"images": [data_uri(one) for one in await line.run(lambda: studio.swap(first, second, asked.k))]}

    @tokens.post("/caption")
    async def caption(asked: CaptionQuery) -> dict[str, Any]:
        work = partial(studio.caption, read(asked.latents), asked.k, asked.level, asked.candidates, asked.seed)
        return {"caption": await line.run(work)}

    @tokens.post("/draw")
    async def draw(asked: DrawQuery) -> StreamingResponse:
        """Lines of {"k", "image", "latents"}, of all tokens the last; {"warning"} before, {"error"} in place of the
        rest."""
        warning = None if asked.prompt is None else studio.warning(asked.prompt)
        work = _drawing(studio, asked, None if asked.latents is None else read(asked.latents))
        return StreamingResponse(_lines(line, work, warning), media_type="application/x-ndjson")

    return tokens


def _drawing(studio: Studio, asked: DrawQuery, latents: Tensor | None) -> Callable[[Callable[[Any], None]], None]:
    """What a request draws, to be done in its turn. Raises ConfigError for what cannot be drawn."""
    known = 0 if latents is None else len(latents)
    if asked.k > known:
        raise ConfigError(f"k={asked.k}: {known} tokens are given")
    kept = studio.tokenizer.latent_mean[:0].cpu() if latents is None else latents[: asked.k]
    chosen = {"guidance": asked.guidance, "temperature": asked.temperature}
    usual = ReconstructConfig().sample if asked.prompt is None else SampleConfig()
    config = usual.changed(**{key: value for key, value in chosen.items() if value is not None})

    def work(say: Callable[[Any], None]) -> None:
        def show(latents: Tensor) -> None:
            k = len(latents)
            if not latents.isfinite().all():
                raise ConfigError("the drawing left all numbers behind; take less guidance or a lower temperature")
            say({"k": k, "image": data_uri(studio.decode(latents, k)), "latents": to_base64(latents)})

        def on_token(latents: Tensor) -> None:
            if asked.watch and asked.k < len(latents) < studio.length:
                show(latents)
            else:
                say(None)  # so that a drawing that nobody watches ends, too, where nobody waits for it

        show(studio.draw(asked.prompt, kept, asked.seed, config, on_token))

    return work


async def _lines(
    line: ModelLine, work: Callable[[Callable[[Any], None]], None], warning: str | None
) -> AsyncIterator[str]:
    if warning is not None:
        yield json.dumps({"warning": warning}) + "\n"
    try:
        async for word in line.stream(work):
            if word is not None:
                yield json.dumps(word) + "\n"
    except SeqtokError as error:
        yield json.dumps({"error": _sentence(error)}) + "\n"


def _sentence(error: object) -> str:
    return " ".join(str(error).split())


def _refused(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": _sentence(error.detail)}, error.status_code)
    return JSONResponse({"error": _sentence(error)}, 503 if isinstance(error, BusyError) else 422)


def _malformed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return JSONResponse({"error": f"{where or 'request'}: {first['msg']}"}, 422)


def _failed(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "something went wrong here; the terminal of the explorer says what"}, 500)
