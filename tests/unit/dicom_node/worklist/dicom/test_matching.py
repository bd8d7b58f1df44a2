"""C-FIND matching: PS3.4 section C.2.2.2, type by type, and what is answered. Does not cover the network."""

from __future__ import annotations

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_node.worklist.dicom import matching
from dicom_node.worklist.dicom.dataset import InvalidAttribute, plain
from dicom_node.worklist.dicom.matching import matches, project, wild_card_matches


def data(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        tag = Tag(keyword)
        dataset.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=config.IGNORE))
    return plain(dataset)


def step(**values: object) -> Dataset:
    return data(ScheduledProcedureStepSequence=[data(**values)])


@pytest.mark.parametrize(
    ("wanted", "value", "expected"),
    [
        ("A1", "A1", True),
        ("A1", "a1", False),
        ("A1", "A12", False),
        ("", "A1", True),
        ("*", "A1", True),
        ("*", "", True),
        ("A*", "A1", True),
        ("*1", "A1", True),
        ("A?", "A1", True),
        ("A?", "A12", False),
        ("?", "", False),
        ("A1", "", False),
        ('""', "", True),
        ('""', "A1", False),
        (" A1 ", "A1", True),
        ("[A]1", "A1", False),
    ],
)
def test_text(wanted: str, value: str, expected: bool) -> None:
    assert matches(data(AccessionNumber=wanted), data(AccessionNumber=value)) is expected


@pytest.mark.parametrize(
    ("wanted", "value", "expected"),
    [
        ("DOE^jane", "Doe^Jane", True),
        ("Doe^Jane^^^", "Doe^Jane", True),
        ("doe*", "Doe^Jane", True),
        ("Doe", "Doe^Jane", False),
        ("Müller*", "MÜLLER^Ä", True),
        ("Muller*", "Müller^Ä", False),
        ("山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("Yamada^Tarou", "Yamada^Tarou=山田^太郎", True),
        ("Yamada^Tarou=山田^太郎", "Yamada^Tarou=山田^太郎", True),
        ("Yamada^Tarou=山田^次郎", "Yamada^Tarou=山田^太郎", False),
        ("*=山田*", "Yamada^Tarou=山田^太郎", True),
    ],
)
def test_person_names(wanted: str, value: str, expected: bool) -> None:
    assert matches(data(PatientName=wanted), data(PatientName=value)) is expected


@pytest.mark.parametrize(
    ("keyword", "wanted", "value", "expected"),
    [
        ("PatientBirthDate", "19700101", "19700101", True),
        ("PatientBirthDate", "1970.01.01", "19700101", True),
        ("PatientBirthDate", "19700101-19701231", "19700615", True),
        ("PatientBirthDate", "19700101-19701231", "19701231", True),
        ("PatientBirthDate", "19700101 - 19701231", "19710101", False),
        ("PatientBirthDate", "-19700615", "19700615", True),
        ("PatientBirthDate", "-19700614", "19700615", False),
        ("PatientBirthDate", "19700615-", "19700615", True),
        ("PatientBirthDate", "19700616-", "19700615", False),
        ("PatientBirthDate", "19700101-", "", False),
        ("PatientBirthDate", "19700101-99991231", "20260105", True),
        ("StudyTime", "2230", "223000", True),
        ("StudyTime", "2230", "223001", False),
        ("StudyTime", "10-18", "175959.999999", True),
        ("StudyTime", "1000-1800", "095959", False),
        ("StudyTime", "-1800", "180000", True),
        ("ScheduledProcedureStepStartDateTime", "19980128103000", "19980128103000.0000", True),
        ("ScheduledProcedureStepStartDateTime", "19980128103000+0000", "19980128073000-0300", True),
        ("ScheduledProcedureStepStartDateTime", "19980128103000-0300", "19980128133000+0000", True),
        ("ScheduledProcedureStepStartDateTime", "19980128-", "19980128103000", True),
        ("ScheduledProcedureStepStartDateTime", "1998-1999", "19990704", True),
        ("ScheduledProcedureStepStartDateTime", "1998-199906", "19990704", False),
        ("ScheduledProcedureStepStartDateTime", "199802-199906", "19990630235959", True),
        ("ScheduledProcedureStepStartDateTime", "19980128103000-0300-19980128103000-0500", "19980128140000+0000", True),
        ("ScheduledProcedureStepStartDateTime", "-19980128103000-0300", "19980128140000+0000", False),
        ("ScheduledProcedureStepStartDateTime", "19980128103060", "19980128103059", True),
    ],
)
def test_dates_and_times(keyword: str, wanted: str, value: str, expected: bool) -> None:
    query = data(**{keyword: wanted})
    matching.check(query)
    assert matches(query, data(**{keyword: value})) is expected


def test_a_moment_without_an_offset_is_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Etc/GMT+3")
    time.tzset()
    try:
        query = data(ScheduledProcedureStepStartDateTime="19980128133000+0000")
        assert matches(query, data(ScheduledProcedureStepStartDateTime="19980128103000"))
        assert not matches(query, data(ScheduledProcedureStepStartDateTime="19980128133000"))
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("day", "hour", "expected"),
    [
        ("20060705", "1000", True),
        ("20060705", "0959", False),
        ("20060706", "0300", True),
        ("20060707", "1800", True),
        ("20060707", "1900", False),
        ("20060706", "", False),
    ],
)
def test_ranges_of_date_and_time_are_one_range(day: str, hour: str, expected: bool) -> None:
    query = step(ScheduledProcedureStepStartDate="20060705-20060707", ScheduledProcedureStepStartTime="1000-1800")
    candidate = step(ScheduledProcedureStepStartDate=day, ScheduledProcedureStepStartTime=hour)
    assert matches(query, candidate) is expected


