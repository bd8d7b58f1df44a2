"""The audit trail over TLS to rsyslog: what it writes down is what the trail holds, record for record."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_node.audit.syslog import Forwarder
from dicom_node.audit.trail import Trail
from dicom_node.base.audit_settings import Syslog
from dicom_node.base.errors import PeerUnreachable
from support.certificates import Authority, Issued
from support.peers import free_port, listening, wait_until

pytestmark = pytest.mark.peers
WRITTEN = re.compile(
    r'(?P<facility>\w+)\.(?P<severity>\w+)\|prima-node\|IHE\+RFC-3881\|.*number="(?P<number>\d+)".*\|(?P<text>.*)'
)


@contextmanager
def rsyslog(folder: Path, port: int, own: Issued) -> Iterator[Path]:
    """rsyslogd with a certificate of its own, which asks its clients for theirs; gives the file that it writes."""
    program = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin")
    if program is None or not list(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so")):
        pytest.skip("rsyslog with GnuTLS is not installed (apt install rsyslog rsyslog-gnutls)")
    written = folder / "written"
    (folder / "rsyslog.conf").write_text(
        f"""
global(workDirectory="{folder}" maxMessageSize="64k" defaultNetstreamDriver="gtls"
       defaultNetstreamDriverCAFile="{own.ca_file}" defaultNetstreamDriverCertFile="{own.certificate}"
       defaultNetstreamDriverKeyFile="{own.key}")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
template(name="line" type="string"
         string="%syslogfacility-text%.%syslogseverity-text%|%app-name%|%msgid%|%structured-data%|%msg%\\n")
input(type="imtcp" address="127.0.0.1" port="{port}")
action(type="omfile" file="{written}" template="line")
"""
    )
    command = [program, "-n", "-f", str(folder / "rsyslog.conf"), "-i", str(folder / "pid")]
    with (folder / "rsyslog.log").open("a") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until(lambda: listening(port) or process.poll() is not None, "rsyslog listens")
        yield written
    finally:
        process.terminate()
        process.wait()


def test_what_rsyslog_writes_down_is_what_the_trail_holds(tmp_path: Path) -> None:
    own = Authority(tmp_path).issue("syslog")
    trail = Trail(tmp_path / "audit", None, 2000)
    texts = [f"<AuditMessage>Kätzchen {number} 山田 {'x' * number}</AuditMessage>" for number in range(1, 21)]
    texts.append(f"<AuditMessage>{'long ' * 6000}</AuditMessage>")  # most are below 8 KB; one is not
    trail.append(texts[:10])
    port = free_port()
    sender = Forwarder(Syslog(host="localhost", port=port, tls=own.client(), timeout_seconds=10.0), trail)
    with pytest.raises(PeerUnreachable):
        sender.send_due()
    for part in (slice(10, 15), slice(15, None)):  # it goes away between the two, and comes back
        with rsyslog(tmp_path, port, own) as written:
            while sender.send_due():
                pass
            trail.append(texts[part])
            while sender.send_due():
                pass
    lines = [WRITTEN.fullmatch(line) for line in written.read_text("utf-8").splitlines()]
    records = [line for line in lines if line is not None]
    assert [int(one["number"]) for one in records] == list(range(1, len(texts) + 1))
    assert {(one["facility"], one["severity"]) for one in records} == {("authpriv", "notice")}
    assert [one["text"].removeprefix("\ufeff") for one in records] == texts
