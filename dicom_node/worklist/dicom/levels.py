"""A reading priority in DICOM's words: Requested Procedure Priority (0040,1003) and UPS priority (0074,1200)."""

from __future__ import annotations

from dicom_node.base.types import Level

#: PS3.3 section C.4.11, (0040,1003). ELEVATED is HIGH: MEDIUM is listed after ROUTINE and may sort below it.
REQUESTED_PROCEDURE_PRIORITY = {
    Level.CRITICAL: "STAT",
    Level.URGENT: "HIGH",
    Level.ELEVATED: "HIGH",
    Level.ROUTINE: "ROUTINE",
}
UPS_PRIORITIES = ("LOW", "MEDIUM", "HIGH")  # PS3.3 section C.30.2, (0074,1200), lowest first


def lower(one: str, other: str) -> bool:
    """Whether a UPS priority is below another. Both are of `UPS_PRIORITIES`."""
    return UPS_PRIORITIES.index(one) < UPS_PRIORITIES.index(other)
