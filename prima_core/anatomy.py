"""Which part of the body words speak of: the head or another region, in the languages that MR scanners are used in.

The vocabulary is a table of word beginnings after folding (lower case, no accents, punctuation as spaces), so that
"Schädel", "crânien" and "SCHAEDEL_MRT" need no rules of their own. A beginning that ends in a space is a whole word.
Coil names are no evidence: a head coil images wrists as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from prima_core.volume.headers import fold

# English, German, French, Spanish, Italian, Portuguese, Dutch, the Nordic languages, Polish, Czech, Turkish, Hungarian.
_HEAD = """
    brain|head |headache|crani|skull|intracran|neurocran|neuro |cereb|cerveau|encephal|encefal
    kopf|schadel|schaedel|hirn|gehirn|grosshirn|kleinhirn|krani|zereb|neurokran|cmrt
    crane|tete |cabeza|cervello|testa |cabeca|hoofd|hersen|schedel|hjern|hjarn|hode |hoved
    aivo|mozg|mozk|mozek|glow|hlav|beyin|kafa |koponya|agy |agyi
    pituit|hypophys|hipofis|ipofis|sella |orbit|iac |internal auditory|acoustic neur|akustikus|felsenbein
    circle of willis|hippocamp|hipocamp|ippocamp|stroke |epilep|dementia|demenz|demence|alzheimer|trigemin
"""

_ELSEWHERE = {
    "spine": """
        spine|spinal|cspine|tspine|lspine|sspine|wirbel|hws |bws |lws |rachis|rachid|colonne|colonna|columna|coluna
        wervel|lumb|lomb|lenden|dorsolumb|dorsolomb|thoracolumb|cervic|zervik|sacr|sakr|vertebral column|myelon
        medullair|medular|kregoslup|pater |ryggrad|omurga|gerinc
    """,
    "neck": """
        neck|headneck|hals|cou |cuello|collo |pescoco|nek |larynx|pharyn|thyroid|schilddr|parotid|tsa |carotid|karotis
    """,
    "jaw": "jaw |tmj |temporomand|kiefer|mandib|dental|tooth|teeth",
    "shoulder": "shoulder|schulter|epaule|hombro|spalla|ombro|schouder|clavic",
    "arm or hand": """
        elbow|ellenbogen|ellbogen|coude |codo |gomito|cotovelo|elleboog|wrist|handgelenk|poignet|muneca|polso|punho
        hand |finger|forearm|unterarm|oberarm|avant bras|antebra|humer|upper extremity
    """,
    "knee": "knee|knie|genou|rodilla|ginocchio|joelho|kolano|koleno|diz |terd|menisc",
    "leg or foot": """
        leg |lower extremity|extremit|jambe|unterschenkel|oberschenkel|pierna|gamba |perna |thigh|cuisse|femur|femor
        tibia|calf|ankle|cheville|sprunggelenk|osg |tobillo|caviglia|tornozelo|enkel |foot|feet |fuss|pied |pie |piede
        voet|vorfuss
    """,
    "hip or pelvis": """
        hip |hips |huft|hueft|hanche|cadera|anca |quadril|heup|pelvi|becken|bassin|bekken|isg |prostat|uterus|uterin
        ovar|rectum|rectal|rektum|rektal|bladder|vessie|harnblase|vagin|penis|testis|scrot
    """,
    "abdomen": """
        abdom|bauch|liver|leber|foie|higado|fegato|figado|lever |hepat|pancrea|pankrea|kidney|niere|rein |rinon|rene |
        dunndarm|renal|adrenal|nebennier|mrcp|biliar|gallbl|gallen|spleen|milz|bowel|entero|stomach|magen |colon |
    """,
    "chest": "chest|thora|torac|torax|lung|poumon|pulmon|mediast|breast|mamma|mamogr|mama |sein |brust|rib |ribs ",
    "heart or vessels": """
        cardi|kardi|heart|herz|coeur|corazon|cuore|coracao|myocard|aort|coronary|coronari|coronaire|koronar
    """,
    "whole body": "whole body|wholebody|ganzkorper|ganzkoerper|corps entier|cuerpo entero|total body|brachial",
    "unborn child": "fetal|foetal|fotal|fetus|foetus",
    "test object": "phantom|fantome",
}

# A coil's name does not say what lay in it, and "koronar" alone is German for the coronal plane.
_NOT_ANATOMY = re.compile(r"sense-[a-z]+(?:-\d+)?|\w+[ _-]coil\b|koronar\b", re.IGNORECASE)
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class Anatomy:
    """What some texts speak of. elsewhere: the other regions by name."""

    head: bool
    elsewhere: tuple[str, ...]


def anatomy_of(texts: Iterable[str]) -> Anatomy:
    """The regions that the texts name; neither head nor elsewhere when they name none."""
    words = " ".join(("", *(fold(_CAMEL_CASE.sub(" ", _NOT_ANATOMY.sub(" ", text))) for text in texts), ""))
    elsewhere = tuple(region for region, pattern in _ELSEWHERE_PATTERNS.items() if pattern.search(words))
    return Anatomy(bool(_HEAD_PATTERN.search(words)), elsewhere)


def _pattern(vocabulary: str) -> re.Pattern[str]:
    beginnings = sorted({word for line in vocabulary.splitlines() for word in line.strip("\t\n ").split("|")} - {""})
    return re.compile(" (?:" + "|".join(map(re.escape, beginnings)) + ")")


_HEAD_PATTERN = _pattern(_HEAD)
_ELSEWHERE_PATTERNS = {region: _pattern(vocabulary) for region, vocabulary in _ELSEWHERE.items()}
