"""The HL7 parts of the configuration: what is taken and what is an error with the key's name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dicom_node.base.hl7_settings import Hl7Destination, Hl7Listener
from support.hl7_messages import destination


def test_the_version_follows_the_message() -> None:
    assert destination(message="ORM").effective_version == "2.3.1"
    assert destination(message="OMI").effective_version == "2.5.1"
    assert destination(message="ORU", version="2.3.1").effective_version == "2.3.1"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"message": "OMG", "version": "2.3.1"}, "TQ1"),
        ({"accept_acknowledgment": "NE", "application_acknowledgment": "NE"}, "nobody says"),
        ({"accept_acknowledgment": "NE"}, "nobody says"),
        ({"application_acknowledgment": "NE"}, "nobody says"),
        ({"character_set": "UNICODE UTF-16"}, "character_set"),
        ({"result_status": "F"}, "result_status"),
        ({"sending_application": "A|B"}, "sending_application"),
        ({"priorities": {"urgent": "A^B"}}, "priorities"),
        ({"fields": {"OBR4": "x"}}, "OBR4"),
        ({"fields": {"OBR-0": "x"}}, "OBR-0"),
        ({"fields": {"OBX-11": "F"}}, "OBX-11"),
        ({"fields": {"OBR-25": "F"}}, "OBR-25"),
        ({"fields": {"MSH-10": "x"}}, "MSH-10"),
        ({"fields": {"ORC-2": "123"}}, "ORC-2"),
        ({"fields": {"ORC-2.1": "{rule}"}}, "ORC-2.1"),
        ({"fields": {"ZDS-1": "1.2.3^{priority}"}}, "ZDS-1"),
        ({"fields": {"OBR-4": "{secret}"}}, "secret"),
        ({"fields": {"OBR-4": "{rule.__class__}"}}, "braces"),
        ({"fields": {"OBR-4": "a|b"}}, "control character"),
        ({"fields": {"OBR-4": "a\rZZZ"}}, "control character"),
        ({"tls": {"private_key": "key.pem"}}, "certificate"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_destination_that_cannot_work_is_an_error(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        destination(**values)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"peers": ["ris.example"]}, "not an IP address"),
        ({"accession_number": "PID-3"}, "OBR-18"),
        ({"tls": {}}, "certificate of its own"),
        ({"priorities": {"CITO": "highest"}}, "priorities"),
    ],
)
def test_a_receiver_that_cannot_work_is_an_error(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Hl7Listener.model_validate(values)


def test_templates_may_name_an_identity_or_leave_it_out() -> None:
    fields = {"ORC-2": "{accession_number}^PRIMA", "OBR-3": "", "ZDS-1.1": "{study_instance_uid}"}
    assert isinstance(destination(fields=fields), Hl7Destination)
