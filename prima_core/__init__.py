"""The Prima model (arXiv 2509.18638) for inference and training: DICOM series → tokens → study → diagnoses.

Torch-free: `prima_core.base`, `prima_core.volume`, `prima_core.scope`, `prima_core.prepare`.
With torch: `volume_tokenizer`, `sequence_vit`, `study_vit`, `task_heads`, and `prima`, which runs the four in order.
"""
