"""DICOM instances → series → volume → patches. Needs no torch."""
