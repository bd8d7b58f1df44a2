"""Who is told a person's wish for a study that has no result yet: whom the routes will name for its result."""

from __future__ import annotations

from dicom_node.base.config import Archive, Configuration
from dicom_node.base.errors import PermanentError
from dicom_node.base.orders import Listener
from dicom_node.base.types import StudyFacts
from dicom_node.jobs.registry import Registry
from dicom_node.sending.routes import destinations_for
from dicom_node.worklist.listeners import listener_of, listeners_of
from prima_core.base.errors import PrimaError
from prima_core.volume.headers import read_headers


def listeners_for(configuration: Configuration, registry: Registry, study: str) -> tuple[Listener, ...]:
    """The destinations of reading priorities that take this study (its short id), as far as its images say now.

    Raises PermanentError where routes ask for what the images do not give.
    """
    if not configuration.routes:
        return listeners_of(configuration)
    facts = _facts(configuration, registry, study)
    routed = [configuration.destination(name) for name in destinations_for(configuration, facts)]
    return tuple(listener_of(one) for one in routed if not isinstance(one, Archive))


def _facts(configuration: Configuration, registry: Registry, study: str) -> StudyFacts:
    images = registry.current_images(study)
    try:
        known = read_headers(configuration.node.spool / image.path for image in images)
    except (OSError, PrimaError) as error:
        raise PermanentError(
            "who is told depends on the routes, and they ask for what the study's images cannot tell now"
        ) from error
    ages = [image.age_years for image in known.images if image.age_years is not None]
    senders = tuple(sorted({image.calling_ae for image in images}))
    return StudyFacts(known.study_description, min(ages, default=None), senders)
