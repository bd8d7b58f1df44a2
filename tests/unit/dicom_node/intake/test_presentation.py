"""What is negotiated can be decoded: one image of every compressed syntax for which an encoder or a sample exists here.

The HTJ2K sample is a synthetic 16 × 16 ramp encoded with OpenJPH; what DCMTK alone can encode (JPEG) is decoded in the
integration tests.
"""

from __future__ import annotations

import base64

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    EnhancedMRImageStorage,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from dicom_node.intake.presentation import FURTHER_STORAGE_CLASSES, TRANSFER_SYNTAXES, supported_contexts
from support.dicom_factory import StudyFacts, head_phantom, mr_slices

COMPRESSED = [uid for uid in TRANSFER_SYNTAXES if uid.is_encapsulated]
RAMP = (np.arange(256, dtype=np.uint16).reshape(16, 16) * 13) % 4096
RAMP_HTJ2K = base64.b64decode(
    "/0//UQApQAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQ"
    "kJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAH0AAf+TwAAmGfgFB3QAAMAAEsAAEwDsAQd0ANj+Awd0AMAAE0AA"
    "E4A0/QCCdABoR/sAo1QAwAAVEAAFWBhj/KpwAnUApps2bfrAQgHstgDAACsgABaQiIiIiOfAp6enwngAnj09PT09PT39jGB79jGB7LoA/9k="
)


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda uid: uid.name)
def test_every_compressed_syntax_that_is_accepted_has_a_decoder_installed(syntax: str) -> None:
    assert get_decoder(syntax).is_available


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K], ids=lambda uid: uid.name)
def test_high_throughput_jpeg_2000_is_decoded_exactly(syntax: str) -> None:
    image = mr_slices(RAMP[None], StudyFacts())[0]
    image.PixelData = encapsulate([RAMP_HTJ2K])
    image["PixelData"].VR = "OB"
    image.file_meta.TransferSyntaxUID = syntax
    assert np.array_equal(image.pixel_array, RAMP)


@pytest.mark.parametrize(
    ("syntax", "options", "error"),
    [
        (RLELossless, {}, 0),
        (JPEGLSLossless, {}, 0),
        (JPEGLSNearLossless, {"jls_error": 2}, 2),
        (JPEG2000Lossless, {}, 0),
        (JPEG2000, {"j2k_psnr": [80]}, 20),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_can_be_encoded_here_is_decoded(syntax: str, options: dict[str, object], error: int) -> None:
    image = mr_slices(head_phantom(1), StudyFacts())[0]
    original = image.pixel_array.astype(int)
    image.compress(syntax, generate_instance_uid=False, **options)
    assert image.file_meta.TransferSyntaxUID == syntax
    assert np.abs(image.pixel_array.astype(int) - original).max() <= error


def test_every_storage_class_is_offered_once_with_every_syntax() -> None:
    contexts = supported_contexts()
    classes = [str(context.abstract_syntax) for context in contexts]
    assert len(set(classes)) == len(classes)
    expected = {"1.2.840.10008.1.1", MRImageStorage, EnhancedMRImageStorage, SecondaryCaptureImageStorage}
    assert expected | set(FURTHER_STORAGE_CLASSES) <= set(classes)
    assert all(context.transfer_syntax == list(TRANSFER_SYNTAXES) for context in contexts)
