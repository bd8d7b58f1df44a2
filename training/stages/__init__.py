"""Stages of training, one file each; every one resumes, and writes done.json last.

tokenizer.py      patches → the encoder             series_names.py   series names against single series (optional)
text_tower.py     reports → vectors                 clip.py           studies against reports
localise.py       single series, where findings lie (optional)
embed.py          the trained model over the store  heads.py          study embeddings → diagnoses, referrals, priority
zero_shot.py      findings that prompts define      transfer.py       heads for other tasks
export.py         all of it → a bundle
"""
