"""The HL7 parts of the configuration: a destination that takes HL7 v2 over MLLP, and the node's own HL7 receiver.

Checked on construction; pydantic's ValidationError names the key. Field numbers and tables are those of HL7 v2.5.1.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from dicom_node.base.tls import ClientTls, ServerTls
from dicom_node.base.types import Level

# HL7 table 0211. UTF-16 and UTF-32 are absent: their bytes would end an MLLP block.
CharacterSet = Literal[
    "ASCII",
    "8859/1",
    "8859/2",
    "8859/3",
    "8859/4",
    "8859/5",
    "8859/6",
    "8859/7",
    "8859/8",
    "8859/9",
    "8859/15",
    "UNICODE UTF-8",
    "GB 18030-2000",
    "BIG-5",
    "KS X 1001",
    "ISO IR14",
    "ISO IR87",
    "ISO IR159",
]
IDENTITY_NAMES = frozenset(
    {
        "study_instance_uid",
        "accession_number",
        "placer_order_number",
        "filler_order_number",
        "requested_procedure_id",
        "scheduled_step_id",
        "patient_id",
        "issuer",
    }
)
TEMPLATE_NAMES = IDENTITY_NAMES | {
    "patient_name",
    "priority",
    "level",
    "rule",
    "code_value",
    "code_meaning",
    "code_scheme",
    "modality",
    "station_ae",
}
FIELD_KEY = re.compile(r"([A-Z][A-Z0-9]{2})-([1-9][0-9]?)(?:\.([1-9][0-9]?))?")
_TEMPLATE_SEGMENTS = {"MSH", "PID", "PV1", "ORC", "TQ1", "OBR", "NTE", "IPC"}
_IDENTITY_FIELDS = {"PID-3", "ORC-2", "ORC-3", "OBR-2", "OBR-3", "ZDS-1", "IPC-1", "IPC-2", "IPC-3", "IPC-4"}
_OWN_KEYS = {f"MSH-{number}" for number in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 15, 16, 18)} | {"OBR-25"}
_NAME = re.compile(r"\{(\w+)\}")
_HD = r"^[^|~\x00-\x1f\x7f]*$"  # a hierarchic designator as it stands in the message: `name^uid^ISO`
Designator = Annotated[str, StringConstraints(pattern=_HD, max_length=227)]
Code = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]{1,20}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=14400)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Hl7Destination(_Section):
    """A system that is told reading priorities or results by HL7 v2 over MLLP.

    message: ORM (ORM^O01), OMG (OMG^O19), OMI (OMI^O23) or ORU (ORU^R01). version: MSH-12; left out, 2.3.1 for ORM and
    2.5.1 for the others. character_set: MSH-18. sending_*, receiving_*: MSH-3 to MSH-6, `name^uid^ISO` allowed.
    processing_id: MSH-11. accept_acknowledgment, application_acknowledgment: MSH-15 and MSH-16, both left out for the
    original mode. priorities: the code for a level, where it is not S (critical), A (urgent, elevated) or R (routine).
    result_status: OBR-25 and OBX-11 of an ORU; a result of the node is never final. withdrawn_status: the same after
    the result was taken back. fields: site templates, e.g. `"OBR-4" = "MRHEAD^MRI Head^L"` or
    `"OBR-18" = "{accession_number}"`: what stands in a field or component instead, with `{names}` from TEMPLATE_NAMES.
    timeout_seconds: for the connection, for sending and for the answer, each. top_level_if_unknown: tell it the level
    `critical` also where the order's present priority is not known.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    kind: Literal["hl7"] = "hl7"
    host: Annotated[str, StringConstraints(min_length=1)]
    port: Port
    message: Literal["ORM", "OMG", "OMI", "ORU"] = "ORM"
    version: Literal["2.3.1", "2.4", "2.5", "2.5.1"] | None = None
    character_set: CharacterSet = "UNICODE UTF-8"
    sending_application: Designator = "PRIMA"
    sending_facility: Designator = ""
    receiving_application: Designator = ""
    receiving_facility: Designator = ""
    processing_id: Literal["P", "T", "D"] = "P"
    accept_acknowledgment: Literal["AL", "NE"] | None = None
    application_acknowledgment: Literal["AL", "NE"] | None = None
    priorities: dict[Level, Code] = Field(default_factory=dict)
    result_status: Literal["R", "P", "S"] = "R"
    withdrawn_status: Literal["W", "X"] = "W"
    fields: dict[str, str] = Field(default_factory=dict)
    tls: ClientTls | None = None
    top_level_if_unknown: bool = False
    timeout_seconds: Seconds = 30.0
    first_retry_seconds: Seconds = 5.0
    max_retry_seconds: Seconds = 600.0

    @property
    def effective_version(self) -> str:
        """MSH-12."""
        return self.version or ("2.3.1" if self.message == "ORM" else "2.5.1")

    @field_validator("fields")
    @classmethod
    def _check_fields(cls, fields: dict[str, str]) -> dict[str, str]:
        for key, template in fields.items():
            _check_template(key, template)
        return fields

    @model_validator(mode="after")
    def _check(self) -> Hl7Destination:
        if self.message in ("OMG", "OMI") and self.effective_version < "2.5":
            raise ValueError(f"version: {self.message} carries the priority in TQ1, which came with 2.5")
        asked = {self.accept_acknowledgment, self.application_acknowledgment}
        if "NE" in asked and "AL" not in asked:
            raise ValueError("accept_acknowledgment: one must be AL, or nobody says that a message arrived")
        return self


