"""The model that is to report: whole, fit for the site, the one it says it is, and loadable."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.uid import UID

from dicom_node.base.config import Configuration
from dicom_node.base.errors import NodeError
from dicom_node.bundles import check_fits, identity_of
from dicom_node.doctor.finding import Finding, failed, ok, warning
from dicom_node.jobs.models import KnownModel
from dicom_node.jobs.registry import Registry
from dicom_node.sending.routes import hold_reason
from prima_core.base.errors import PrimaError

NAME = "model bundle"
ANOTHER = "copy the bundle again, or `dicom-node model rollback`"


def check_bundle(configuration: Configuration, registry: Registry | None, *, load: bool) -> Iterator[Finding]:
    """The active bundle. load: build the model as well, which takes its memory once more."""
    from prima_core.bundle import build_model, load_bundle

    active = registry.chosen_models().active if registry is not None else None
    folder = active.path if active is not None else configuration.model.bundle
    if folder is None:
        yield failed(NAME, "model.bundle names none", "`dicom-node model import-prima` makes one")
        return
    try:
        bundle = load_bundle(folder)
        check_fits(configuration, bundle.manifest)
        if load:
            build_model(bundle, configuration.model.device, configuration.model.precision)
    except (PrimaError, NodeError, ValueError) as error:
        yield failed(NAME, str(error), ANOTHER)
        return
    except (RuntimeError, MemoryError, OSError) as error:  # torch's, of a device that is not there or has no room
        yield failed(NAME, f"cannot be loaded ({type(error).__name__})", "look at model.device and at memory")
        return
    manifest = bundle.manifest
    if not UID(manifest.device_uid).is_valid:
        yield failed(NAME, "its device UID is no UID", ANOTHER)
    elif active is not None and _is_another(active, manifest.id, manifest.device_uid):
        yield failed(NAME, f"{folder} holds another bundle than was activated", ANOTHER)
    elif held := hold_reason(identity_of(manifest), configuration.model.allow_nonclinical):
        yield warning(NAME, f"{manifest.id}: {held}", "use a clinical bundle, or set model.allow_nonclinical")
    else:
        yield ok(NAME, f"{manifest.id} ({manifest.training_state}) is whole" + (" and loads" if load else ""))


def _is_another(active: KnownModel, bundle_id: str, device_uid: str) -> bool:
    return (active.bundle_id, active.device_uid) != (bundle_id, device_uid)
