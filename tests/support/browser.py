"""Chromium without a screen, driven over its DevTools protocol by a pipe: no port, no driver.

How to use:

    with Browser(tmp_path) as browser:
        browser.emulate(width=1400, dark=True)
        browser.open("http://127.0.0.1:8042/worklist")
        browser.press("j")
        assert browser.evaluate("document.activeElement.id") == "study-a"
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.peers import wait_until

COMMAND_FD, ANSWER_FD = 3, 4  # what Chromium reads from and writes to


class Browser:
    """One window with one page; `folder` holds its profile."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("chromium", path="/usr/local/bin:/usr/bin")
        if program is None:
            pytest.skip("Chromium is not installed (apt install chromium)")
        self._command = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            f"--user-data-dir={folder / 'profile'}",
            "--remote-debugging-pipe",
            "about:blank",
        ]
        self._folder = folder
        self._last = 0
        self._rest = b""
        self._session: str | None = None

    def __enter__(self) -> Browser:
        command_end, self._write = os.pipe()
        self._read, answer_end = os.pipe()
        # Standard input and output are the pipes as far as the shell, which gives them their numbers and goes away.
        shell = f'exec "$@" {COMMAND_FD}<&0 {ANSWER_FD}>&1'
        with (self._folder / "browser.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/bash", "-c", shell, "chromium", *self._command], stdin=command_end, stdout=answer_end, stderr=log
            )
        os.close(command_end)
        os.close(answer_end)
        pages = self._ask("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)
        os.close(self._read)
        self._process.kill()
        self._process.wait()

    def emulate(
        self, *, width: int = 1400, height: int = 900, dark: bool = False, calm: bool = False, script: bool = True
    ) -> None:
        """The window's size in CSS pixels, and what its user prefers. script: whether pages may run any."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if calm else "no-preference",
        }
        wanted = [{"name": name, "value": value} for name, value in features.items()]
        self._ask("Emulation.setEmulatedMedia", features=wanted)
        self._ask("Emulation.setScriptExecutionDisabled", value=not script)

    def open(self, url: str) -> None:
        """Go there and wait until the page and all it names is loaded."""
        assert "errorText" not in self._ask("Page.navigate", url=url)
        wait_until(
            lambda: self.evaluate(f"document.readyState === 'complete' && location.href === {json.dumps(url)}"), url
        )

    def evaluate(self, expression: str) -> Any:
        """What an expression is in the page; a promise's result."""
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key: a letter, or a name as in `KeyboardEvent.key`."""
        codes = {"Tab": 9, "Enter": 13, "ArrowDown": 40, "ArrowUp": 38}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = codes.get(key, ord(key[0].upper()))
        self._ask("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, windowsVirtualKeyCode=code)
        self._ask("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def accessible(self) -> list[tuple[str, str]]:
        """Role and name of everything a screen reader is told of."""
        nodes = self._ask("Accessibility.getFullAXTree")["nodes"]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]

    def picture(self, path: Path) -> None:
        """What the window shows, as PNG."""
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot")["data"]))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._read, 1 << 16)
            assert part, (self._folder / "browser.log").read_text()[-5000:]
            self._rest += part
        first, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(first)
        return answer
