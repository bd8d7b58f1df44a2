"""The only owner of study state: SQLite by default, PostgreSQL by URL, the same code.

`arrivals.py` is what the receiver tells it, `queue.py` what the worker asks, `deliveries.py` the outbox, `retries.py`
what people ask for, `views.py` what they read. Each write is one transaction; each change of state is guarded and
leaves an event (`transitions.py`).
"""

from __future__ import annotations

from dicom_node.jobs.arrivals import ArrivalBook
from dicom_node.jobs.database import DATABASE_AWAY
from dicom_node.jobs.deliveries import DeliveryBook
from dicom_node.jobs.processes import ProcessBook
from dicom_node.jobs.queue import StudyQueue
from dicom_node.jobs.retries import Retries
from dicom_node.jobs.views import Views

__all__ = ["DATABASE_AWAY", "Registry"]


class Registry(ArrivalBook, StudyQueue, DeliveryBook, Retries, ProcessBook, Views):
    """Everything the node knows about its studies, by database URL.

    Every method may raise one of `DATABASE_AWAY` while the database cannot be reached or is busy.
    """
