"""The reading worklist by DICOM: Modality Worklist and Unified Procedure Step, over stores that others bring."""
