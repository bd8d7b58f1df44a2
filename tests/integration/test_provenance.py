"""A result's record has what an auditor asks for, and the numbers come out again from the spool, or it is said why not.

One node, one archive; two studies that went through the model together. What a study of thousands of images takes, and
how single values are compared, is tested in `tests/unit/dicom_node`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom import dcmread

from dicom_node.demo.archive import AE_TITLE, Archive
from dicom_node.jobs.tables import instances, predictions, provenance, results
from prima_core.bundle import read_manifest
from support.bundles import damaged, new_bundle
from support.command_line import Cli, Outcome
from support.dicom_factory import StudyFacts
from support.node import SENDER, Node, destination, evidence, send, small_study

pytestmark = pytest.mark.slow

LOCALISER = "AX LOCALIZER"
USED = ("AX FLAIR", "SAG T1")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with Archive(tmp_path_factory.mktemp("archive")) as running:
        yield running


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, random_bundle: Path) -> Path:
    return Path(shutil.copytree(random_bundle, tmp_path_factory.mktemp("bundles") / "bundle"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, bundle: Path, archive: Archive) -> Iterator[Node]:
    goals = [destination("pacs", AE_TITLE, archive.port)]
    settings = {"scope": {"max_kept_tokens": 4000}, "model": {"token_budget": 100000}}
    with Node(
        tmp_path_factory.mktemp("node"), bundle, destinations=goals, stability_seconds=0.5, **settings
    ) as running:
        yield running


@pytest.fixture(scope="module")
def uids(node: Node) -> tuple[str, str]:
    """Two studies that wait for the worker together, one with a localiser that is not used."""
    first, second = StudyFacts(description="MRI BRAIN of one"), StudyFacts(patient_id="TEST0002")
    with node.frozen("worker"):
        assert set(send(node.port, small_study(first, names=(*USED, LOCALISER)))) == {0}
        assert set(send(node.port, small_study(second, slices=12))) == {0}
        for study in (first, second):
            node.wait_for_state(study.study_uid, "complete")
    for study in (first, second):
        node.wait_for_state(study.study_uid, "delivered")
    return first.study_uid, second.study_uid


@pytest.fixture
def on_node(node: Node, cli: Cli) -> Cli:
    return lambda *arguments: cli(*arguments, "--config", node.config, "--json")


def refused(done: Outcome) -> str:
    """What was said on standard error by a command that failed and printed no document."""
    assert (done.code, done.out) == (1, ""), done
    return " ".join(done.err.split())


def spool_files(node: Node, uid: str) -> list[Path]:
    rows = [row for row in node.rows(instances) if row.study_id == node.study(uid).id]
    return sorted(node.configuration.node.spool / row.path for row in rows)


@contextmanager
def without(path: Path) -> Iterator[None]:
    """The file is away meanwhile."""
    kept = path.with_suffix(".kept")
    path.rename(kept)
    try:
        yield
    finally:
        kept.replace(path)


@contextmanager
def altered(path: Path) -> Iterator[None]:
    """One bit of the file's last byte is another meanwhile."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        yield
    finally:
        path.write_bytes(content)


@contextmanager
def changed(node: Node, table: sa.Table, where: sa.ColumnElement[bool], **values: Any) -> Iterator[None]:
    """A row says something else meanwhile."""
    with node.registry._read() as connection:
        before = connection.execute(sa.select(*(table.c[name] for name in values)).where(where)).one()._asdict()
    for content in (values, before):
        with node.registry._write() as connection:
            assert connection.execute(table.update().where(where).values(content)).rowcount == 1
        if content is values:
            yield


