"""What the node answers over HTTP: `/worklist` for people, `/worklist.json`, `/healthz` and `/metrics` for machines."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CollectorRegistry, make_wsgi_app
from starlette.exceptions import HTTPException

from dicom_node.base.config import Configuration
from dicom_node.base.disk import reserve_of
from dicom_node.base.events import Event, log, type_and_place
from dicom_node.base.orders import WorklistEntry
from dicom_node.console import page
from dicom_node.console.health import NO_DATABASE, health_problems
from dicom_node.console.metrics import NodeMetrics
from dicom_node.console.reading_list import as_json
from dicom_node.console.shared import Shared
from dicom_node.jobs.registry import DATABASE_AWAY, Registry

THREADS = 4  # of all requests together: the outbox shares the registry's connections
SHARED_SECONDS = 5.0  # how old a reading list may be when it is handed out again
NO_TELEMETRY: TelemetryConfig = {"auto_configure": False, "tracing": False, "metrics": False, "logs": False}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
READ = ["GET", "HEAD"]


def application(configuration: Configuration, registry: Registry) -> FastAPI:
    """The routes, over one registry."""
    app = FastAPI(openapi_url=None, redirect_slashes=False, lifespan=_few_threads, telemetry=NO_TELEMETRY)
    _for_machines(app, configuration, registry)
    _for_people(app, configuration, registry)
    app.add_exception_handler(HTTPException, _in_plain_words)
    app.add_exception_handler(Exception, _unexpected)
    return app


def _for_machines(app: FastAPI, configuration: Configuration, registry: Registry) -> None:
    reserve = reserve_of(configuration)
    collectors = CollectorRegistry()
    collectors.register(NodeMetrics(registry, configuration.node.storage, configuration.worklist, reserve.bytes))
    exposition = make_wsgi_app(collectors)

    @app.api_route("/healthz", methods=READ)
    def healthz() -> Response:
        problems = health_problems(registry, time.time(), reserve, configuration.node)
        text = json.dumps({"ok": not problems, "problems": problems})
        return Response(text, 503 if problems else 200, media_type="application/json")

    @app.get("/metrics")
    def metrics(request: Request) -> Response:
        headers: dict[str, str] = {}
        environ = {
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.url.path,
            "QUERY_STRING": "",  # everybody gets everything; of what a client writes nothing reaches the library
            "HTTP_ACCEPT": OPENMETRICS if "openmetrics" in request.headers.get("accept", "") else "text/plain",
            "HTTP_ACCEPT_ENCODING": request.headers.get("accept-encoding"),
        }
        try:
            body = b"".join(exposition(environ, lambda _, told: headers.update(told)))
        except DATABASE_AWAY:
            return PlainTextResponse(f"{NO_DATABASE}\n", 503)
        return Response(body, headers=headers)


def _for_people(app: FastAPI, configuration: Configuration, registry: Registry) -> None:
    settings = configuration.worklist

    def ask() -> tuple[list[WorklistEntry], float]:
        now = time.time()
        return registry.worklist(now - 3600 * settings.keep_hours, nonclinical=configuration.moves_nonclinical), now

    listed = Shared(ask, SHARED_SECONDS)

    @app.api_route("/", methods=READ)
    def root() -> Response:
        return RedirectResponse("worklist")

    @app.api_route("/worklist", methods=READ)
    def worklist(request: Request) -> Response:
        try:
            entries, now = listed()
        except DATABASE_AWAY:
            return HTMLResponse(page.away(NO_DATABASE), 503, page.HEADERS)
        show = page.fragment if "fragment" in request.query_params else page.whole
        return HTMLResponse(show(entries, now), headers=page.HEADERS)

    @app.api_route("/worklist.json", methods=READ)
    def worklist_json() -> Response:
        try:
            entries, now = listed()
        except DATABASE_AWAY:
            return JSONResponse({"error": NO_DATABASE}, 503, page.HEADERS)
        return JSONResponse([as_json(entry, now) for entry in entries], headers=page.HEADERS)


@asynccontextmanager
async def _few_threads(_: FastAPI) -> AsyncIterator[None]:
    current_default_thread_limiter().total_tokens = THREADS
    yield


async def _in_plain_words(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail.lower()}\n", error.status_code, error.headers)


async def _unexpected(_: Request, error: Exception) -> Response:
    log(Event.JOB_FAILED, "error", job="console", error=type_and_place(error))
    return PlainTextResponse("internal server error\n", 500)
