"""Everything in one command: phantoms → tokenizer → tokens → CLIP → heads → evaluation → a bundle the node takes.

    python -m training.speedrun --out RUN [--profile full|quick]

Trains on a teaching collection of phantoms, patients with more findings than is usual, and judges on patients as they
come, of the same scanners and of others. Every step resumes. What it makes is a demonstration: its training state is
"phantom", and it must never speak of a patient.

    profiles.py  how much of everything     steps.py  the steps in order     table.py  what is printed at the end
"""