def test_the_record_answers_what_an_auditor_asks(
    node: Node, archive: Archive, bundle: Path, uids: tuple[str, str], on_node: Cli, cli: Cli
) -> None:
    answer = on_node("provenance", uids[0]).json
    study, manifest = node.study(uids[0]), read_manifest(bundle)
    [report] = [dcmread(path) for path in archive.reports if dcmread(path).StudyInstanceUID == uids[0]]

    assert (answer["id"], answer["study_instance_uid"], answer["revision"]) == (study.id, uids[0], 1)
    assert answer["sr_sop_instance_uid"] == report.SOPInstanceUID == study.report_uid
    assert answer["sr_series_instance_uid"] == report.SeriesInstanceUID
    assert (answer["priority"], answer["findings"]) == (
        {"level": study.level, "rule": study.rule},
        list(study.findings),
    )

    assert answer["bundle"] == {
        "id": manifest.id,
        "name": manifest.name,
        "version": manifest.version,
        "training_state": "untrained",
        "device_uid": manifest.device_uid,
        "path": str(bundle),
        "manifest": hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest(),
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in bundle.glob("*.safetensors")},
    }

    files = {str(dcmread(path).SOPInstanceUID): path for path in spool_files(node, uids[0])}
    rows = {row.sop_instance_uid: row for row in node.rows(instances) if row.study_id == study.id}
    assert {image["sop_instance_uid"] for image in answer["images"]} == files.keys()
    assert len(answer["images"]) == 24
    for image in answer["images"]:
        row, path = rows[image["sop_instance_uid"]], files[image["sop_instance_uid"]]
        assert (image["sha256"], image["size"], image["path"]) == (row.digest, row.size, row.path)
        assert hashlib.sha256(path.read_bytes()[-row.size :]).hexdigest() == image["sha256"]
        assert image["series_instance_uid"] == dcmread(path).SeriesInstanceUID
        assert image["transfer_syntax_uid"] == dcmread(path).file_meta.TransferSyntaxUID
    used = {image["sop_instance_uid"] for image in answer["images"] if image["used"]}
    assert used == evidence(report)
    assert len(used) == 16

    assert [(one["name"], one["images"], one["images_used"]) for one in answer["series"]] == [
        (name.replace(" ", "_"), 8, 8) for name in USED
    ]
    assert all(0 < one["tokens_kept"] <= one["tokens_total"] for one in answer["series"])
    [aside] = answer["set_aside"]
    assert (aside["reason"], aside["images"]) == ("localiser", 8)
    assert aside["series_instance_uid"] not in {one["series_instance_uid"] for one in answer["series"]}
    assert answer["objects"] == {"current": 24}
    assert (answer["study_description"], answer["calling_ae_titles"]) == ("MRI BRAIN of one", [SENDER])

    checked = cli("config", "check", "--config", node.config, "--json").json
    assert answer["configuration"]["digest"] == checked["digest"]
    assert answer["configuration"]["settings"]["scope"]["max_kept_tokens"] == 4000
    assert answer["configuration"]["settings"]["worklist"]["mapping"]["high"] == "urgent"
    assert answer["software"].keys() >= {"python", "platform", "source", "prima-node", "torch", "numpy", "pydicom"}
    assert answer["software"].keys() >= {"SimpleITK", "monai", "highdicom"}
    assert all(answer["software"].values())
    assert (answer["machine"]["device"], answer["machine"]["threads"]) == ("cpu", 1)
    assert (answer["precision"], answer["batch"]["studies"]) == ("fp32", 2)
    tokens = [sum(one["tokens_kept"] for one in on_node("provenance", uid).json["series"]) for uid in uids]
    assert answer["batch"]["tokens"] == sum(tokens)

    [said] = [row for row in node.rows(predictions) if row.study_id == study.id]
    assert answer["logits"] == said.logits
    assert {task: list(logits) for task, logits in answer["logits"].items()} == {
        task: list(names) for task, names in manifest.labels.items()
    }

    stages = ("first_image", "last_image", "complete", "claimed", "reported", "recorded")
    times = [datetime.fromisoformat(answer["times"][name]) for name in stages]
    assert times == sorted(times)
    assert answer["seconds"].keys() == {"prepare", "tokenize", "study_model", "heads"}
    assert all(seconds > 0 for seconds in answer["seconds"].values())
    [sent] = answer["deliveries"]
    assert (sent["destination"], sent["kind"], sent["state"]) == ("pacs", "sr", "delivered")
    assert datetime.fromisoformat(sent["delivered_at"]) > times[-1]


def test_people_read_the_same_without_a_patients_name(node: Node, uids: tuple[str, str], cli: Cli) -> None:
    shown = cli("provenance", node.study(uids[0]).id, "--config", node.config)
    assert shown.code == 0
    assert "24 given to the model, 16 used" in shown.out
    assert "2 studies at once" in shown.out
    scores = [line for line in shown.out.splitlines() if "uncalibrated score" in line]
    assert len(scores) == len(node.study(uids[0]).findings)
    assert "Test" not in shown.out


def test_the_numbers_come_out_again_though_the_study_had_company(uids: tuple[str, str], on_node: Cli) -> None:
    for uid, count in zip(uids, (24, 24), strict=True):
        done = on_node("replay", uid)
        assert done.code == 0, done.err
        answer = done.json
        assert answer["same"]
        assert answer["greatest_difference"] <= answer["tolerance"] == 1e-5
        assert (answer["images"], answer["differences"], answer["notes"]) == (count, [], [])


def test_people_read_how_far_it_is_the_same(node: Node, uids: tuple[str, str], cli: Cli) -> None:
    shown = cli("replay", uids[0], "--config", node.config)
    assert shown.code == 0
    assert "24 images: every byte as it was received" in shown.out
    assert "revision 1: the same; greatest difference" in shown.out


def test_an_altered_image_is_found(node: Node, uids: tuple[str, str], on_node: Cli) -> None:
    path = spool_files(node, uids[0])[3]
    with altered(path):
        words = refused(on_node("replay", uids[0]))
    assert "1 of 24 images are not what was received" in words
    assert str(path) in words
    assert uids[0] not in words


def test_a_deleted_image_is_found_even_one_that_was_not_used(node: Node, uids: tuple[str, str], on_node: Cli) -> None:
    unused = next(image for image in on_node("provenance", uids[0]).json["images"] if not image["used"])
    path = node.configuration.node.spool / unused["path"]
    with without(path):
        words = refused(on_node("replay", uids[0]))
    assert "1 of 24 images are missing" in words
    assert str(path) in words


