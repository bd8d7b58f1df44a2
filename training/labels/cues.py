"""The words that decide what a sentence says of a finding: regular expressions on text as `rules.plain` leaves it.

Findings' own names are blotted out with underscores before these are looked for. At each place the first kind that fits
counts, so the longer phrases ("cannot be excluded") stand before the words that they hold ("not").
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_SEEN = (
    "(seen|identified|present|demonstrated|evident|visible|visuali[sz]ed|appreciated|noted|detected|observed|shown|found"
    "|apparent|depicted)"
)
_CHANGE = (
    "(change|increase|decrease|growth|progression|enlargement|reduction|improvement|worsening|regression|evolution"
    "|progress)s?"
)
_TREATED = "(resection|removal|evacuation|excision|debulking|embolization|clipping|coiling|drainage|treatment)"
_IS = "((is|are|was|were|has been|have been|can be|could be) )?"

CUES: Mapping[str, tuple[str, ...]] = {
    # The finding is there, and not more or less of it: nothing is denied.
    "neutral": (
        rf"(no|without)( (any|interval|significant|substantial|relevant|appreciable|further|definite))* {_CHANGE}"
        r"( (in|of) (the )?(size|extent|number|appearance|volume)s?( of)?)?",
        r"not( \w+ly)? (changed|increased|enlarg\w+|larger|smaller|grown|progressed|worsened|decreased)",
        rf"not previously {_SEEN}",
        rf"not {_SEEN} (before|previously|on (the )?(prior|previous))",
        r"not only",
        r"no doubt",
        r"(mri|mr|imaging|image|images|scan|examination)s? without( intravenous| iv)? contrast",
    ),
    # Whether it is there now is left open.
    "nothing": (
        r"\bno (evidence of )?(new|additional|further|other|interval)\b",
        r"rule out|r/o\b|to exclude|excluding",
        r"(evaluat\w+|assess\w*|screen\w*|work ?up|follow ?up|surveillance|monitoring|query) (for|of)\b",
        r"((family|past|prior|previous|personal) )?history of|h/o\b",
        rf"{_TREATED} of( the| a)?",
        rf"(status post|s/p|post)( \w+){{0,4}} {_TREATED}( of)?",
    ),
    "nothing_before": (r"(has|have) been( \w+ly)? (removed|resected|evacuated|excised|clipped|coiled|embolized)",),
    # It may be there.
    "maybe_before": (
        r"((is|are|was|were|has been|have been|can|could) )?(not|cannot)( be)?( \w+ly)? (excluded|ruled out)",
        r"(is|are|remains?) (possible|suspected|questionable|questioned|equivocal)",
        r"(is|are) ((in|on|among|a|an|one|of|the|less|likely) )*(differential|possibilit|consideration)\w*",
        r"(is|are)( considered)? less likely|less likely(?=\W*$)",
        r"((has|have|is|are)( been)? )?(almost|nearly|near|largely|essentially)( \w+)? resolved",
        r"(should|may|could|might|is to|are to) be considered",
    ),
    "maybe": (
        r"\b(possib\w+|questionabl[ey]|question of|suspicious (for|of)|suspicion (for|of)|suspect\w*)\b",
        r"\b(concern(ing)? (for|of)|worrisome for|indeterminate|equivocal|doubtful)\b",
        r"\b(may|might|could (be|represent|reflect))\b",
        r"less likely|more likely than|near(ly)? complete resolution of",
        r"(can ?not|could not) (exclude|rule out)|(does|do) not exclude|not excluding",
    ),
    "differential": (
        r"\b(differential( diagnos[ie]s)?|ddx|considerations)\b( (includes?|including|is|are|of|considerations))*",
    ),
    "versus": (r"\b(versus|vs)\b",),
    "asked": (r"\?\s?(?=\w)",),
    # It is not there.
    "not_before": (
        rf"{_IS}(\w+ly )?\b(not|no longer)( \w+ly)? {_SEEN}",
        r"(is|are|was|were) (absent|excluded|unlikely|negative)",
        r"(has|have)( been)?( \w+ly)? (resolved|disappeared)",
        r"(has|have) been( \w+ly)? (excluded|ruled out)",
        r"(is|are) not (greater|more) than expected",
        r"\b(ruled out|resolved|disappeared|absent|unlikely)(?! (to|_))",
        r": ?(none|no|nil|negative|absent)\W*$",
        r"\bnot(?=\W*$)",
    ),
    "not": (
        r"\b(no|without|negative for|absence of|absent|free of|free from|denies|nothing to suggest|neither|nor|not"
        r"|never|lacks?|lack of|rather than|instead of|resolution of|resolved|unlikely to (be|represent)"
        r"|fails? to|nil)\b"
        r"( (convincing |definite |obvious |gross |overt |imaging |mr |other )*(evidence|signs?|features?|indication)"
        r"( (of|for|to suggest))?)?",
    ),
    # What was said before ends here.
    "but": (
        r"\b(but|however|although|though|except|apart from|aside from|other than|besides|yet|otherwise)\b",
        r"\b(while|whereas|despite|due to|because of|secondary to|caused by|related to)\b",
        r";|:(?=\s)",
        r"(,|\band\b) (?=(there|this|these|it|findings?|appearances?|which|an?|the|is|are|has|with|without|now"
        r"|consistent|compatible|most|likely|suspicious|suggest\w*|favor\w*|in keeping|represent\w*|typical|measuring"
        r"|stable|unchanged|known|again)\b)",
    ),
    # Where something is or is not: what is named there is there.
    "place": (
        r"\b(around|surrounding|adjacent to|next to|near|within|in|along|of|about|involving|from|at|underlying|on) "
        r"(the|this|that|these|its|known|both|previous\w*|prior|patient)\b",
    ),
    "with": (r"\b(with|now|showing)\b",),
    "comma": (r",",),
    "or": (r"\b(or|nor)\b",),
}
CUE = re.compile("|".join(f"(?P<{kind}>{'|'.join(patterns)})" for kind, patterns in CUES.items()))

VERB = re.compile(r"\b(is|are|was|were|has|have|shows?|demonstrates?|there)\b")
# What begins a new thing behind a comma, rather than goes on with a list of what is not there.
NEW_THING = re.compile(
    r"\s*(left|right|bilateral|multiple|several|two|three|small|large|mild|moderate|severe|status|post|\d)"
    r"|.*\b(is|are|was|were|has|have|shows?|measur\w+)\b"
)
EITHER = re.compile(r" or (an? )?")