def test_ranges_of_different_form_stay_apart() -> None:
    query = step(ScheduledProcedureStepStartDate="20060705-", ScheduledProcedureStepStartTime="1000-1800")
    assert matches(query, step(ScheduledProcedureStepStartDate="20060706", ScheduledProcedureStepStartTime="1200"))
    assert not matches(query, step(ScheduledProcedureStepStartDate="20060706", ScheduledProcedureStepStartTime="09"))


@pytest.mark.parametrize("value", ["2026-13", "yesterday", "20261301", "2026*", "-"])
def test_a_date_that_is_none_is_named(value: str) -> None:
    with pytest.raises(InvalidAttribute, match="PatientBirthDate") as refused:
        matching.check(data(PatientBirthDate=value))
    assert value not in str(refused.value)


def test_a_sequence_key_has_one_item() -> None:
    query = data(ScheduledProcedureStepSequence=[data(Modality="MR"), data(Modality="CT")])
    with pytest.raises(InvalidAttribute, match="ScheduledProcedureStepSequence"):
        matching.check(query)


def test_a_list_of_uids_matches_any_of_them() -> None:
    query = data(StudyInstanceUID=["1.2.3", "1.2.4"])
    assert matches(query, data(StudyInstanceUID="1.2.4"))
    assert not matches(query, data(StudyInstanceUID="1.2.5"))
    assert not matches(data(StudyInstanceUID="1.2.*"), data(StudyInstanceUID="1.2.4"))


def test_any_of_several_values_may_match() -> None:
    candidate = data(MedicalAlerts=["latex", "iodine"])
    assert matches(data(MedicalAlerts="iodine"), candidate)
    assert project(data(MedicalAlerts="iodine"), candidate)[0] == candidate


def test_a_sequence_matches_item_by_item_and_only_those_items_are_answered() -> None:
    code = [data(CodeValue="1", CodingSchemeDesignator="A", CodeMeaning="x"), data(CodeValue="2", CodeMeaning="y")]
    candidate = data(RequestedProcedureCodeSequence=code)
    query = data(RequestedProcedureCodeSequence=[data(CodeValue="2", CodeMeaning="")])
    assert matches(query, candidate)
    assert not matches(
        data(RequestedProcedureCodeSequence=[data(CodeValue="2", CodingSchemeDesignator="A")]), candidate
    )
    answer, complete = project(query, candidate)
    assert complete
    assert answer == data(RequestedProcedureCodeSequence=[data(CodeValue="2", CodeMeaning="y")])