def test_an_altered_or_another_bundle_is_refused_and_a_moved_one_is_not(
    bundle: Path, uids: tuple[str, str], on_node: Cli, tmp_path: Path
) -> None:
    with altered(bundle / "study_model.safetensors"):
        assert "study_model.safetensors: SHA-256 differs" in refused(on_node("replay", uids[0]))
    with without(bundle / "bundle.json"):
        assert "bundle.json" in refused(on_node("replay", uids[0]))
    assert "SHA-256 differs" in refused(on_node("replay", uids[0], "--bundle", damaged(bundle, tmp_path / "damaged")))
    other = new_bundle(tmp_path / "other", seed=1)
    assert f"the result was made by {read_manifest(bundle).id}" in refused(
        on_node("replay", uids[0], "--bundle", other)
    )
    moved = Path(shutil.copytree(bundle, tmp_path / "moved"))
    assert on_node("replay", uids[0], "--bundle", moved).json["same"]
    renamed = json.loads((moved / "bundle.json").read_text()) | {"version": "2"}
    (moved / "bundle.json").write_text(json.dumps(renamed))
    assert read_manifest(moved).id == read_manifest(bundle).id
    assert "files differ" in refused(on_node("replay", uids[0], "--bundle", moved))


def test_a_recorded_number_that_was_tampered_with_is_found(node: Node, uids: tuple[str, str], on_node: Cli) -> None:
    mine = predictions.c.study_id == node.study(uids[0]).id
    logits = on_node("provenance", uids[0]).json["logits"]
    name = next(iter(logits["referral"]))
    logits["referral"][name] += 3e-5
    with changed(node, predictions, mine, logits=logits):
        done = on_node("replay", uids[0])
    assert (done.code, done.json["same"]) == (1, False)
    assert done.json["output"] == f"referral.{name}"
    assert done.json["greatest_difference"] == pytest.approx(3e-5, rel=0.2)
    assert on_node("replay", uids[0]).code == 0


def test_a_record_of_other_tokens_is_found(node: Node, uids: tuple[str, str], on_node: Cli) -> None:
    [row] = [row for row in node.rows(provenance) if row.result_id == result_of(node, uids[0]).id]
    document = json.loads(json.dumps(row.document))
    document["series"][0]["tokens_kept"] += 1
    document["software"]["numpy"] = "1.0"
    with changed(node, provenance, provenance.c.result_id == row.result_id, document=document):
        done = on_node("replay", uids[0])
    assert done.code == 1
    assert done.json["greatest_difference"] <= 1e-5
    assert [text.partition(":")[0] for text in done.json["differences"]] == ["tokens_kept of a series"]
    assert [text.partition(" then")[0] for text in done.json["notes"]] == ["numpy: 1.0"]


def test_each_report_of_a_study_keeps_its_own_record(node: Node, on_node: Cli) -> None:
    study = StudyFacts()
    images = small_study(study, names=(*USED, "COR T2"))
    early, late = images[:16], images[16:]
    assert set(send(node.port, early)) == {0}
    node.wait_for_state(study.study_uid, "delivered")
    assert set(send(node.port, late)) == {0}
    node.wait_for_state(study.study_uid, "delivered", revision=2)
    first, newest = (on_node("provenance", study.study_uid, *which).json for which in (("--revision", 1), ()))
    assert (first["revision"], len(first["images"]), len(first["series"])) == (1, 16, 2)
    assert (newest["revision"], len(newest["images"]), len(newest["series"])) == (2, 24, 3)
    for which in (("--revision", 1), ("--revision", 2)):
        assert on_node("replay", study.study_uid, *which).json["same"]
    assert "no report of revision 3" in refused(on_node("provenance", study.study_uid, "--revision", 3))


def test_a_result_from_before_records_were_kept_is_said_to_be_one(
    node: Node, uids: tuple[str, str], on_node: Cli
) -> None:
    with node.registry._write() as connection:
        mine = provenance.c.result_id == result_of(node, uids[1]).id
        connection.execute(provenance.delete().where(mine))
    for command in ("provenance", "replay"):
        assert "before the node kept records" in refused(on_node(command, uids[1]))


def test_an_unknown_study_and_one_without_a_report_are_said_to_be_so(node: Node, on_node: Cli) -> None:
    assert "no such study" in refused(on_node("provenance", "1.2.3"))
    study = StudyFacts(description="MRI KNEE")
    knee = small_study(study, names=("SAG KNEE", "COR KNEE"))
    for image in knee:
        image.BodyPartExamined = "KNEE"
    assert set(send(node.port, knee)) == {0}
    node.wait_for_state(study.study_uid, "out_of_scope")
    assert "was never reported" in refused(on_node("replay", study.study_uid))


def result_of(node: Node, uid: str) -> Any:
    [row] = [row for row in node.rows(results) if row.study_id == node.study(uid).id]
    return row
