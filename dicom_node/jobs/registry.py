"""The only owner of study state: SQLite by default, PostgreSQL by URL, the same code.

`arrivals.py` is what the receiver tells it, `orders.py` what HL7 messages tell, `queue.py` what the worker asks,
`study_records.py` reads what a study's reading priority rests on, `flags.py` decides what is told whom, `deliveries.py`
is the outbox, `commitments.py` what destinations say that they keep, `retries.py` what people ask for, `views.py`,
`images.py`, `reading_list.py` and `report_texts.py` what they read, `versions.py` and `revisions.py` judge images that
were corrected or rejected, `rejections.py` applies rejection notes, `withdrawals.py` takes results back, `workitems.py`
keeps Unified Procedure Steps, `models.py` says which bundles are in use, `objective.py` how soon flags came,
`explanations.py` what is to be explained, `provenance.py` where results came from; `pruning.py` deletes what is
outdated, `cleaning.py` says which files may go, `soundness.py` whether the database is well. Each write is one
transaction; each change of state is guarded and leaves an event (`transitions.py`).
"""

from __future__ import annotations

from dicom_node.jobs.arrivals import ArrivalBook
from dicom_node.jobs.cleaning import CleaningBook
from dicom_node.jobs.commitments import CommitmentBook
from dicom_node.jobs.database import DATABASE_AWAY
from dicom_node.jobs.explanations import ExplanationBook
from dicom_node.jobs.images import ImageBook
from dicom_node.jobs.models import ModelBook
from dicom_node.jobs.objective import FlagObjective
from dicom_node.jobs.processes import ProcessBook
from dicom_node.jobs.provenance import ProvenanceBook
from dicom_node.jobs.pruning import Pruning
from dicom_node.jobs.queue import StudyQueue
from dicom_node.jobs.reading_list import FlagTimes, ReadingList
from dicom_node.jobs.rejections import RejectionBook
from dicom_node.jobs.report_texts import ReportTexts
from dicom_node.jobs.retries import Retries
from dicom_node.jobs.soundness import Soundness
from dicom_node.jobs.views import Views
from dicom_node.jobs.workitems import WorkitemBook

__all__ = ["DATABASE_AWAY", "FlagTimes", "Registry"]


class Registry(
    ArrivalBook,
    RejectionBook,
    StudyQueue,
    CommitmentBook,
    Retries,
    ReadingList,
    ReportTexts,
    WorkitemBook,
    ProcessBook,
    ModelBook,
    ImageBook,
    ExplanationBook,
    FlagObjective,
    ProvenanceBook,
    Pruning,
    CleaningBook,
    Soundness,
    Views,
):
    """Everything the node knows about its studies, by database URL.

    Every method may raise one of `DATABASE_AWAY` while the database cannot be reached or is busy.
    """
