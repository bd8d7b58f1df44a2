"""Audit records to a syslog server: RFC 5424 over TLS (RFC 5425) or UDP (RFC 5426), as IHE ATNA ITI-20 has it.

The trail on disk is the queue: `sent` says how far it was sent, so that a server that is away loses nothing, however
long, and nobody waits for it. Over TLS a record counts as sent once the server has read all up to the connection's end.
"""

from __future__ import annotations

import json
import os
import random
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dicom_node.audit.chain import Record, read_record
from dicom_node.audit.trail import Trail
from dicom_node.base.audit_settings import Syslog
from dicom_node.base.durable import replace_file
from dicom_node.base.errors import ConfigurationError, NodeError, PeerUnreachable
from dicom_node.base.events import Event, log
from dicom_node.base.tls import ClientTls, client_context, tls_words

PRIORITY = 10 * 8 + 5  # facility 10, security messages; severity 5, notice (ITI TF-2 3.20.4.1.2)
MESSAGE_ID = "IHE+RFC-3881"
SENT = "sent"
AT_ONCE = 100
POLL_SECONDS = 2.0
FIRST_RETRY_SECONDS = 2.0
LONGEST_RETRY_SECONDS = 300.0
MAX_DATAGRAM = 65000


@dataclass(frozen=True)
class Mark:
    """How far records were sent: the last one's number, and where the next begins."""

    number: int = 0
    file: str = ""
    offset: int = 0


class Forwarder:
    """Sends what the trail holds, in order, each record at least once. Raises ConfigurationError on construction."""

    def __init__(self, settings: Syslog, trail: Trail) -> None:
        self._settings = settings
        self._trail = trail
        self._mark: Mark | None = None
        if settings.transport == "tls":
            client_context(settings.tls or ClientTls())  # what is no use is said at the start

    def start(self, stop: threading.Event) -> None:
        """Send in a thread of its own until `stop` is set."""
        threading.Thread(target=self._run, args=(stop,), name="syslog", daemon=True).start()

    def send_due(self) -> int:
        """Send some of what is due; how many. Raises PeerUnreachable or OSError: then try again."""
        mark = self._mark = self._mark or self._read_mark()
        records, after = self._next(mark)
        if records:
            self._send([frame(record) for record in records])
            replace_file(self._trail.folder / SENT, json.dumps(asdict(after)).encode())
        self._mark = after
        return len(records)

    def _run(self, stop: threading.Event) -> None:
        failing, wait = False, 0.0
        while not stop.wait(wait * random.uniform(1.0, 1.1)):
            try:
                sent = self.send_due()
            except (NodeError, OSError) as error:
                if not failing:  # said once, not at every attempt
                    words = str(error) if isinstance(error, NodeError) else type(error).__name__
                    log(Event.AUDIT_NOT_SENT, "error", reason=words)
                failing, wait = True, min(max(2 * wait, FIRST_RETRY_SECONDS), LONGEST_RETRY_SECONDS)
            else:
                if failing:
                    log(Event.AUDIT_SENT_AGAIN, count=sent)
                failing, wait = False, 0.0 if sent == AT_ONCE else POLL_SECONDS

    def _read_mark(self) -> Mark:
        try:
            return Mark(**json.loads((self._trail.folder / SENT).read_bytes()))
        except FileNotFoundError:
            return Mark()
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{self._trail.folder / SENT}: unreadable; deleted, all is sent again") from error

    def _next(self, mark: Mark) -> tuple[list[Record], Mark]:
        records: list[Record] = []
        for file in self._trail.files():
            if file.name < mark.file:
                continue
            offset = mark.offset if file.name == mark.file else 0
            for line in _whole_lines(file, offset):
                offset += len(line)
                record = read_record(line[:-1])
                if record is not None and record.number > mark.number:
                    records.append(record)
                    mark = Mark(record.number, file.name, offset)
                if len(records) == AT_ONCE:
                    return records, mark
        return records, mark

    def _send(self, messages: Sequence[bytes]) -> None:
        settings = self._settings
        try:
            if settings.transport == "udp":
                self._send_datagrams(messages)
            else:
                self._send_over_tls(messages, client_context(settings.tls or ClientTls()))
        except ssl.SSLError as error:
            raise PeerUnreachable(f"no TLS connection: {tls_words(error)}") from error
        except OSError as error:
            raise PeerUnreachable(f"the syslog server cannot be reached ({type(error).__name__})") from error

    def _send_datagrams(self, messages: Sequence[bytes]) -> None:
        settings = self._settings
        family, kind, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as datagrams:
            for message in messages:
                datagrams.sendto(message[:MAX_DATAGRAM], address)

    def _send_over_tls(self, messages: Sequence[bytes], context: ssl.SSLContext) -> None:
        settings = self._settings
        name = (settings.tls.server_name if settings.tls else None) or settings.host
        with socket.create_connection((settings.host, settings.port), settings.timeout_seconds) as plain:
            connection = context.wrap_socket(plain, server_hostname=name)
            try:
                for message in messages:
                    connection.sendall(b"%d %s" % (len(message), message))
                _see_it_read(connection)
            finally:
                connection.close()


def frame(record: Record) -> bytes:
    """A syslog message (RFC 5424 section 6) with the record as its text, and number and digest beside it."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    host = socket.gethostname()[:255] or "-"
    chain = f'[chain@32473 number="{record.number}" digest="{record.digest}"]'
    head = f"<{PRIORITY}>1 {now} {host} prima-node {os.getpid()} {MESSAGE_ID} {chain} "
    return head.encode("ascii", "replace") + b"\xef\xbb\xbf" + record.message


def _see_it_read(connection: ssl.SSLSocket) -> None:
    """End the connection and wait for the server's end of it: it comes after all that was sent was read.

    A server that closes without TLS's own goodbye has read that much too; a reset connection, or silence, says nothing.
    """
    try:
        connection.unwrap()
    except (ssl.SSLEOFError, ssl.SSLSyscallError):
        return
    except ssl.SSLError as error:
        if error.reason not in ("APPLICATION_DATA_AFTER_CLOSE_NOTIFY", "UNEXPECTED_EOF_WHILE_READING"):
            raise


def _whole_lines(file: Path, offset: int) -> Iterator[bytes]:
    """Lines with their ends; half a line that a writer is at is left for later."""
    try:
        with file.open("rb") as lines:
            lines.seek(offset)
            for line in lines:
                if not line.endswith(b"\n"):
                    return
                yield line
    except FileNotFoundError:  # moved away meanwhile
        return
