"""The command line against a running node: the JSON, exit codes and behaviour that site scripts rely on.

One node and two archives serve most tests; those that need another configuration start their own. Commands run in this
process, where their standard output is caught whole, but for one that shows that a real process behaves alike.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE
from safetensors.numpy import load_file, save_file

from dicom_node.admin import main as command_line
from dicom_node.audit.recorder import trail_of
from dicom_node.base.config import load_configuration
from dicom_node.base.errors import ConfigurationError, PeerBusy, PeerRefused, PeerUnreachable
from dicom_node.base.events import Event as LogEvent
from dicom_node.demo.archive import AE_TITLE, Archive
from dicom_node.jobs.database import migrate
from dicom_node.jobs.pulse import Pulse
from dicom_node.jobs.tables import results
from dicom_node.stages import load_worker
from prima_core import bundle as bundles
from prima_core.base.errors import BundleError
from support.audit_messages import event, faults
from support.command_line import Cli
from support.dicom_factory import StudyFacts, write
from support.node import Node, destination, dicom_node, evidence, send, small_study
from support.peers import CLIENT, free_port, listening, receiver

pytestmark = pytest.mark.slow

STUDY_KEYS = {
    *("study_instance_uid", "state", "reason", "revision", "instances", "received_at"),
    *("priority", "findings", "deliveries"),
}
DELIVERY_KEYS = {"destination", "kind", "state", "attempts", "last_error"}
FINDING_KEYS = {"name", "code", "scheme", "meaning", "score", "calibrated"}
INFER_KEYS = {
    *("study_instance_uid", "state", "reason", "bundle", "series", "set_aside"),
    *("diagnosis", "referral", "priority", "precision", "seconds"),
}
STARTED, LOG_USED, KEPT_OUT = ("110100", "110120"), ("110101", None), ("110113", "110126")
BEGIN, ACCESSED, TRANSFERRED = "110102", "110103", "110104"
SECONDS_KEYS = {"prepare", "tokenize", "study_model", "heads", "total"}


@dataclass(frozen=True)
class Site:
    """A node and the two archives it sends to."""

    node: Node
    first: Archive
    second: Archive

    def receive(self, study: StudyFacts, **options: Any) -> None:
        """Have the node receive a study that is in scope."""
        assert set(send(self.node.port, small_study(study), **options)) == {0}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, random_bundle: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with Archive(folder / "first") as first, Archive(folder / "second") as second:
        goals = [destination("first", AE_TITLE, first.port), destination("second", AE_TITLE, second.port)]
        with Node(folder, random_bundle, destinations=goals) as node:
            yield Site(node, first, second)


@pytest.fixture
def on_site(site: Site, cli: Cli) -> Cli:
    """Run `dicom-node` on the site's configuration."""
    return lambda *arguments: cli(*arguments, "--config", site.node.config)


def reports_of(archive: Archive, study: StudyFacts) -> list[Dataset]:
    """What an archive was sent for a study, in order; the same object twice would be there twice."""
    documents = [dcmread(path) for path in list(archive.reports)]
    return [document for document in documents if document.StudyInstanceUID == study.study_uid]


def states(study: dict[str, Any]) -> dict[str, str]:
    return {delivery["destination"]: delivery["state"] for delivery in study["deliveries"]}


def test_a_study_has_every_key_of_the_contract(site: Site, on_site: Cli) -> None:
    study = StudyFacts()
    site.receive(study)
    found = site.node.wait_for_state(study.study_uid, "delivered")
    listed = on_site("studies", "--json")
    assert listed.code == 0
    [one] = [item for item in listed.json if item["study_instance_uid"] == study.study_uid]
    assert one.keys() >= STUDY_KEYS
    assert (one["state"], one["reason"], one["revision"], one["instances"]) == ("delivered", None, 1, 16)
    assert one["priority"].keys() == {"level", "rule"}
    assert one["findings"]
    assert all(finding.keys() == FINDING_KEYS for finding in one["findings"])
    assert all(delivery.keys() == DELIVERY_KEYS for delivery in one["deliveries"])
    assert states(one) == {"first": "delivered", "second": "delivered"}
    by_uid, by_short_id = on_site("study", study.study_uid, "--json"), on_site("study", found.id, "--json")
    assert by_uid.json == by_short_id.json
    assert by_uid.json.items() >= one.items()
    assert by_uid.json["objects"] == {"current": 16}
    history = [event["to"] for event in by_uid.json["events"]]
    assert history == ["receiving", "complete", "running", "reported", "delivered"]


