"""The node's HTTP port: `/healthz` (200 while every process beats, else 503 with the names) and `/metrics`."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from dicom_node.base.config import Configuration
from dicom_node.base.errors import ConfigurationError
from dicom_node.console.metrics import NodeMetrics
from dicom_node.jobs.registry import DATABASE_AWAY, Registry

STALE_SECONDS = 30.0
NO_DATABASE = "the registry's database does not answer"
EXPECTED = ("receiver", "scheduler", "worker")


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that goes away in mid-request is no news; the library would print a traceback."""


class _Handler(WSGIRequestHandler):
    timeout = 10  # a slow client must not keep a thread for ever

    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""


class Console:
    """Serves while started; `port` is the port it listens on.

    Raises ConfigurationError on construction when the address cannot be used.
    """

    def __init__(self, configuration: Configuration, registry: Registry) -> None:
        self._registry = registry
        metrics = CollectorRegistry()
        metrics.register(NodeMetrics(registry, configuration.node.storage))
        self._metrics = make_wsgi_app(metrics)
        node = configuration.node
        try:
            self._server = make_server(node.http_bind, node.http_port, self._answer, _Server, _Handler)
        except OSError as error:
            words = f"node.http_bind, node.http_port: cannot listen there ({error.strerror})"
            raise ConfigurationError(words) from error
        self.port = self._server.server_port

    def start(self) -> None:
        """Serve in a thread of its own."""
        threading.Thread(target=self._server.serve_forever, name="console", daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return self._scrape(environ, start_response)
        if path == "/healthz":
            return self._health(start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"not found\n"]

    def _scrape(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            answer: Iterable[bytes] = self._metrics(environ, start_response)
        except DATABASE_AWAY:
            start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
            return [f"{NO_DATABASE}\n".encode()]
        return answer

    def _health(self, start_response: Any) -> Iterable[bytes]:
        problems = health_problems(self._registry, time.time())
        status = "503 Service Unavailable" if problems else "200 OK"
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps({"ok": not problems, "problems": problems}).encode()]


def health_problems(registry: Registry, now: float) -> list[str]:
    """What is wrong now, in words; empty when the node is well."""
    try:
        seen = {process.name: process for process in registry.processes()}
    except DATABASE_AWAY:
        return [NO_DATABASE]
    problems = []
    for name in EXPECTED:
        if name not in seen:
            problems.append(f"the {name} has not started")
        elif now - seen[name].beat_at > STALE_SECONDS:
            problems.append(f"the {name} has not been heard of for {now - seen[name].beat_at:.0f} s")
        elif seen[name].status != "ready":
            problems.append(f"the {name} is {seen[name].status}")
    return problems
