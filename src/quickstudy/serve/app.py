"""The application: calls, page and docs behind one guard, and every error as JSON."""

import json
import sqlite3
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

import quickstudy
from quickstudy.learner import Learner
from quickstudy.packing import open_packed
from quickstudy.readers import ImageReader
from quickstudy.serve.engine import Engine
from quickstudy.serve.guard import HEADERS, LOOPBACK, Guard
from quickstudy.serve.limits import Limits, shortened
from quickstudy.serve.refusal import Refusal, error_response
from quickstudy.serve.routes import routes
from quickstudy.serve.still import docs_page, still_files
from quickstudy.serve.store import Store

_ABOUT = """Teach a task by a handful of labelled images, then classify: create a task, add examples of two classes or
more, and ask. Every error is `{"error": "what was given, what is required, what to do"}` with a status of 400 or above.
With a token, every call but /health needs the header `Authorization: Bearer TOKEN`."""


READING = 1
"""The way in which images become numbers; to be raised when the same image gives other numbers."""


def create_app(
    learner: Learner | str | Path,
    *,
    state: Path,
    token: str | None = None,
    limits: Limits | None = None,
    hosts: Collection[str] | None = LOOPBACK,
    workers: int = 2,
) -> FastAPI:
    """The server as an ASGI application.

    Args:
        learner: of images: a Learner, a path, or a name such as "characters".
        state: the folder with the tasks; made if it is not there.
        token: what every call but /health, the page and the docs needs; None asks for none.
        limits: by default ``Limits()``.
        hosts: the names by which it may be called, against DNS rebinding; None allows all.
        workers: threads that compute, each with one thread of torch.

    Raises:
        ValueError: a learner that is not there or reads no images; a state that cannot be used or was begun with a
            learner that reads images in another way; an empty token.
    """
    if token is not None and (not token.strip() or not token.isascii() or not token.isprintable()):
        raise ValueError("the token is empty or holds what a header cannot; required are printable ASCII characters")
    limits = limits or Limits()
    packed = open_packed(learner)
    name = type(learner).__name__ if isinstance(learner, Learner) else Path(learner).name
    store = Store(state, limits)
    try:
        engine = Engine(packed, store, limits, workers=workers)
        _require_same_reader(store, engine.reader)
    except BaseException:
        store.close()
        raise

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close()
        store.close()

    app = FastAPI(
        title="quickstudy",
        version=quickstudy.__version__,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.closing = False  # once set, answers end their connection
    app.include_router(routes(engine, name))
    still = still_files()
    for path, (content, kind) in still.items():
        _add_still(app, path, content, kind)
    _add_still(app, "/docs", docs_page(app.openapi()), "text/html; charset=utf-8")
    for kind in (Refusal, HTTPException, RequestValidationError, sqlite3.Error, Exception):
        app.add_exception_handler(kind, _answer_error)
    open_paths = {"/health", "/docs", "/openapi.json", *still}
    app.add_middleware(Guard, limits=limits, token=token, hosts=hosts, open_paths=open_paths)
    return app


def _require_same_reader(store: Store, reader: ImageReader) -> None:
    """The stored examples are what a reader made of images: another one would not fit to them."""
    now = {"channels": reader.channels, "size": reader.size, "reading": READING}
    first = {"reading": 1, **json.loads(store.remember("reader", json.dumps(now)))}
    if first != now:
        raise ValueError(
            f"the learner reads images of {now}, and the state {store.path} was begun with {first}: start it with a "
            "learner (and a version of quickstudy) that reads the same, or give another folder with --state"
        )


def _add_still(app: FastAPI, path: str, content: bytes, kind: str) -> None:
    async def send() -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    app.add_api_route(path, send, methods=["GET", "HEAD"], include_in_schema=False)


async def _answer_error(request: Request, error: Exception) -> Response:
    if isinstance(error, Refusal):
        return error_response(error.status, error.message, error.headers)
    if isinstance(error, RequestValidationError):
        return error_response(422, "; ".join(_in_words(problem) for problem in error.errors()[:3]))
    if isinstance(error, HTTPException):
        path, method = shortened(request.url.path), request.method
        message = {
            404: f"there is nothing at {path}; /docs lists all calls",
            405: f"{path} does not take {method}; /docs lists all calls",
        }.get(error.status_code, f"{error.detail}; /docs says what each call takes")
        return error_response(error.status_code, message, error.headers)
    if isinstance(error, sqlite3.Error):
        return error_response(507, _of_the_state(error))
    return error_response(500, "an error of the server, which its log describes; nothing was changed", HEADERS)


def _of_the_state(error: sqlite3.Error) -> str:
    """What SQLite says, and what to do about it."""
    name = getattr(error, "sqlite_errorname", "")  # SQLite's own errors alone have one
    hints = {
        ("SQLITE_BUSY", "SQLITE_LOCKED"): "another program holds it: end that, and try again",
        ("SQLITE_FULL", "SQLITE_IOERR"): "free some space on its disk, and try again",
        ("SQLITE_CORRUPT", "SQLITE_NOTADB"): "it is damaged: start the server with a copy of it, or a new one",
        (
            "SQLITE_READONLY",
            "SQLITE_CANTOPEN",
            "SQLITE_PERM",
        ): "give the server's user the right to write to its folder",
    }
    hint = next((hint for names, hint in hints.items() if name.startswith(names)), "see that its disk is in order")
    return f"the state could not be read or written ({error}); nothing was changed: {hint}"


def _in_words(problem: Any) -> str:
    """One of FastAPI's validation errors: where, what, and what was given."""
    where = ".".join(str(part) for part in problem["loc"])
    given = problem.get("input")
    shown = "" if given is None or problem["type"] == "json_invalid" else f", and {shortened(str(given))} was given"
    return f"{where}: {problem['msg']}{shown}; /docs says what the call takes"