def _check_template(key: str, template: str) -> None:
    if not FIELD_KEY.fullmatch(key):
        raise ValueError(f"fields.{key}: not a field or component such as OBR-4 or OBR-4.1")
    field = key.partition(".")[0]
    if field[:3] not in _TEMPLATE_SEGMENTS and not field.startswith("Z"):
        raise ValueError(f"fields.{key}: templates fill {', '.join(sorted(_TEMPLATE_SEGMENTS))} and Z segments")
    if field in _OWN_KEYS:
        raise ValueError(f"fields.{key}: set by a key of its own or by the node")
    names = set(_NAME.findall(template))
    if unknown := names - TEMPLATE_NAMES:
        raise ValueError(
            f"fields.{key}: unknown name {{{min(unknown)}}}; known are {', '.join(sorted(TEMPLATE_NAMES))}"
        )
    if re.search(r"[{}|\x00-\x1f\x7f]", _NAME.sub("", template)):
        raise ValueError(f"fields.{key}: a template holds no '|', no control character, and braces only around names")
    if field in _IDENTITY_FIELDS and template and not names & IDENTITY_NAMES:
        raise ValueError(f"fields.{key}: says whose study it is, so it must hold one of the identifying names")


class Hl7Listener(_Section):
    """The node's own HL7 v2 receiver: orders, patient corrections, final reports. Without `port` it is off.

    peers: the IP addresses that may connect; with none, this machine alone. max_connections: of all, and of one
    address; past them the connection that has been idle for longest is closed for the new one. max_message_bytes: a
    longer message is refused and its connection closed. idle_timeout_seconds: a connection on which nothing came for so
    long is closed. message_timeout_seconds: from a message's first byte to its last. character_set: of messages whose
    MSH-18 is empty. processing_id: MSH-11 of messages that count here; others are rejected, an empty one counts.
    assigning_authority: whose patient IDs DICOM objects carry here (PID-3.4); empty: the first ID in PID-3.
    accession_number: the field that holds it in an ORM, OMG or ORU (IHE RAD-4: OBR-18); IPC-1 comes first where there
    is one.
    priorities: the site's own priority words and their levels, before S, A, R, P and T.
    """

    bind: str = "127.0.0.1"
    port: Port | None = None
    peers: tuple[str, ...] = ()
    max_connections: Annotated[int, Field(ge=1, le=1000)] = 16
    max_connections_of_one: Annotated[int, Field(ge=1, le=1000)] = 8
    max_message_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 5 << 20
    idle_timeout_seconds: Seconds = 3600.0
    message_timeout_seconds: Seconds = 60.0
    character_set: CharacterSet = "ASCII"
    processing_id: Literal["P", "T", "D"] = "P"
    assigning_authority: str = ""
    accession_number: str = "OBR-18"
    priorities: dict[str, Level] = Field(default_factory=dict)
    tls: ServerTls | None = None

    @field_validator("peers")
    @classmethod
    def _check_peers(cls, peers: tuple[str, ...]) -> tuple[str, ...]:
        for peer in peers:
            try:
                ipaddress.ip_address(peer)
            except ValueError as error:
                raise ValueError(f"'{peer}' is not an IP address; host names are not looked up") from error
        return peers

    @field_validator("accession_number")
    @classmethod
    def _check_accession_number(cls, key: str) -> str:
        if not FIELD_KEY.fullmatch(key) or not key.startswith(("OBR-", "ORC-")):
            raise ValueError("a field or component of ORC or OBR, such as OBR-18 or OBR-3.1")
        return key
