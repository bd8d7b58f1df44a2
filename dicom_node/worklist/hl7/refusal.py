"""Why a message is not accepted, in the words that its sender gets (HL7 v2.5.1 chapter 2.9 and table 0357)."""

from __future__ import annotations

import enum

from dicom_node.base.errors import PermanentError


class Condition(enum.IntEnum):
    """Message error condition codes, table 0357."""

    SEGMENT_SEQUENCE_ERROR = 100
    REQUIRED_FIELD_MISSING = 101
    DATA_TYPE_ERROR = 102
    TABLE_VALUE_NOT_FOUND = 103
    UNSUPPORTED_MESSAGE_TYPE = 200
    UNSUPPORTED_EVENT_CODE = 201
    UNSUPPORTED_PROCESSING_ID = 202
    UNSUPPORTED_VERSION_ID = 203
    UNKNOWN_KEY_IDENTIFIER = 204
    APPLICATION_INTERNAL_ERROR = 207

    @property
    def words(self) -> str:
        """The table's description."""
        return self.name.capitalize().replace("_", " ")


REJECTED = {
    Condition.UNSUPPORTED_MESSAGE_TYPE,
    Condition.UNSUPPORTED_EVENT_CODE,
    Condition.UNSUPPORTED_PROCESSING_ID,
    Condition.UNSUPPORTED_VERSION_ID,
}


class Refused(PermanentError):
    """The message is malformed, or asks for what the node does not do. Words: ASCII, no values from the message."""

    def __init__(self, condition: Condition, reason: str) -> None:
        super().__init__(reason)
        self.condition = condition

    @property
    def code(self) -> str:
        """AR for a type, event, processing ID or version that is not for this node; AE for anything else (2.9.2.2)."""
        return "AR" if self.condition in REJECTED else "AE"
