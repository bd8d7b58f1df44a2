"""Whether every destination can be reached, as the node reaches it; nothing is sent but a question."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.base.config import AnyDestination, Configuration, Destination, StowDestination, UpsDestination
from dicom_node.base.errors import ConfigurationError, NodeError, PeerRefused, PeerUnreachable
from dicom_node.doctor.finding import Finding, failed, ok, warning
from dicom_node.sending import requestor
from dicom_node.sending.stow import StowUser
from dicom_node.worklist.dicom import requestor as worklist_requestor
from dicom_node.worklist.hl7.sender import MllpSender

AT_ONCE = 8
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


def check_peers(configuration: Configuration) -> Iterator[Finding]:
    """One finding a destination, several asked at once."""
    if not configuration.destinations:
        yield warning("destinations", "the configuration names none: results stay here", "add [[destinations]]")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(partial(_reach, configuration), configuration.destinations)


def _reach(configuration: Configuration, destination: AnyDestination) -> Finding:
    what = f"destination {destination.name} ({destination.kind})"
    try:
        said = _ask(configuration, destination)
    except PeerUnreachable as error:
        return failed(what, str(error), "is it on, and are host, port and certificates right? Results wait for it")
    except (PeerRefused, ConfigurationError) as error:
        return failed(what, str(error), "have its administrator allow the node; see the destination's settings")
    except NodeError as error:
        return warning(what, str(error), "look again later")
    return ok(what, said)


def _ask(configuration: Configuration, destination: AnyDestination) -> str:
    """Raises NodeError."""
    title, outgoing = configuration.node.ae_title, configuration.node.outgoing
    if isinstance(destination, Destination):
        with requestor.associated(destination, title, [(str(Verification), SYNTAXES)]) as association:
            return _echo(association)
    if isinstance(destination, UpsDestination):
        with worklist_requestor.associated(destination, title, [str(Verification)]) as association:
            return _echo(association)
    if isinstance(destination, StowDestination):
        return StowUser(destination, outgoing).reach()
    sender = MllpSender(destination)
    sender.reach()
    sender.close()
    return "takes the connection"


def _echo(association: Association) -> str:
    """C-ECHO (PS3.4 Annex A). Raises PeerUnreachable or PeerRefused."""
    try:
        status = association.send_c_echo()
    except RuntimeError as error:  # pynetdicom's word for an association that ended since
        raise PeerUnreachable("the peer ended the association before it was asked") from error
    if "Status" not in status:
        raise PeerUnreachable("the peer gave no answer to the C-ECHO")
    if status.Status != 0x0000:
        raise PeerRefused(f"the peer refused the C-ECHO (status 0x{status.Status:04X})")
    return "answers the C-ECHO"
