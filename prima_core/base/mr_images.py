"""The SOP classes of MR images (PS3.4 annex B.5): what a study is made of, for intake, model and report alike."""

from __future__ import annotations

from pydicom.uid import EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, MRImageStorage

ENHANCED = frozenset({EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage})
MR_IMAGES = frozenset({MRImageStorage, *ENHANCED})