def test_a_real_process_prints_the_same(site: Site, on_site: Cli) -> None:
    process = site.node.cli("studies", "--json")
    assert process.returncode == 0
    assert json.loads(process.stdout) == on_site("studies", "--json").json


def test_tables_for_people_name_every_study_and_no_patient(site: Site, on_site: Cli) -> None:
    study = StudyFacts(patient_id="SECRET77", patient_name="Secret^Person", accession_number="ACC7777")
    site.receive(study)
    found = site.node.wait_for_state(study.study_uid, "delivered")
    for command in (["studies"], ["study", study.study_uid], ["queue"]):
        shown = on_site(*command)
        assert shown.code == 0
        assert found.id in shown.out or command == ["queue"]
        assert not any(secret in shown.out for secret in ("SECRET77", "Secret", "ACC7777"))


def test_an_unknown_study_and_nothing_to_retry_fail_with_the_reason(site: Site, on_site: Cli) -> None:
    unknown = on_site("study", "1.2.3.4", "--json")
    assert (unknown.code, unknown.out) == (1, "")
    assert "no such study" in unknown.err
    study = StudyFacts()
    site.receive(study)
    site.node.wait_for_state(study.study_uid, "delivered")
    nothing = on_site("retry", study.study_uid, "--json")
    assert (nothing.code, nothing.out) == (1, "")
    assert "nothing to retry" in nothing.err


def test_retry_runs_a_study_that_ended_without_a_report_again(site: Site, on_site: Cli) -> None:
    study = StudyFacts()
    assert set(send(site.node.port, small_study(study, names=("AX FLAIR",)))) == {0}
    ended = site.node.wait_for_state(study.study_uid, "out_of_scope")
    assert ended.reason is not None
    [listed] = [s for s in on_site("studies", "--state", "out_of_scope", "--json").json if s["id"] == ended.id]
    assert listed["reason"] == ended.reason
    retried = on_site("retry", study.study_uid, "--json")
    assert (retried.code, retried.json["queued"]) == (0, True)

    def ran_again() -> bool:
        history = [event.to_state for event in site.node.registry.history(ended.id)]
        return history.count("running") == 2 and history[-1] == "out_of_scope"

    site.node.wait(ran_again, "the study ran a second time")


def test_a_pause_holds_one_destination_and_intake_goes_on(site: Site, on_site: Cli) -> None:
    study = StudyFacts()
    assert on_site("pause", "--destination", "first", "--json").json == {"paused": ["first"]}
    try:
        site.receive(study)
        site.node.wait(lambda: reports_of(site.second, study), "the other destination has the report")
        shown = site.node.wait_for_state(study.study_uid, "reported")
        assert shown.reason is None
        assert states(on_site("study", study.study_uid, "--json").json)["first"] == "pending"
        assert reports_of(site.first, study) == []
    finally:
        assert on_site("resume", "--destination", "first", "--json").json == {"paused": []}
    site.node.wait_for_state(study.study_uid, "delivered")
    assert len(reports_of(site.first, study)) == len(reports_of(site.second, study)) == 1


def test_a_pause_of_everything_holds_all_results(site: Site, on_site: Cli) -> None:
    study = StudyFacts()
    assert on_site("pause", "--json").json == {"paused": ["*"]}
    try:
        site.receive(study)
        site.node.wait_for_state(study.study_uid, "reported")
        shown = on_site("study", study.study_uid, "--json").json
        assert states(shown) == {"first": "pending", "second": "pending"}
        assert [delivery["attempts"] for delivery in shown["deliveries"]] == [0, 0]
    finally:
        assert on_site("resume", "--json").json == {"paused": []}
    site.node.wait_for_state(study.study_uid, "delivered")


def test_a_pause_of_an_unknown_destination_is_wrong_usage(on_site: Cli) -> None:
    wrong = on_site("pause", "--destination", "nowhere", "--json")
    assert (wrong.code, wrong.out) == (2, "")
    assert "nowhere" in wrong.err


