"""HL7 v2 over MLLP: reading priorities and results out; orders, patient corrections and final reports in."""
