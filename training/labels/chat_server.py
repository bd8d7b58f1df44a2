"""A language model behind an address that speaks OpenAI's chat completions (POST …/v1/chat/completions).

Reports are patient data: in plain HTTP they go to this machine alone, unless the caller says otherwise, and never to
where the address redirects. Messages name status codes, never what was sent or answered.
"""

from __future__ import annotations

import ipaddress
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPException
from typing import IO, Any

from training.base.errors import BadTrainingData
from training.labels.language_model import ModelAway

ATTEMPTS = 5
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 120.0
_LARGEST_ANSWER = 4 << 20
_OF_THIS_PROMPT = (400, 413, 422)  # too long, or refused
_PASSING = (408, 409, 429)


@dataclass(frozen=True)
class ChatServer:
    """url: what `/v1/chat/completions` is below, such as https://models.hospital. model: the server's name for it.

    key: a bearer token, or empty; never printed. plain_http: allow http to another machine. pause: sleeps for seconds.
    Raises BadTrainingData for an address that reports must not be sent to.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    plain_http: bool = False
    timeout_seconds: float = 120.0
    pause: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadTrainingData("the model's address is not an http or https URL")
        if parts.scheme == "http" and not self.is_local and not self.plain_http:
            raise BadTrainingData(
                "the model's address is plain http on another machine: reports would cross the network readable; use "
                "https, or allow it if the network is trusted"
            )

    @property
    def name(self) -> str:
        """Address and model."""
        return f"{self.url.rstrip('/')} {self.model}"

    @property
    def is_local(self) -> bool:
        """Whether reports stay on this machine, as far as the address tells."""
        host = urllib.parse.urlsplit(self.url).hostname or ""
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def complete(self, prompt: str) -> str:
        """The answer to one message, at temperature 0. Raises BadTrainingData, ModelAway."""
        asked = {"model": self.model, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
        body = json.dumps(asked).encode()
        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return _content(self._post(body))
            except urllib.error.HTTPError as error:
                problem, wait = f"answered {error.code}", _retry_after(error)
                if error.code in _OF_THIS_PROMPT:
                    raise BadTrainingData(f"the model's server refused the report ({error.code})") from error
                if error.code < 500 and error.code not in _PASSING:
                    raise ModelAway(f"the model's server {problem}; check address, model and key") from error
            except (OSError, HTTPException) as error:
                problem, wait = f"cannot be reached ({type(error).__name__})", 0.0
            if attempt < ATTEMPTS:
                self.pause(min(max(pause, wait), _LONGEST_PAUSE_SECONDS))
                pause *= 2
        raise ModelAway(f"the model's server {problem}, {ATTEMPTS} times; start the command again later, it goes on")

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            f"{self.url.rstrip('/')}/v1/chat/completions", body, headers, method="POST"
        )
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if self.url.startswith("http:"):
            handlers.append(urllib.request.ProxyHandler({}))  # a proxy would read what must stay here
        with urllib.request.build_opener(*handlers).open(request, timeout=self.timeout_seconds) as answer:
            content: bytes = answer.read(_LARGEST_ANSWER)
        return content


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """A redirect stays the error that it is here."""


def _content(answer: bytes) -> str:
    try:
        document: Any = json.loads(answer)
        content = document["choices"][0]["message"]["content"]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BadTrainingData("the server's answer is not a chat completion") from error
    if not isinstance(content, str):
        raise BadTrainingData("the server's answer has no text")
    return content


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Retry-After in seconds (RFC 9110 section 10.2.3); its date form is not heeded."""
    value = error.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0
