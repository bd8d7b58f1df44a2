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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from dicom_node.base.config import Configuration, load_configuration
from dicom_node.base.errors import PermanentError
from dicom_node.base.types import StudyState
from dicom_node.demo.archive import AE_TITLE, Archive, forward
from dicom_node.demo.ports import free_ports
from dicom_node.demo.study_files import StudyFiles
from dicom_node.jobs.registry import Registry
from dicom_node.jobs.views import StudyView

SHIPPED_BUNDLE = Path(__file__).with_name("bundle")  # trained on simulated studies by `make speedrun`, and says so
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
    """Configuration, bundle, archive and node in one folder, alive while the `with` block lasts.

    The folder may be used again: every node starts with a storage of its own. SIGTERM and SIGHUP end the block.
    """

    def __init__(self, home: Path, bundle: Path | None = None) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._home = home
        self._bundle = (bundle or SHIPPED_BUNDLE).absolute()

    def __enter__(self) -> DemoNode:
        with ExitStack() as stack:
            stack.enter_context(_ended_by_signals())
            self._archive = stack.enter_context(Archive(self._home / "archive"))
            config_file = self._write_configuration()
            self.configuration: Configuration = load_configuration(config_file)
            log = stack.enter_context((self._home / "node.log").open("ab"))
            command = [sys.executable, "-m", "dicom_node", "serve", "--config", str(config_file)]
            self._process = subprocess.Popen(command, stderr=log, start_new_session=True)  # noqa: S603 - our own program
            stack.callback(self._stop)
            self._wait_until_healthy()
            self._registry = Registry(self.configuration.node.database_url)
            stack.callback(self._registry.close)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def send(self, study: StudyFiles, on_sent: Callable[[], None]) -> None:
        """Forward a study to the node, as the archive."""
        self._sent_at = time.monotonic()
        node = self.configuration.node
        forward(study.files, node.port, node.ae_title, on_sent)

    def wait(self, study: StudyFiles, on_state: Callable[[str], None]) -> Outcome:
        """Wait for the study's end: its report is back in the archive, or the node said why there is none."""
        while True:
            self._check_alive()
            found = self._registry.study(study.study_instance_uid)
            if found is not None:
                on_state(found.state)
                if found.state in ENDS:
                    seconds = round(time.monotonic() - self._sent_at, 2)
                    return Outcome(found, self._archive.report(found.report_uid), seconds)
            time.sleep(POLL_SECONDS)

    def _write_configuration(self) -> Path:
        port, http_port = free_ports(2)
        storage = Path(mkdtemp(prefix="node-", dir=self._home)).name
        path = self._home / "node.toml"
        path.write_text(
            f"""[node]
ae_title = "PRIMADEMO"
port = {port}
http_port = {http_port}
storage = "{storage}"

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
                with urllib.request.urlopen(url, timeout=5):  # nosec B310
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


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does: the node is a process group of its own and would live on."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
