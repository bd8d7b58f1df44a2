"""Words for the head and for other regions, as radiology departments of many languages write them."""

from __future__ import annotations

import pytest

from prima_core.anatomy import anatomy_of

HEAD = """
MRI BRAIN WO AND W CONTRAST|IRM cérébrale, neuro-crâne|MRT Schädel nativ|MRT Kopf|Hirn-MRT|cMRT|RM cerebro|RM de cráneo
RM encéfalo|Risonanza cranio|RM encefalo|RMN cerebrale|MRI hersenen|MRI Hersenen/schedel|RM crânio|RM cérebro|tête
Head^General|HEAD|SKULL|NEURO|Neurokranium|MRI PITUITARY|MRI IAC|Cranial MRI|MR hjerne|MR hjärna|Rezonans głowy
AxBrain|t2_flair_Kopf|SELLA TURCICA|brainstem|MRI ORBITS|hlava|beyin MR|MRA Circle of Willis|stroke protocol
""".replace("\n", "|").strip("|")

ELSEWHERE = {
    "knee": "IRM DU GENOU|MRI KNEE LEFT|MRT Kniegelenk|RM rodilla|RM ginocchio|joelho|MRI knie|KNEE",
    "spine": "CSPINE|MRI CERVICAL SPINE|MRT LWS|HWS|IRM rachis lombaire|RM columna|colonna lombare|wervelkolom|L-SPINE",
    "abdomen": "MRI ABDOMEN|Leber MRT|MRCP|foie|RM hígado|RENAL MRA",
    "shoulder": "Schulter|IRM épaule|hombro|spalla",
    "hip or pelvis": "MRI PELVIS|Hüfte|hanche|MR Prostata|femoral head and hip",
    "leg or foot": "ANKLE|Fuß|cheville|MRT Unterschenkel|FEMUR",
    "arm or hand": "WRIST|Handgelenk|poignet",
    "chest": "BREAST|MRI CHEST|Mamma MRT",
    "heart or vessels": "CARDIAC MRI|Herz|cœur",
    "neck": "NECK|MRA carotids|Hals",
    "unborn child": "Fetal MRI",
    "test object": "ACR Phantom",
    "whole body": "WHOLE BODY|Ganzkörper",
}

NEITHER = """
AX T2 FLAIR|COR T1 MPRAGE|t1_koronar|sT2W/FLAIR SENSE|T1W_aTSE SENSE|SENSE-Knee-8|SENSE-Head|DWI|rectangular FOV|SPACE
spin echo|correction|swi_images|trace|perfusion|computed||Head coil|myelin map|epi fid 2d|hippo|magnetization transfer
""".replace("\n", "|").strip("|")


@pytest.mark.parametrize("text", HEAD.split("|"))
def test_words_for_the_head(text: str) -> None:
    found = anatomy_of([text])
    assert found.head
    assert found.elsewhere == ()


@pytest.mark.parametrize(("region", "text"), [(r, text) for r, texts in ELSEWHERE.items() for text in texts.split("|")])
def test_words_for_other_regions(region: str, text: str) -> None:
    assert region in anatomy_of([text]).elsewhere


@pytest.mark.parametrize("text", NEITHER.split("|"))
def test_sequence_names_and_coils_are_no_anatomy(text: str) -> None:
    found = anatomy_of([text])
    assert not found.head
    assert found.elsewhere == ()


@pytest.mark.parametrize("text", ["MRI HEAD AND NECK", "MRI BRAIN & C-SPINE", "Schädel und HWS"])
def test_both_can_be_said_at_once(text: str) -> None:
    found = anatomy_of([text])
    assert found.head
    assert found.elsewhere
