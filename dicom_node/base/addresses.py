"""Lists of IP addresses that may connect; host names are never looked up."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AllowList:
    """The addresses that may connect; all, where none is given. Raises ValueError on what is no IP address."""

    def __init__(self, addresses: Iterable[str]) -> None:
        self._addresses = {_plain(address) for address in addresses}

    def admits(self, address: str) -> bool:
        """Whether a peer at this address may connect; IPv4 equals its IPv6-mapped form."""
        return not self._addresses or _plain(address) in self._addresses


def _plain(address: str) -> Address:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def checked_addresses(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """The same, for a configuration. Raises ValueError naming the one that is no IP address."""
    for address in addresses:
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise ValueError(f"'{address}' is not an IP address; host names are not looked up") from error
    return addresses
