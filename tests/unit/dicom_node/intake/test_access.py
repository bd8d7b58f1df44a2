"""Who gets an association: AE titles and addresses, loopback only without peers, reasons by PS3.8 9.3.4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicom_node.base.config import configuration_from
from dicom_node.base.errors import ConfigurationError
from dicom_node.intake.access import AccessRule


def rule(**intake: Any) -> AccessRule:
    return AccessRule(configuration_from({"node": {"ae_title": "NODE"}, "intake": intake}, Path("/nowhere")))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_without_peers_this_machine_may_send_under_any_title(address: str) -> None:
    assert rule().rejection("ANYBODY", address, "NODE") is None


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7", "fe80::1%eth0"])
def test_without_peers_nobody_else_may_send(address: str) -> None:
    rejection = rule().rejection("ANYBODY", address, "NODE")
    assert rejection is not None
    assert (rejection.result, rejection.source, rejection.diagnostic) == (1, 1, 3)


def test_with_peers_even_this_machine_must_be_listed() -> None:
    peers = [{"ae_title": "PACS", "address": "192.0.2.7"}]
    assert rule(peers=peers).rejection("PACS", "192.0.2.7", "NODE") is None
    assert rule(peers=peers).rejection("PACS", "127.0.0.1", "NODE") is not None
    assert rule(peers=peers).rejection("OTHER", "192.0.2.7", "NODE") is not None


def test_a_peer_without_address_may_come_from_anywhere() -> None:
    assert rule(peers=[{"ae_title": "PACS"}]).rejection("PACS", "198.51.100.1", "NODE") is None


def test_padding_of_titles_and_spelling_of_addresses_make_no_difference() -> None:
    access = rule(peers=[{"ae_title": "PACS", "address": "192.0.2.7"}])
    assert access.rejection("PACS      ", "::ffff:192.0.2.7", "NODE            ") is None
    v6 = rule(peers=[{"ae_title": "PACS", "address": "2001:db8:0:0::7"}])
    assert v6.rejection("PACS", "2001:db8::7", "NODE") is None


def test_titles_are_case_sensitive() -> None:
    assert rule(peers=[{"ae_title": "PACS"}]).rejection("pacs", "192.0.2.7", "NODE") is not None


def test_a_wrong_called_title_is_refused_as_such_unless_the_site_does_not_mind() -> None:
    rejection = rule().rejection("ANYBODY", "127.0.0.1", "OTHER")
    assert rejection is not None
    assert (rejection.result, rejection.source, rejection.diagnostic) == (1, 1, 7)
    assert rule(require_called_ae_title=False).rejection("ANYBODY", "127.0.0.1", "OTHER") is None


def test_a_peer_address_must_be_an_ip_address() -> None:
    with pytest.raises(ConfigurationError, match=r"intake\.peers"):
        rule(peers=[{"ae_title": "PACS", "address": "pacs.example.org"}])
    assert rule(peers=[{"ae_title": "PACS", "address": "localhost"}]).rejection("PACS", "::1", "NODE") is None
