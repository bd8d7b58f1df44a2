"""Labels of studies: from lists, from report text by rules, or by a language model; and how far two agree.

lists.py          tables and text lists of a site
rules.py          words and negation → labels; terms.py: findings' words, cues.py: "no", "possible" and the like
sentences.py      a report's text as sentences about the images
language_model.py the same by a language model: local_model.py in a folder, chat_server.py behind an address
agreement.py      two sets of labels compared
"""
