"""A simulated study → its kept patches, without DICOM files in between: to the bit those that reading files gives.

Only the images' UIDs are missing, as there are no images.
"""

from __future__ import annotations

import numpy as np

from prima_core.base.types import PreparedSeries, PreparedStudy
from prima_core.names import series_name
from prima_core.prepare import prepare_volume
from prima_core.scope import ScopeSettings
from prima_core.volume.geometry import Placement, to_volume
from training.phantom.dicom import stored_orientation, stored_position
from training.phantom.priority import judge, level
from training.phantom.study import Simulation
from training.phantom.types import Acquisition, Head
from training.prepare.finding_map import FindingMap


def prepared(found: Simulation) -> PreparedStudy:
    """The study as `prima_core.prepare.prepare_study` reads it, all series or none. Raises UnusableSeries."""
    most = ScopeSettings().max_kept_tokens
    series = tuple(
        _series(acquisition, found.facts.uid("series", number), most)
        for number, acquisition in enumerate(found.acquisitions, start=1)
    )
    return PreparedStudy(
        study_instance_uid=found.facts.study_instance_uid,
        description=found.protocol.study_description,
        series=series,
        age_years=float(int(found.facts.age_years)),
    )


def finding_map(head: Head) -> FindingMap:
    """Where the head's findings lie, and which of them are the reason for the study's priority."""
    priority = judge(head.case).priority
    return FindingMap(
        voxels=head.lesion,
        affine=head.affine[:, [2, 1, 0, 3]],  # the head's takes (x, y, z)
        labels=tuple(
            finding.diagnoses + ((priority,) if level(finding) == priority else ()) for finding in head.case.findings
        ),
    )


def _series(acquisition: Acquisition, uid: str, most: int) -> PreparedSeries:
    plan, positions = acquisition.plan, acquisition.positions
    place = Placement(
        stored_position(positions[0]),
        stored_position(positions[-1]),
        stored_orientation(acquisition.orientation),
        (plan.pixel_mm, plan.pixel_mm),
    )
    # 16 bits unsigned do not fit into 16 bits signed.
    volume = to_volume(acquisition.voxels.astype(np.int32), place)
    return prepare_volume(volume, uid, series_name(plan.description, plan.protocol_name, uid), most)
