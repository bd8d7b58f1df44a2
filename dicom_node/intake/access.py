"""Who may send what: the answer to an association request, before anything else is read from the peer."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from dicom_node.base.config import LOOPBACK, Configuration, Destination, Peer
from dicom_node.base.errors import ConfigurationError
from dicom_node.base.tls import Certificate

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Rejection:
    """Result, source and reason/diagnostic of an A-ASSOCIATE-RJ (PS3.8 9.3.4), and words for the log."""

    result: int
    source: int
    diagnostic: int
    words: str


NO_REASON = Rejection(0x01, 0x01, 0x01, "request could not be judged")
CALLING_UNKNOWN = Rejection(0x01, 0x01, 0x03, "calling AE title and address are not in intake.peers")
NOT_LOOPBACK = Rejection(0x01, 0x01, 0x03, "intake.peers is empty: only this machine may send")
OTHER_CERTIFICATE = Rejection(0x01, 0x01, 0x03, "calling AE title does not go with the certificate that was shown")
CALLED_UNKNOWN = Rejection(0x01, 0x01, 0x07, "called AE title is not node.ae_title")
LIMIT_EXCEEDED = Rejection(0x02, 0x03, 0x02, "intake.max_associations reached")
NO_ANSWER = Rejection(0x02, 0x03, 0x01, "the receiver does not say whether there is a place")
NO_PLACE_ANY_MORE = Rejection(0x02, 0x03, 0x01, "the node stops")
LIMIT_OF_ONE_EXCEEDED = Rejection(0x02, 0x03, 0x02, "intake.max_associations_of_one reached by this AE title")


@dataclass(frozen=True)
class _Known:
    title: str
    address: Address | None
    certificate: str | None


class AccessRule:
    """Accepts a peer by calling AE title, IP address and certificate; with no peers configured, this machine alone.

    Raises ConfigurationError on construction when a peer's address is not an IP address.
    """

    def __init__(self, configuration: Configuration) -> None:
        # An archive answers storage commitment to the AE title that asked it.
        committing = (
            one for one in configuration.destinations if isinstance(one, Destination) and one.storage_commitment
        )
        own, peers = configuration.node.ae_title, configuration.intake.peers
        self._ae_titles = {title.strip() for title in (own, *(one.calling_ae_title or own for one in committing))}
        self._check_called = configuration.intake.require_called_ae_title
        self._peers = [_Known(peer.ae_title.strip(), _configured_address(peer), peer.certificate) for peer in peers]

    def rejection(
        self, calling_ae: str, address: str, called_ae: str, shown: Certificate | None = None
    ) -> Rejection | None:
        """None to accept. AE titles compare without padding (PS3.5 6.2), IPv4 equals its IPv6-mapped form.

        shown: the certificate of a peer under TLS, which an authority of the site vouched for.
        """
        if self._check_called and called_ae.strip() not in self._ae_titles:
            return CALLED_UNKNOWN
        source = _plain(ipaddress.ip_address(address.partition("%")[0]))
        if not self._peers:
            return None if source.is_loopback else NOT_LOOPBACK
        known = [one for one in self._peers if one.title == calling_ae.strip() and one.address in (None, source)]
        if not known:
            return CALLING_UNKNOWN
        return None if any(self._goes_with(one, shown) for one in known) else OTHER_CERTIFICATE

    def _goes_with(self, peer: _Known, shown: Certificate | None) -> bool:
        """A peer shows the certificate that it is bound to; one that is bound to none, one that nobody is bound to."""
        if peer.certificate is not None:
            return shown is not None and shown.fits(peer.certificate)
        taken = (one.certificate for one in self._peers if one.certificate is not None)
        return shown is None or not any(shown.fits(certificate) for certificate in taken)


def _configured_address(peer: Peer) -> Address | None:
    if peer.address is None:
        return None
    try:
        return _plain(ipaddress.ip_address("127.0.0.1" if peer.address in LOOPBACK else peer.address))
    except ValueError as error:
        raise ConfigurationError(f"intake.peers: '{peer.address}' is not an IP address") from error


def _plain(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is not None:
        return mapped
    # One name for this machine, whichever protocol the connection took.
    return ipaddress.IPv4Address("127.0.0.1") if address == ipaddress.IPv6Address("::1") else address
