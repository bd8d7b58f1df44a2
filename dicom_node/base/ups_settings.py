"""How the worklist talks to peers by Unified Procedure Step: where they are, and what they are told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from dicom_node.base.tls import ClientTls
from dicom_node.base.types import Level

Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=r"^[ -\[\]-~]*$")]
Priority = Literal["LOW", "MEDIUM", "HIGH"]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
DEFAULT_PRIORITIES: dict[Level, Priority] = {
    Level.CRITICAL: "HIGH",
    Level.URGENT: "HIGH",
    Level.ELEVATED: "MEDIUM",
    Level.ROUTINE: "LOW",
}


class UpsSection(BaseModel):
    """A table of the configuration: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Subscriber(UpsSection):
    """An AE that can be called: one that gets UPS events, or the worklist manager."""

    ae_title: Title
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    calling_ae_title: Title | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=14400)] = 30.0
    tls: ClientTls | None = None


class Code(UpsSection):
    """A coded concept (PS3.3 section 8.8)."""

    value: Annotated[str, StringConstraints(min_length=1, max_length=16)]
    scheme: Annotated[str, StringConstraints(min_length=1, max_length=16)]
    meaning: Text


class UpsSettings(Subscriber):
    """A worklist manager that is told reading priorities (PS3.4 annex CC, as SCU).

    priorities: what (0074,1200) each level is. workitem: what kind of step is created, and which one is meant where a
    study has several. create: make a step where there is none. top_level_if_unknown: with no priority at the peer to
    compare with, send the level `critical` all the same. retrieve_ae_title: where the images are; by default at the
    worklist manager's own AE.
    """

    priorities: dict[Level, Priority] = Field(default_factory=lambda: dict(DEFAULT_PRIORITIES))
    label: Text = "Read study"
    worklist_label: Text = "Reading"
    workitem: Code = Code(value="110005", scheme="DCM", meaning="Interpretation")
    create: bool = True
    top_level_if_unknown: bool = False
    retrieve_ae_title: Title | None = None