@pytest.mark.parametrize("key", [[], [Dataset()]])
def test_an_empty_sequence_key_asks_for_all_of_it(key: list[Dataset]) -> None:
    candidate = data(RequestedProcedureCodeSequence=[data(CodeValue="1"), data(CodeValue="2")])
    query = data(RequestedProcedureCodeSequence=key)
    assert matches(query, candidate)
    assert project(query, candidate)[0] == candidate


def test_a_sequence_without_items_has_nothing_to_match() -> None:
    empty = data(RequestedProcedureCodeSequence=[])
    assert not matches(data(RequestedProcedureCodeSequence=[data(CodeValue="1")]), empty)
    assert matches(data(RequestedProcedureCodeSequence=[data(CodeValue="")]), empty)


def test_a_key_the_candidate_lacks_is_ignored_or_unknown() -> None:
    query, candidate = data(AccessionNumber="A1", Allergies="nuts"), data(AccessionNumber="A1")
    assert matches(query, candidate, absent_matches=True)
    assert not matches(query, candidate)
    assert project(query, candidate) == (data(AccessionNumber="A1"), False)


def test_an_answer_has_the_keys_and_nothing_else() -> None:
    candidate = data(AccessionNumber="A1", PatientID="1", PatientName="Doe")
    assert project(data(PatientID=""), candidate) == (data(PatientID="1"), True)


def test_character_set_and_time_zone_are_no_keys() -> None:
    query = data(SpecificCharacterSet="ISO_IR 100", TimezoneOffsetFromUTC="+0100", PatientID="1")
    assert matches(query, data(PatientID="1"))
    assert project(query, data(PatientID="1")) == (data(PatientID="1"), True)


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_wild_cards_agree_with_a_plain_definition(pattern: str, text: str) -> None:
    def defined(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "*":
            return any(defined(pattern[1:], text[index:]) for index in range(len(text) + 1))
        return bool(text) and pattern[0] in ("?", text[0]) and defined(pattern[1:], text[1:])

    assert wild_card_matches(pattern, text) is defined(pattern, text)


def test_many_wild_cards_take_no_more_than_pattern_times_text_steps() -> None:
    assert not wild_card_matches("*a" * 2_000 + "b", "a" * 4_000)


TEXT = st.text(string.ascii_letters + string.digits + " -*?.^=äßé山田", max_size=16).map(str.strip)
DAYS = st.dates().map(lambda day: day.strftime("%Y%m%d").rjust(8, "0"))
TIMES = st.times().map(lambda hour: hour.strftime("%H%M%S.%f"))
OFFSETS = st.sampled_from(["", "+0000", "-0330", "+1400"])
ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "AccessionNumber": TEXT,
        "PatientName": TEXT,
        "PatientID": TEXT,
        "CommentsOnTheScheduledProcedureStep": TEXT,
        "PatientBirthDate": DAYS,
        "StudyTime": TIMES,
        "ScheduledProcedureStepStartDateTime": st.tuples(DAYS, TIMES, OFFSETS).map("".join),
        "StudyInstanceUID": st.sampled_from(["", "1.2.3", "2.25.4"]),
        "PatientWeight": st.sampled_from(["70", "70.5", ""]),
        "PregnancyStatus": st.integers(0, 4),
        "MedicalAlerts": st.lists(TEXT, max_size=3),
    },
).map(lambda values: data(**values))
CANDIDATES = st.builds(
    lambda top, items: data(**{e.keyword: e.value for e in top}, RequestedProcedureCodeSequence=items),
    ITEMS,
    st.lists(ITEMS, max_size=2),
)


@given(CANDIDATES)
def test_a_candidate_matches_a_query_of_its_own_values(candidate: Dataset) -> None:
    query = Dataset()
    query.update(candidate)
    query.RequestedProcedureCodeSequence = list(candidate.RequestedProcedureCodeSequence)[:1]
    matching.check(query)
    assert matches(query, candidate)
    answer, complete = project(query, candidate)
    assert complete
    assert answer.keys() == candidate.keys()


@given(CANDIDATES, CANDIDATES)
def test_what_matches_is_answered_with_values_that_match_again(query: Dataset, candidate: Dataset) -> None:
    query.RequestedProcedureCodeSequence = list(query.RequestedProcedureCodeSequence)[:1]
    if matches(query, candidate):
        assert matches(query, project(query, candidate)[0])
