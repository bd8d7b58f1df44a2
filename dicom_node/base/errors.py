"""One error base. Every error says whether trying again can help; nothing else drives a retry."""

from __future__ import annotations


class NodeError(Exception):
    """Base of all errors the node raises on purpose. Messages hold no patient data and say what to do next."""

    retriable = False


class RetriableError(NodeError):
    """The same work may succeed later: a peer is down, the disk is full, the database is busy."""

    retriable = True


class PermanentError(NodeError):
    """The same work gives the same error: a person or another input is needed."""


class ConfigurationError(PermanentError):
    """The configuration file is missing, malformed or contradicts itself; the message names the key."""


class PeerUnreachable(RetriableError):
    """No association: nobody listens, the network is down, or the peer refused the connection for now."""


class PeerBusy(RetriableError):
    """The peer answered that it cannot take the object now (out of resources, 0xA7xx)."""


class PeerRefused(PermanentError):
    """The peer refused the object or the association for good; only a person can change that."""


class NotCommitted(RetriableError):
    """The peer stored the object and does not say that it keeps it: it is stored again, a limited number of times."""


class DiskFull(RetriableError):
    """The bytes could not be made durable; nothing half-written stays."""


class ImagesGone(RetriableError):
    """Files of the study are missing from the spool; what is left is run at the next attempt and called partial."""


class NotDicom(PermanentError):
    """The object cannot be read as DICOM, or lacks the identifiers that every instance must have."""


class ReportError(PermanentError):
    """No valid report can be written for this study; the message says which attribute stands in the way."""


class Stopped(RetriableError):
    """The node stops; what was being done goes back to the queue."""


class LostClaim(PermanentError):
    """Somebody else owns the work by now, or the study changed under it; the result must be thrown away."""
