"""A DICOM node that runs the Prima model on brain MRI studies and returns coded results.

One study's way: `intake` (C-STORE, durable) → `jobs` (registry, closing, queue, worker) → `prima_core` (the model) →
`reporting` (Structured Report) → `sending` (outbox, C-STORE). `service.py` wires the stages; `admin` is the command
line.
"""