def test_late_images_make_a_second_report_that_names_the_first(site: Site, on_site: Cli) -> None:
    study = StudyFacts()
    site.receive(study)
    site.node.wait_for_state(study.study_uid, "delivered")
    late = small_study(study, names=("COR T2",))
    assert set(send(site.node.port, late)) == {0}
    site.node.wait_for_state(study.study_uid, "delivered", revision=2)
    first, second = reports_of(site.first, study)
    assert "PredecessorDocumentsSequence" not in first
    [predecessor] = second.PredecessorDocumentsSequence
    [series] = predecessor.ReferencedSeriesSequence
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence] == [first.SOPInstanceUID]
    assert {image.SOPInstanceUID for image in late} <= evidence(second)
    assert len(evidence(second)) == 24
    shown = on_site("study", study.study_uid, "--json").json
    assert (shown["revision"], shown["instances"], shown["sr_sop_instance_uid"]) == (2, 24, second.SOPInstanceUID)


def test_an_urgent_study_overtakes_those_that_wait(site: Site, on_site: Cli) -> None:
    waiting = [StudyFacts(), StudyFacts()]
    urgent = StudyFacts()
    node = site.node
    with node.frozen("worker"):
        for study in waiting:
            site.receive(study)
            node.wait_for_state(study.study_uid, "complete")
        images = small_study(urgent)
        assert set(send(node.port, images[:-1])) == {0}
        assert send(node.port, images[-1:], priority=1) == [0], "one image of priority HIGH is enough"
        node.wait_for_state(urgent.study_uid, "complete")
        queue = on_site("queue", "--json")
        assert queue.code == 0
        order = [study.study_uid for study in (urgent, *waiting)]
        assert [item["study_instance_uid"] for item in queue.json] == order
        assert [item["urgent"] for item in queue.json] == [True, False, False]
    ids = [node.wait_for_state(uid, "delivered").id for uid in order]
    claimed = [line["study"] for line in node.log_lines() if line["number"] == LogEvent.STUDY_CLAIMED.number]
    assert [study for study in claimed if study in ids] == ids
    assert on_site("queue", "--json").json == []


def test_what_the_node_writes_of_itself_names_no_patient_and_no_study(site: Site) -> None:
    study = StudyFacts(patient_id="SECRET99", patient_name="Hidden^Name", accession_number="ACC9999")
    site.receive(study)
    site.node.wait_for_state(study.study_uid, "delivered")
    log = site.node.log()
    assert "study reported" in log
    assert not [word for word in ("SECRET99", "Hidden", "ACC9999", study.study_uid, "19700101") if word in log]


def test_nothing_that_the_node_writes_is_for_other_users_of_the_machine(site: Site) -> None:
    study = StudyFacts()
    site.receive(study)
    site.node.wait_for_state(study.study_uid, "delivered")
    storage = site.node.configuration.node.storage
    written = [storage, *storage.rglob("*")]
    assert {"registry.sqlite", "configuration.json", "head"} <= {path.name for path in written}
    assert [str(path) for path in written if path.exists() and path.stat().st_mode & 0o077] == []


def test_a_study_leaves_its_way_through_the_house_in_the_audit_trail(site: Site, on_site: Cli) -> None:
    study = StudyFacts(patient_id="SECRET88", patient_name="Audited^Person")
    site.receive(study)
    site.node.wait_for_state(study.study_uid, "delivered")
    stranger = AE("SENDER")
    stranger.add_requested_context("1.2.840.10008.1.1")
    assert stranger.associate("127.0.0.1", site.node.port, ae_title="OTHER", evt_handlers=CLIENT).is_rejected

    def trail() -> list[str]:
        shown = on_site("audit", "show", "--last", "1000", "--json")
        return [record["message"] for record in shown.json]

    def of_study() -> list[str]:
        codes = [event(message)[0] for message in trail() if study.study_uid in message]
        return codes if codes.count(TRANSFERRED) == 3 else []

    codes = site.node.wait(of_study, "the study was received, and its report sent twice")
    assert sorted(codes) == [BEGIN, BEGIN, ACCESSED, TRANSFERRED, TRANSFERRED, TRANSFERRED]
    assert codes[0] == TRANSFERRED
    messages = site.node.wait(
        lambda: [one for one in [trail()] if any(event(message) == KEPT_OUT for message in one)], "the stranger"
    )[0]
    assert event(messages[0]) == STARTED
    assert [fault for message in messages for fault in faults(message)] == []
    assert not [word for message in messages for word in ("SECRET88", "Audited") if word in message]
    verified = on_site("audit", "verify", "--json")
    assert (verified.code, verified.json["ok"], verified.json["faults"]) == (0, True, [])
    assert event(trail()[-1]) == LOG_USED


