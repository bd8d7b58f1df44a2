"""The audit trail's part of the configuration: what is recorded of patients, how it is protected, where it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from dicom_node.base.tls import ClientTls


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Syslog(_Section):
    """A syslog server (RFC 5424) that is sent every record, over TLS (RFC 5425) or UDP (RFC 5426), which may lose some.

    tls: left out under transport "tls", the system's authorities and no certificate of the node's own.
    """

    host: Annotated[str, StringConstraints(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)] = 6514
    transport: Literal["tls", "udp"] = "tls"
    tls: ClientTls | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0

    @model_validator(mode="after")
    def _check(self) -> Syslog:
        if self.transport == "udp" and self.tls is not None:
            raise ValueError("tls: there is none over UDP")
        return self


class AuditSection(_Section):
    """patients: a pseudonym of the Patient ID that only this node's key leads back from, or the Patient ID itself.

    key_file: a key of at least 32 bytes; with it nobody who lacks it can write a chain that verifies. max_bytes: of one
    file, which also ends with its day (UTC). site: AuditEnterpriseSiteID.
    """

    enabled: bool = True
    patients: Literal["pseudonym", "id"] = "pseudonym"
    key_file: Path | None = None
    max_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 30)] = 16 << 20
    site: Annotated[str, StringConstraints(max_length=64, pattern=r"^[ -~]*$")] = ""
    syslog: Syslog | None = None
