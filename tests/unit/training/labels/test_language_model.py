"""Labels by a language model: what counts as an answer, what is kept, and what ends as failed. Models here are made up.

Nothing is shown of how well a real model reads reports. A real server is in test_chat_server.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from training.base.cohort import StudyLabels, StudyReport
from training.base.errors import BadTrainingData
from training.labels.language_model import AnswerCache, ModelAway, label_by_model, prompt, read_answer
from training.labels.local_model import LocalModel

FINDINGS = ("structural_edema", "tumor_adult_glioma")
GOOD = json.dumps({"structural_edema": "absent", "tumor_adult_glioma": "present"})
LABELS = StudyLabels({"structural_edema": False, "tumor_adult_glioma": True})
REPORTS = {"a": StudyReport(("Glioma.",)), "b": StudyReport(("Glioma again.",))}


class Told:
    """A model that gives these answers in turn, the last one for ever."""

    name = "told"

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.prompts: list[str] = []

    def complete(self, prompt: str) -> str:
        self.prompts.append(prompt)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_answers_become_labels_and_unknown_stays_unknown(tmp_path: Path) -> None:
    model = Told(GOOD, json.dumps({"structural_edema": "unknown", "tumor_adult_glioma": "present"}))
    done = label_by_model(REPORTS, model, tmp_path / "cache", FINDINGS)
    assert done.labels == {"a": LABELS, "b": StudyLabels({"tumor_adult_glioma": True})}
    assert (done.failed, done.cached) == ({}, 0)


def test_the_model_is_told_names_words_and_the_report_without_numbers_that_identify(tmp_path: Path) -> None:
    model = Told(GOOD)
    text = "Study 1.2.840.113619.2.55.3 of 2024-05-06, accession 12345678: glioma of 23 mm."
    label_by_model({"a": StudyReport((text,))}, model, tmp_path / "cache", FINDINGS)
    [asked] = model.prompts
    assert "tumor_adult_glioma: glioma, astrocytoma" in asked
    assert "glioma of 23 mm." in asked
    for identifying in ("1.2.840", "2024", "12345678"):
        assert identifying not in asked


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("I think it is a glioma.", "not one JSON object"),
        (GOOD + GOOD, "not one JSON object"),
        ('{"structural_edema": "absent", "structural_edema": "present", "tumor_adult_glioma": "present"}', "once"),
        ("[]", "not a JSON object"),
        ('{"structural_edema": "absent"}', "1 keys are missing, the first of them tumor_adult_glioma"),
        (GOOD.replace("}", ', "x": "absent"}'), "not asked for"),
        (GOOD.replace("absent", "Absent"), "the value of structural_edema"),
        (GOOD.replace('"absent"', "false"), "the value of structural_edema"),
        (GOOD.replace('"absent"', '["absent"]'), "the value of structural_edema"),
        ("", "not one JSON object"),
    ],
)
def test_a_wrong_answer_is_told_once_then_the_study_has_failed(tmp_path: Path, answer: str, error: str) -> None:
    model = Told(answer)
    done = label_by_model({"a": REPORTS["a"]}, model, tmp_path / "cache", FINDINGS)
    assert done.labels == {}
    assert error in done.failed["a"]
    assert len(model.prompts) == 2
    assert error in model.prompts[1]
    assert (tmp_path / "cache").read_bytes() == b"", "what failed is asked again next time"
    second = label_by_model({"a": REPORTS["a"]}, Told(answer, GOOD), tmp_path / "cache", FINDINGS)
    assert second.labels == {"a": LABELS}


def test_a_fence_around_the_answer_is_forgiven() -> None:
    assert read_answer(f"```json\n{GOOD}\n```\n", FINDINGS) == json.loads(GOOD)
    with pytest.raises(BadTrainingData):
        read_answer(f"Here it is: ```json\n{GOOD}\n```\n", FINDINGS)


def test_a_report_that_the_model_cannot_take_or_that_is_empty_fails_alone(tmp_path: Path) -> None:
    model = Told(BadTrainingData("too long"), GOOD)
    done = label_by_model({**REPORTS, "c": StudyReport(())}, model, tmp_path / "cache", FINDINGS)
    assert done.failed == {"a": "too long", "c": "the report is empty"}
    assert done.labels == {"b": LABELS}


def test_answers_are_kept_and_asked_only_once(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(ModelAway):
        label_by_model(REPORTS, Told(GOOD, ModelAway("gone")), cache, FINDINGS)
    model = Told(GOOD)
    done = label_by_model(REPORTS, model, cache, FINDINGS)
    assert (done.cached, len(model.prompts)) == (1, 1)
    assert done.labels == {"a": LABELS, "b": LABELS}
    assert cache.stat().st_mode & 0o777 == 0o600
    assert "Glioma" not in cache.read_text()


@pytest.mark.parametrize(
    "change",
    [
        lambda: (REPORTS, Told(GOOD), FINDINGS[::-1]),
        lambda: ({"a": StudyReport(("Other.",))}, Told(GOOD), FINDINGS),
        lambda: (REPORTS, type("Other", (Told,), {"name": "other"})(GOOD), FINDINGS),
    ],
    ids=["findings", "report", "model"],
)
def test_another_question_is_not_answered_from_the_cache(
    tmp_path: Path, change: Callable[[], tuple[dict[str, StudyReport], Told, tuple[str, ...]]]
) -> None:
    label_by_model(REPORTS, Told(GOOD), tmp_path / "cache", FINDINGS)
    reports, model, findings = change()
    assert label_by_model(reports, model, tmp_path / "cache", findings).cached == 0


def test_a_line_that_a_kill_cut_off_is_asked_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    label_by_model(REPORTS, Told(GOOD), cache, FINDINGS)
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-7])
    os.chmod(cache, 0o644)
    done = label_by_model(REPORTS, Told(GOOD), cache, FINDINGS)
    assert done.cached == 1
    assert cache.read_bytes() == whole
    assert cache.stat().st_mode & 0o777 == 0o600


def test_a_damaged_or_used_cache_is_refused(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.write_text("nonsense\n")
    with pytest.raises(BadTrainingData, match="line 1: not a kept answer"):
        label_by_model(REPORTS, Told(GOOD), cache, FINDINGS)
    cache.unlink()
    label_by_model(REPORTS, Told(GOOD), cache, FINDINGS)
    cache.write_text(cache.read_text().replace("present", "perhaps"))
    with pytest.raises(BadTrainingData, match="cannot be one"):
        label_by_model(REPORTS, Told(GOOD), cache, FINDINGS)
    with AnswerCache(tmp_path / "other"), pytest.raises(BadTrainingData, match="another process"):
        AnswerCache(tmp_path / "other")


def test_a_finding_without_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTrainingData, match="no finding of that name"):
        label_by_model(REPORTS, Told(GOOD), tmp_path / "cache", ("nonsense",))


def test_a_local_model_that_talks_nonsense_fails_every_study(tmp_path: Path) -> None:
    """A real GPT-2 with random weights, loaded from its folder: it answers, and none of its answers is taken."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path / "gpt2")
    shape = GPT2Config(vocab_size=len(alphabet), n_positions=2048, n_embd=8, n_layer=1, n_head=1)
    GPT2LMHeadModel(shape).save_pretrained(tmp_path / "gpt2")
    model = LocalModel(tmp_path / "gpt2", most_tokens=8)
    assert model.complete("There is") == model.complete("There is")
    done = label_by_model({"a": REPORTS["a"]}, model, tmp_path / "cache", FINDINGS)
    assert done.labels == {}
    assert "not one JSON object" in done.failed["a"]
    long = label_by_model({"a": StudyReport(("word " * 1000,))}, model, tmp_path / "cache", FINDINGS)
    assert "too long" in long.failed["a"]
    assert LocalModel(tmp_path / "gpt2", most_tokens=9).name != model.name


def test_a_folder_that_holds_no_safe_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BadTrainingData, match="not as safetensors"):
        LocalModel(tmp_path)


def test_the_prompt_shows_the_report_as_it_is() -> None:
    assert "{glioma}" in prompt(FINDINGS, "{glioma}")
