"""The only owner of study state: SQLite by default, PostgreSQL by URL, the same code.

`arrivals.py` is what the receiver tells it, `queue.py` what the worker asks, `deliveries.py` the outbox, `views.py`
what people read. Each write is one transaction; each change of state is guarded and leaves an event (`transitions.py`).
"""

from __future__ import annotations

from dicom_node.jobs.arrivals import ArrivalBook
from dicom_node.jobs.deliveries import DeliveryBook
from dicom_node.jobs.processes import ProcessBook
from dicom_node.jobs.queue import StudyQueue
from dicom_node.jobs.views import Views


class Registry(ArrivalBook, StudyQueue, DeliveryBook, ProcessBook, Views):
    """Everything the node knows about its studies, by database URL.

    Every method may raise `sqlalchemy.exc.OperationalError` while the database cannot be reached or is busy.
    """
