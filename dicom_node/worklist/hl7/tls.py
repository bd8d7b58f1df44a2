"""TLS contexts for MLLP connections, from the certificates that the site names."""

from __future__ import annotations

import ssl

from dicom_node.base.errors import ConfigurationError
from dicom_node.base.hl7_settings import Hl7Tls


def client_context(settings: Hl7Tls) -> ssl.SSLContext:
    """For a destination: its certificate and its name are checked. Raises ConfigurationError on unusable files."""
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=settings.ca_file)
        _load_own(context, settings)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"tls: a certificate or key cannot be used ({type(error).__name__})") from error
    return context


def server_context(settings: Hl7Tls) -> ssl.SSLContext:
    """For the receiver: with a ca_file, clients need a certificate too. Raises ConfigurationError on unusable files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        _load_own(context, settings)
        if settings.ca_file is not None:
            context.load_verify_locations(settings.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"tls: a certificate or key cannot be used ({type(error).__name__})") from error
    return context


def _load_own(context: ssl.SSLContext, settings: Hl7Tls) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.certificate is not None:
        context.load_cert_chain(settings.certificate, settings.private_key)
