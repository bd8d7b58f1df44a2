"""Every certificate, key and authority that the configuration names, looked at once: at the start, and by people."""

from __future__ import annotations

from collections.abc import Iterator

from dicom_node.audit.trail import read_key
from dicom_node.base.config import Configuration
from dicom_node.base.tls import ClientTls, ServerTls, client_context, server_context


def check_certificates(configuration: Configuration) -> None:
    """Raises ConfigurationError naming the file that cannot be used."""
    for settings in _sections(configuration):
        if isinstance(settings, ServerTls):
            server_context(settings)
        elif settings is not None:
            client_context(settings)
    read_key(configuration.audit.key_file)


def _sections(configuration: Configuration) -> Iterator[ClientTls | ServerTls | None]:
    yield from (configuration.intake.tls, configuration.node.http_tls, configuration.hl7.tls)
    yield from (destination.tls for destination in configuration.destinations)
    yield from (subscriber.tls for subscriber in configuration.worklist.subscribers)
    if configuration.audit.syslog is not None:
        yield configuration.audit.syslog.tls
