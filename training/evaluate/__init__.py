"""Figures of a trained model with confidence intervals, by subgroup and by difficulty, as JSON and as one page.

scored.py     what is judged: logits, truth and who the studies are     figures.py   figures of each output
subgroups.py  the same by sex, age, vendor, site, weekday, difficulty   retrieval.py images and reports
scaling.py    how much more data would help                             page.py      the page
record.py     all of it as one JSON document
"""
