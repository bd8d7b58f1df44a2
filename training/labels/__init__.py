"""Labels of studies: from lists, from report text by rules, or by a language model; and how far two agree.

terms.py      the words that each finding goes by     lists.py   CSV and text lists
rules.py      words and negation → labels             language_model.py   the same by a language model
agreement.py  two sets of labels compared
"""