def test_a_touched_audit_trail_is_said_to_be_one(tmp_path: Path, cli: Cli) -> None:
    config = tmp_path / "node.toml"
    config.write_text('[node]\nstorage = "node"\n')
    trail = trail_of(load_configuration(config))
    assert cli("audit", "verify", "--config", config).code == 2
    trail.append([f"<A>{number}</A>" for number in range(1, 4)])
    [file] = trail.files()
    file.write_text(file.read_text().replace("<A>2<", "<A>9<"))
    touched = cli("audit", "verify", "--config", config, "--json")
    assert (touched.code, touched.json["ok"], [fault["record"] for fault in touched.json["faults"]]) == (1, False, [2])
    assert "touched" in touched.err


def test_a_file_that_is_gone_when_the_study_runs_makes_its_report_partial(tmp_path: Path, random_bundle: Path) -> None:
    study = StudyFacts()
    node = Node(tmp_path, random_bundle, model={"retry_seconds": 0.001})
    with receiver(tmp_path) as receiving:
        assert set(send(receiving.port, small_study(study))) == {0}
        receiving.standings()
    now = time.time()
    node.registry.close_quiet(quiet_since=now, opened_before=0, at=now)
    files = node.configuration.node.spool.glob("*/*.dcm")
    max(files, key=lambda path: int(dcmread(path).InstanceNumber)).unlink()  # at a series' end: it stays a volume
    worker = load_worker(node.configuration, node.registry, Event(), Pulse(), "worker-")
    for _ in range(2):  # the second try may come with the first, so soon is it due
        worker.work_once(Event())
    found = node.study(study.study_uid)
    assert (found.state, node.registry.standings(found.id)["lost"]) == ("reported", 1)
    assert [one.reason for one in node.registry.history(found.id) if one.to_state == "failed"] == [
        "images of the study are missing from the spool"
    ]
    [report] = node.configuration.node.outgoing.glob("*.dcm")
    assert dcmread(report).CompletionFlag == "PARTIAL"
    node.registry.close()


def test_processes_run_on_the_configuration_that_the_node_was_started_with(site: Site) -> None:
    node = site.node
    frozen = node.configuration.node.storage / "configuration.json"
    assert load_configuration(frozen) == node.configuration
    assert frozen.stat().st_mode & 0o777 == 0o600, "it may hold the database's password"
    for pid in node.running().values():
        assert str(frozen) in Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def test_an_untrained_model_reports_and_its_result_stays_until_the_site_allows_it(
    tmp_path: Path, random_bundle: Path, cli: Cli
) -> None:
    study = StudyFacts()
    goals = [destination("pacs", AE_TITLE, free_port())]
    node = Node(tmp_path, random_bundle, destinations=goals, model={"allow_nonclinical": False})
    with receiver(tmp_path) as receiving:
        assert set(send(receiving.port, small_study(study))) == {0}
        receiving.standings()
    now = time.time()
    node.registry.close_quiet(quiet_since=now, opened_before=0, at=now)
    load_worker(node.configuration, node.registry, Event(), Pulse(), "worker-").work_once(Event())
    [shown] = cli("studies", "--json", "--config", node.config).json
    assert shown["state"] == "reported"
    assert "untrained" in shown["reason"]
    assert "model.allow_nonclinical" in shown["reason"]
    assert (shown["deliveries"], shown["training_state"]) == ([], "untrained")
    assert [row.sop_instance_uid for row in node.rows(results)] == [shown["sr_sop_instance_uid"]]
    node.registry.close()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[node]\nae_titel = 'X'\n", "node.ae_titel"),
        ("[node]\nport = 'many'\n", "node.port"),
        ("[[destinations]]\nname = 'a'\n", "destinations.0.ae_title"),
        ("[node]\nbind = '0.0.0.0'\n", "intake.peers"),
        ("[model]\nbundle = 'nothing-here'\n", "model.bundle"),
        ("[node\n", "node.toml"),
    ],
)
def test_a_wrong_configuration_is_refused_by_the_keys_name(tmp_path: Path, cli: Cli, text: str, key: str) -> None:
    config = tmp_path / "node.toml"
    config.write_text(text)
    refused = cli("config", "check", "--config", config, "--json")
    assert (refused.code, refused.out) == (2, "")
    assert key in refused.err


