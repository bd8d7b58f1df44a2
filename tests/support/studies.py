"""Value objects for tests of the registry, the worker and the outbox: arrivals, claims, reports."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dicom_node.base.orders import Handover
from dicom_node.base.types import Arrival, Finding, Level, ModelIdentity, Priority, Report, ToSend
from dicom_node.jobs.database import migrate
from dicom_node.jobs.registry import Registry

MR = "1.2.840.10008.5.1.4.1.1.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
MODEL = ModelIdentity("bundle", "test", "1", "2.25.1", "clinical")


def new_registry(folder: Path) -> Registry:
    """An empty registry on SQLite in a folder."""
    url = f"sqlite:///{folder / 'registry.sqlite'}"
    migrate(url)
    return Registry(url)


def arrival(number: int, *, study: str = "1.2.3", at: float = 100.0, content: str = "", **changes: object) -> Arrival:
    """The `number`-th MR image of a study; `content` stands for its bytes."""
    sop = f"{study}.1.{number}"
    digest = hashlib.sha256(f"{study}{number}{content}".encode()).hexdigest()
    values: dict[str, object] = {
        "study_instance_uid": study,
        "series_instance_uid": f"{study}.1",
        "sop_instance_uid": sop,
        "sop_class_uid": MR,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "patient_key": "p::",
        "accession_number": "",
        "digest": digest,
        "path": f"{study}/{number}.{digest[:8]}.dcm",
        "size": 10,
        "calling_ae": "PACS",
        "urgent": False,
        "image": True,
        "received_at": at,
    }
    return Arrival(**(values | changes))  # type: ignore[arg-type]


def handover(*destinations: str, path: str = "report.dcm", **changes: object) -> Handover:
    """A report for these destinations; `changes` are fields of the handover."""
    objects = tuple(ToSend(name, "sr", path) for name in destinations)
    return Handover(objects, **changes)  # type: ignore[arg-type]


def report(study: str = "1.2.3", revision: int = 1) -> Report:
    """A finished report with one finding."""
    return Report(
        sop_instance_uid=f"2.25.{revision}{len(study)}",
        series_instance_uid=f"2.25.9{revision}{len(study)}",
        sop_class_uid=SR,
        path=f"{study}.{revision}.dcm",
        findings=(Finding("tumor_adult_glioma", "393564001", "SCT", "Glioma", 1.5, False),),
        priority=Priority(Level.URGENT, "priority head: high → urgent"),
        priority_output="high",
        model=MODEL,
        precision="fp32",
        created_at=200.0,
    )
