"""One node a storage folder, and a database that describes this folder and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node import storage
from dicom_node.base.config import Configuration, configuration_from
from dicom_node.base.errors import ConfigurationError
from dicom_node.storage import STORAGE_ID, check_belongs_together, only_one
from support.studies import new_registry


def configured(folder: Path) -> Configuration:
    folder.mkdir(parents=True, exist_ok=True)
    return configuration_from({"node": {"storage": str(folder)}}, folder)


def test_a_second_node_on_the_same_folder_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "TAKEOVER_SECONDS", 0.0)
    with (
        only_one(tmp_path / "node"),
        pytest.raises(ConfigurationError, match="already runs"),
        only_one(tmp_path / "node"),
    ):
        pass
    with only_one(tmp_path / "node"):
        pass


def test_a_database_of_another_folder_is_refused_until_a_person_says_so(tmp_path: Path) -> None:
    registry = new_registry(tmp_path)
    check_belongs_together(configured(tmp_path / "one"), registry)
    check_belongs_together(configured(tmp_path / "one"), registry)
    with pytest.raises(ConfigurationError, match="another storage folder") as refused:
        check_belongs_together(configured(tmp_path / "not-mounted"), registry)
    mine = (tmp_path / "one" / STORAGE_ID).read_text()
    assert mine in str(refused.value)
    (tmp_path / "not-mounted" / STORAGE_ID).write_text(mine)
    check_belongs_together(configured(tmp_path / "not-mounted"), registry)


def test_a_database_that_was_lost_is_begun_anew(tmp_path: Path) -> None:
    check_belongs_together(configured(tmp_path / "one"), new_registry(tmp_path))
    (tmp_path / "fresh").mkdir()
    check_belongs_together(configured(tmp_path / "one"), new_registry(tmp_path / "fresh"))
