"""Lesions by family: what each kind of finding does to a head. `LESIONS` names them as `Finding.kind` does.

A lesion is made from its finding, the case's seed (findings at one site share their place) and a generator of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from training.phantom.lesions import cyst, haemorrhage, inflammation, ischaemia, structure, surgery, trauma, tumour
from training.phantom.lesions.canvas import Canvas, Lesion
from training.phantom.types import Finding

Maker = Callable[[Finding, int, np.random.Generator], Lesion]

LESIONS: Mapping[str, Maker] = {
    maker.__name__: maker
    for maker in (
        haemorrhage.haematoma,
        haemorrhage.intraventricular_haemorrhage,
        haemorrhage.subarachnoid_haemorrhage,
        haemorrhage.subdural_haematoma,
        haemorrhage.cavernoma,
        ischaemia.territorial_infarct,
        ischaemia.lacunar_infarct,
        ischaemia.small_vessel_disease,
        inflammation.multiple_sclerosis,
        inflammation.abscess,
        tumour.high_grade_glioma,
        tumour.low_grade_glioma,
        tumour.metastasis,
        tumour.lymphoma,
        tumour.meningioma,
        tumour.schwannoma,
        tumour.pituitary_adenoma,
        cyst.arachnoid_cyst,
        cyst.colloid_cyst,
        trauma.contusion,
        trauma.diffuse_axonal_injury,
        surgery.craniotomy,
        surgery.resection_cavity,
        surgery.catheter,
        structure.cerebral_atrophy,
        structure.ventriculomegaly,
        structure.chiari_malformation,
        structure.encephalomalacia,
    )
}

__all__ = ["LESIONS", "Canvas", "Lesion", "Maker"]