def test_a_missing_configuration_or_node_says_what_to_do(tmp_path: Path, cli: Cli) -> None:
    nowhere = cli("studies", "--config", tmp_path / "none.toml", "--json")
    assert (nowhere.code, nowhere.out) == (2, "")
    assert "node.example.toml" in nowhere.err
    (tmp_path / "node.toml").write_text("")
    never_started = cli("studies", "--config", tmp_path / "node.toml", "--json")
    assert never_started.code == 2
    assert "dicom-node serve" in never_started.err


def test_the_effective_configuration_is_shown(on_site: Cli, site: Site) -> None:
    checked = on_site("config", "check", "--json")
    assert (checked.code, checked.json["ok"], checked.json["bundle"]["training_state"]) == (0, True, "untrained")
    shown = on_site("config", "show", "--json")
    assert shown.code == 0
    assert shown.json["node"]["port"] == site.node.port
    assert shown.json["routes"] == []
    assert shown.json["report"]["sop_class"] == "comprehensive_3d"


def test_the_environment_may_name_the_configuration(site: Site, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOM_NODE_CONFIG", str(site.node.config))
    assert cli("queue", "--json").code == 0


def write_files(folder: Path, images: list[Dataset]) -> Path:
    for number, image in enumerate(images):
        write(image, folder / f"{number:04}.dcm")
    return folder


def test_infer_prints_the_contract(tmp_path: Path, random_bundle: Path, cli: Cli) -> None:
    study = StudyFacts()
    folder = write_files(tmp_path / "study", small_study(study))
    done = cli("infer", folder, "--bundle", random_bundle, "--precision", "fp32", "--embedding", "--json")
    assert done.code == 0, done.err
    answer = done.json
    assert answer.keys() == INFER_KEYS | {"study_embedding"}
    assert (answer["study_instance_uid"], answer["state"], answer["reason"]) == (study.study_uid, "done", None)
    assert answer["bundle"].keys() == {"id", "training_state"}
    assert [series["name"] for series in answer["series"]] == ["AX_FLAIR", "SAG_T1"]
    assert all({"series_instance_uid", "tokens_total", "tokens_kept"} <= series.keys() for series in answer["series"])
    assert (len(answer["diagnosis"]), len(answer["referral"]), len(answer["priority"])) == (52, 2, 4)
    assert answer["seconds"].keys() == SECONDS_KEYS
    assert answer["precision"] == "fp32"
    assert len(answer["study_embedding"]) == 256
    assert all(isinstance(value, float) for value in answer["study_embedding"])


def test_infer_out_of_scope_is_exit_code_3_with_the_reason(tmp_path: Path, random_bundle: Path, cli: Cli) -> None:
    folder = write_files(tmp_path / "study", small_study(StudyFacts(), names=("AX FLAIR",)))
    done = cli("infer", folder, "--bundle", random_bundle, "--json")
    answer = done.json
    assert (done.code, answer["state"]) == (3, "out_of_scope")
    assert answer["reason"]
    assert answer.keys() == INFER_KEYS
    assert (answer["diagnosis"], answer["referral"], answer["priority"], answer["precision"]) == ({}, {}, {}, None)
    assert answer["seconds"].keys() == SECONDS_KEYS
    assert {name for name, value in answer["seconds"].items() if value is not None} == {"prepare", "total"}
    with_embedding = cli("infer", folder, "--bundle", random_bundle, "--embedding", "--json").json
    assert with_embedding.keys() == INFER_KEYS | {"study_embedding"}
    assert with_embedding["study_embedding"] is None


def test_infer_says_what_is_wrong_with_its_call(tmp_path: Path, random_bundle: Path, cli: Cli) -> None:
    (tmp_path / "empty").mkdir()
    for code, arguments in (
        (2, ["infer"]),
        (2, ["infer", tmp_path]),
        (2, ["infer", tmp_path, "--bundle", random_bundle, "--precision", "fp64"]),
        (1, ["infer", tmp_path / "empty", "--bundle", random_bundle]),
        (1, ["infer", tmp_path, "--bundle", tmp_path / "no-bundle"]),
    ):
        wrong = cli(*arguments, "--json")
        assert (wrong.code, wrong.out) == (code, ""), arguments
        assert wrong.err


def test_a_released_checkpoint_becomes_a_bundle_that_verifies(tmp_path: Path, shared_data: Path, cli: Cli) -> None:
    golden = shared_data / "prima_golden"
    files = {
        "--full-model": golden / "primafullmodel.pt",
        "--tokenizer": golden / "vqvae.pth",
        "--tokenizer-config": golden / "tokenizer_config.json",
        "--out": tmp_path / "bundle",
    }
    arguments = [part for pair in files.items() for part in pair]
    imported = cli("model", "import-prima", *arguments, "--json")
    assert imported.code == 0, imported.err
    assert imported.json.keys() >= {"bundle", "diagnoses", "referrals", "priority_levels", "parameters"}
    assert imported.json["referrals"] == ["neurosurgery", "neurology"]
    verified = cli("model", "verify", tmp_path / "bundle", "--json")
    assert (verified.code, verified.json["id"]) == (0, imported.json["id"])
    again = cli("model", "import-prima", *arguments, "--json")
    assert (again.code, again.out) == (1, "")
    assert "exists already" in again.err


def altered(original: Path, folder: Path) -> tuple[Path, str]:
    """A bundle with one bit of one weight changed, and what must be named."""
    copy = Path(shutil.copytree(original, folder / "bundle"))
    path = copy / "study_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return copy, path.name


def incomplete(original: Path, folder: Path) -> tuple[Path, str]:
    """A bundle that was never whole: a tensor is missing and every hash fits, and what must be named."""
    copy = Path(shutil.copytree(original, folder / "bundle"))
    path = copy / "tokenizer.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    del tensors[name]
    save_file(tensors, path)
    document = json.loads((copy / "bundle.json").read_text())
    document["files"][path.name] = bundles._file_sha256(path)
    identity = bundles._identity(document)
    document |= {"id": bundles._bundle_id(document["name"], identity), "device_uid": bundles._device_uid(identity)}
    (copy / "bundle.json").write_text(json.dumps(document))
    return copy, name


@pytest.mark.parametrize("damage", [altered, incomplete])
def test_a_damaged_bundle_is_no_model_and_what_is_wrong_with_it_is_named(
    tmp_path: Path, random_bundle: Path, cli: Cli, damage: Callable[[Path, Path], tuple[Path, str]]
) -> None:
    bundle, named = damage(random_bundle, tmp_path)
    refused = cli("model", "verify", bundle, "--json")
    assert (refused.code, refused.out) == (1, "")
    assert named in refused.err
    node = Node(tmp_path / "node", bundle)
    migrate(node.configuration.node.database_url)
    with pytest.raises(ConfigurationError, match=rf"model\.bundle: .*{named}"):
        load_worker(node.configuration, node.registry, Event(), Pulse(), "worker-")
    node.registry.close()


def test_a_node_with_a_damaged_bundle_does_not_start(tmp_path: Path, random_bundle: Path) -> None:
    bundle, named = altered(random_bundle, tmp_path)
    node = Node(tmp_path / "node", bundle)
    served = dicom_node("serve", "--config", str(node.config))
    assert (served.returncode, served.stdout) == (2, "")
    assert f"model.bundle: {named}" in served.stderr
    assert not listening(node.port)


def test_a_node_without_a_bundle_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("")
    refused = dicom_node("serve", "--config", str(tmp_path / "node.toml"))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "model.bundle" in refused.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("reason"), 2),
        (PeerUnreachable("reason"), 4),
        (PeerBusy("reason"), 1),
        (PeerRefused("reason"), 1),
        (BundleError("reason"), 1),
        (PermissionError(13, "reason"), 1),
    ],
)
def test_every_kind_of_error_has_its_exit_code(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(command_line, "app", fail)
    ended = cli()
    assert (ended.code, ended.out) == (code, "")
    assert "reason" in ended.err
