"""A whole node on free loopback ports, as a site would start it, between an archive stand-in's send and receive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dicom_node.base.config import Configuration, load_configuration
from dicom_node.base.errors import PermanentError
from dicom_node.base.types import StudyState
from dicom_node.demo.archive import AE_TITLE, Archive, forward
from dicom_node.demo.ports import free_ports
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.views import StudyView

POLL_SECONDS = 0.2
START_SECONDS = 180.0
ENDS = {StudyState.DELIVERED, StudyState.OUT_OF_SCOPE, StudyState.DEAD}


@dataclass(frozen=True)
class Outcome:
    """How the study ended. report: the file as the archive stored it. seconds: from the first image to the report."""

    study: StudyView
    report: Path | None
    seconds: float


class DemoNode:
    """Configuration, bundle, archive and node in one folder, alive while the `with` block lasts."""

    def __init__(self, home: Path, bundle: Path | None = None) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._home = home
        self._bundle = (bundle or _demo_bundle(home / "bundle")).absolute()
        self._exit = ExitStack()

    def __enter__(self) -> DemoNode:
        self._archive = self._exit.enter_context(Archive(self._home / "archive"))
        config_file = self._write_configuration()
        self.configuration: Configuration = load_configuration(config_file)
        log = self._exit.enter_context((self._home / "node.log").open("ab"))
        command = [sys.executable, "-m", "dicom_node", "serve", "--config", str(config_file)]
        self._process = subprocess.Popen(command, stderr=log, start_new_session=True)  # noqa: S603 - our own program
        self._exit.callback(self._stop)
        self._wait_until_healthy()
        self._registry = Registry(self.configuration.node.database_url)
        self._exit.callback(self._registry.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def send(self, files: Sequence[Path], on_sent: Callable[[], None]) -> None:
        """Forward a study to the node, as the archive."""
        self._sent_at = time.monotonic()
        node = self.configuration.node
        forward(files, node.port, node.ae_title, on_sent)

    def wait(self, on_state: Callable[[str], None]) -> Outcome:
        """Wait for the study's end: the report is back in the archive, or the node said why there is none."""
        while True:
            self._check_alive()
            for study in self._registry.studies(limit=1):
                on_state(study.state)
                if study.state in ENDS:
                    report = self._archive.reports[-1] if self._archive.reports else None
                    return Outcome(study, report, round(time.monotonic() - self._sent_at, 2))
            time.sleep(POLL_SECONDS)

    def _write_configuration(self) -> Path:
        port, http_port = free_ports(2)
        path = self._home / "node.toml"
        path.write_text(
            f"""[node]
ae_title = "PRIMADEMO"
port = {port}
http_port = {http_port}
storage = "node"

[intake]
stability_seconds = 2

[model]
bundle = {json.dumps(str(self._bundle))}
allow_nonclinical = true

[[destinations]]
name = "archive"
kind = "dicom"
ae_title = "{AE_TITLE}"
host = "127.0.0.1"
port = {self._archive.port}
""",
            encoding="utf-8",
        )
        return path

    def _wait_until_healthy(self) -> None:
        url = f"http://127.0.0.1:{self.configuration.node.http_port}/healthz"
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self._check_alive()
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(POLL_SECONDS)
        raise PermanentError(f"the node did not become ready; see {self._home / 'node.log'}")

    def _check_alive(self) -> None:
        if self._process.poll() is not None:
            raise PermanentError(f"the node ended; see {self._home / 'node.log'}")

    def _stop(self) -> None:
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGTERM)
        self._process.wait()


def _demo_bundle(folder: Path) -> Path:
    """The demo's model: small, seeded random weights, `untrained` and saying so."""
    from prima_core.random_weights import demo, write_random_bundle

    if not (folder / "bundle.json").exists():
        write_random_bundle(folder, demo(), name="prima-demo")
    return folder
