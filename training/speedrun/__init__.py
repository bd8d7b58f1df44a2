"""Everything in one command: phantoms → tokenizer → tokens → CLIP → heads → evaluation → a bundle the node takes.

    python -m training.speedrun --out RUN [--profile full|quick]

Trains on phantoms of one set of scanners and judges on unseen patients, of the same scanners and of others. Every step
resumes. What it makes is a demonstration: its training state is "phantom", and it must never speak of a patient.

    profiles.py  how much of everything     steps.py  the steps in order     table.py  what is printed at the end
"""
