"""The node's processes, ports and open files, whether it runs or not; and how it is called."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from dicom_node.base.config import LOOPBACK, Configuration
from dicom_node.base.disk import reserve_of
from dicom_node.console.health import EXPECTED, health_problems
from dicom_node.doctor.finding import Finding, failed, ok, warning
from dicom_node.intake.serving import CONNECTIONS_PER_ASSOCIATION
from dicom_node.jobs.registry import DATABASE_AWAY, Registry

OTHER_FILES = 256  # the registry, the console, the outbox, libraries
MUCH = 0.8
MAX_OPEN_FILES = re.compile(r"^Max open files\s+(\d+|unlimited)", re.MULTILINE)
EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - told apart, not listened on


def is_running(configuration: Configuration) -> bool:
    """Whether this node holds its lock; of several each has one, as the storage's is common to them."""
    name = configuration.node.name
    try:
        with (configuration.node.storage / (".lock" if name is None else f".lock-{name}")).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def check_processes(configuration: Configuration, registry: Registry | None, *, running: bool) -> Iterator[Finding]:
    """What `/healthz` says."""
    if running and registry is None:
        yield failed("node", "runs, and its registry does not answer", "see `database`")
        return
    if registry is None or not running:
        yield warning("node", "does not run", "start it: `dicom-node serve`, or systemctl start prima-node")
        return
    problems = health_problems(registry, time.time(), configuration.node, reserve_of(configuration))
    for problem in problems:
        yield failed("node", problem, "see the log; the runbook says what its events mean")
    if not problems:
        yield ok("node", "runs, and every process is ready")


def check_ports(configuration: Configuration, *, running: bool) -> Iterator[Finding]:
    """That the node listens; or, while it does not run, that it will be able to."""
    node, hl7 = configuration.node, configuration.hl7
    ports = {"node.port": (node.bind, node.port), "node.http_port": (node.http_bind, node.http_port)}
    if hl7.port is not None:
        ports["hl7.port"] = (hl7.bind, hl7.port)
    for key, (host, port) in ports.items():
        what = f"{key} {port}"
        try:
            _connect(host, port) if running else _bind(host, port)
        except OSError as error:
            words = "nobody listens" if running else "cannot be listened on"
            todo = "see the log of the node" if running else "stop who uses it, or choose another"
            yield failed(what, f"{words} ({error.strerror or type(error).__name__})", todo)
        else:
            yield ok(what, "listens" if running else "free")


def check_titles(configuration: Configuration) -> Iterator[Finding]:
    """AE titles: who may send, and whether the node would send to itself."""
    what, title = "AE titles", configuration.node.ae_title
    findings = []
    if anywhere := [peer.ae_title for peer in configuration.intake.peers if not (peer.address or peer.certificate)]:
        words = f"whoever calls itself {', '.join(anywhere)} may send, from any address"
        findings.append(warning(what, words, "give [[intake.peers]] their address or certificate"))
    for one in configuration.destinations:
        same_port = getattr(one, "port", None) == configuration.node.port
        if same_port and getattr(one, "ae_title", None) == title and getattr(one, "host", "") in LOOPBACK:
            findings.append(failed(what, f"destination {one.name} is the node itself", "put the archive's there"))
    yield from findings or [ok(what, f"the node is {title}, {len(configuration.intake.peers)} may send")]


def check_limits(configuration: Configuration, registry: Registry | None, *, running: bool) -> Iterator[Finding]:
    """Open files: what the processes may have against what they may need, and have."""
    needed = CONNECTIONS_PER_ASSOCIATION * configuration.intake.max_associations + OTHER_FILES
    todo = f"raise it (LimitNOFILE in the systemd unit, ulimit -n) to {2 * needed}"
    mine = [configuration.node.process(role) for role in EXPECTED]  # others' may run on other machines
    try:
        known = registry.processes() if running and registry is not None else []
        pids = {one.name: one.pid for one in known if one.name in mine}
    except DATABASE_AWAY:
        pids = {}
    receiver = configuration.node.process("receiver")
    helpers = [(f"{receiver}'s helper {pid}", pid) for pid in _children_of(pids.get(receiver))]
    for name, pid in [*pids.items(), *helpers]:
        what = f"open files of the {name}"
        limit, used = _files_of(pid)
        if limit is None or used is None:
            yield warning(what, "cannot be looked at", "run this as the node's user or as root, on its machine")
        elif used > MUCH * limit or limit < needed:
            yield warning(what, f"{used} of at most {limit}", todo)
        else:
            yield ok(what, f"{used} of at most {limit}")
    if not pids:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        here = f"{limit} for this shell"
        yield ok("open files", here) if limit >= needed else warning("open files", here, todo)


def _children_of(pid: int | None) -> list[int]:
    """The processes that a process started; none where this user may not know."""
    found: list[int] = []
    with suppress(OSError):  # it ended meanwhile
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in children.read_text(encoding="ascii").split()]
    return sorted(found)


def _files_of(pid: int) -> tuple[int | None, int | None]:
    """How many files a process may have open, and has; None where this user may not know."""
    try:
        found = MAX_OPEN_FILES.search(Path(f"/proc/{pid}/limits").read_text(encoding="ascii"))
        used = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None, None
    if found is None:
        return None, used
    return (1 << 30 if found[1] == "unlimited" else int(found[1])), used


def _connect(host: str, port: int) -> None:
    with closing(socket.create_connection(("127.0.0.1" if host in EVERYWHERE else host, port), 5.0)):
        pass


def _bind(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.create_server((host, port), family=family)):
        pass
