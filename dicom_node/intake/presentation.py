"""What the node negotiates: every storage SOP class, and every transfer syntax that it can decode later."""

from __future__ import annotations

from pynetdicom import AllStoragePresentationContexts, build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import register_uid

from pydicom.uid import (  # isort: skip
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2K,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

VERIFICATION = "1.2.840.10008.1.1"

#: In the node's order of preference: of several proposed in one context the first here is accepted.
TRANSFER_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSNearLossless,
    JPEG2000,
    HTJ2K,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)

#: Storage SOP classes that pynetdicom does not list: retired ones (PS3.6 A.1) and those that MR scanners send beside
#: images. They are kept and set aside like every other object that is not an MR image; refusing them fails the study
#: at the sender.
FURTHER_STORAGE_CLASSES = {
    "1.2.840.10008.5.1.1.27": "StoredPrintStorage",
    "1.2.840.10008.5.1.1.29": "HardcopyGrayscaleImageStorage",
    "1.2.840.10008.5.1.1.30": "HardcopyColorImageStorage",
    "1.2.840.10008.5.1.4.1.1.3": "UltrasoundMultiFrameImageStorageRetired",
    "1.2.840.10008.5.1.4.1.1.5": "NuclearMedicineImageStorageRetired",
    "1.2.840.10008.5.1.4.1.1.6": "UltrasoundImageStorageRetired",
    "1.2.840.10008.5.1.4.1.1.8": "StandaloneOverlayStorage",
    "1.2.840.10008.5.1.4.1.1.9": "StandaloneCurveStorage",
    "1.2.840.10008.5.1.4.1.1.9.1": "WaveformStorageTrial",
    "1.2.840.10008.5.1.4.1.1.10": "StandaloneModalityLUTStorage",
    "1.2.840.10008.5.1.4.1.1.11": "StandaloneVOILUTStorage",
    "1.2.840.10008.5.1.4.1.1.12.3": "XRayAngiographicBiPlaneImageStorage",
    "1.2.840.10008.5.1.4.1.1.77.1": "VLImageStorageTrial",
    "1.2.840.10008.5.1.4.1.1.77.2": "VLMultiFrameImageStorageTrial",
    "1.2.840.10008.5.1.4.1.1.88.1": "TextSRStorageTrial",
    "1.2.840.10008.5.1.4.1.1.88.2": "AudioSRStorageTrial",
    "1.2.840.10008.5.1.4.1.1.88.3": "DetailSRStorageTrial",
    "1.2.840.10008.5.1.4.1.1.88.4": "ComprehensiveSRStorageTrial",
    "1.2.840.10008.5.1.4.1.1.129": "StandalonePETCurveStorage",
    "1.2.840.10008.5.1.4.34.1": "RTBeamsDeliveryInstructionStorageTrial",
    "1.3.12.2.1107.5.9.1": "SiemensCSANonImageStorage",
    "1.3.46.670589.2.3.1.1": "PhilipsPrivateVolumeStorage",
    "1.3.46.670589.11.0.0.12.1": "PhilipsPrivateMRSpectrumStorage",
    "1.3.46.670589.11.0.0.12.2": "PhilipsPrivateMRSeriesDataStorage",
    "1.3.46.670589.11.0.0.12.4": "PhilipsPrivateMRExamcardStorage",
    "1.2.840.113619.4.27": "GEPrivate3DModelStorage",
    "1.2.840.113619.4.26": "GEPrivateCollageStorage",
}


def supported_contexts() -> list[PresentationContext]:
    """Verification and every storage SOP class, each with every syntax of `TRANSFER_SYNTAXES`."""
    for uid, keyword in FURTHER_STORAGE_CLASSES.items():
        register_uid(uid, keyword, StorageServiceClass)
    return [build_context(uid, list(TRANSFER_SYNTAXES)) for uid in [VERIFICATION, *storage_classes()]]


def storage_classes() -> list[str]:
    """Every storage SOP class that the node takes."""
    known = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    return list(dict.fromkeys([*known, *FURTHER_STORAGE_CLASSES]))


class Contexts(list[PresentationContext]):
    """Presentation contexts that are quick to copy: pynetdicom makes a deep copy for every association.

    The copies share their lists of transfer syntaxes, which negotiation reads only.
    """

    def __deepcopy__(self, _memo: object) -> Contexts:
        return Contexts(map(_copied, self))


def _copied(context: PresentationContext) -> PresentationContext:
    # As `copy.copy`, which takes ten times longer: for 200 of them longer than the rest of an association's beginning.
    made = object.__new__(type(context))
    made.__dict__.update(context.__dict__)
    return made
