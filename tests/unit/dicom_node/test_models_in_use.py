"""Which models the worker has loaded as people change their mind, and when a bundle cannot be loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dicom_node import models_in_use
from dicom_node.base.config import Configuration, ModelSection, NodeSection
from dicom_node.base.errors import ConfigurationError
from dicom_node.bundles import identity_of
from dicom_node.console.health import health_problems
from dicom_node.jobs.models import KnownModel, Order
from dicom_node.jobs.registry import Registry
from dicom_node.models_in_use import FAULTS, ModelsInUse
from prima_core.bundle import read_manifest
from support.bundles import damaged, new_bundle
from support.studies import new_registry

BY = Order("anna", 1000.0)


class Site:
    """A registry, a configuration and the ids of two bundles beside the configured one."""

    def __init__(self, folder: Path, configured: Path, others: dict[str, Path]) -> None:
        self.registry: Registry = new_registry(folder)
        settings = ModelSection(bundle=configured, precision="fp32", device="cpu")
        self.configuration = Configuration(node=NodeSection(storage=folder), model=settings)
        self.first = read_manifest(configured).id
        self.ids = {name: self.tell(path) for name, path in others.items()}

    def tell(self, path: Path) -> str:
        manifest = read_manifest(path)
        self.registry.know_model(identity_of(manifest), path)
        return manifest.id

    def load(self) -> ModelsInUse:
        return ModelsInUse(self.configuration, self.registry)

    def activate(self, name: str) -> str:
        self.registry.activate_model(self.ids[name], self.first, BY)
        return self.ids[name]

    def shadow(self, name: str) -> str:
        self.registry.shadow_model(self.ids[name], self.first, BY)
        return self.ids[name]

    def known(self, bundle_id: str) -> KnownModel:
        return next(model for model in self.registry.models() if model.bundle_id == bundle_id)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_bundle(tmp_path_factory.mktemp("other") / "bundle", seed=1)


@pytest.fixture
def site(tmp_path: Path, random_bundle: Path, other: Path) -> Site:
    copy = Path(shutil.copytree(other, tmp_path / "copy"))
    return Site(
        tmp_path, random_bundle, {"other": copy, "broken": damaged(new_bundle(tmp_path / "c", 2), tmp_path / "d")}
    )


def in_use(models: ModelsInUse) -> tuple[str, str | None]:
    return models.active.identity.bundle_id, models.shadow.identity.bundle_id if models.shadow else None


def test_the_configured_bundle_is_active_until_another_is(site: Site) -> None:
    models = site.load()
    assert in_use(models) == (site.first, None)
    models.refresh()
    before = models.active
    other = site.activate("other")
    models.refresh()
    assert in_use(models) == (other, None)
    assert in_use(site.load()) == (other, None), "after a start the registry's word holds, not the configuration's"
    assert site.registry.rollback_model(BY) == site.first
    models.refresh()
    assert in_use(models) == (site.first, None)
    assert models.active.identity == before.identity


def test_a_shadow_comes_goes_and_becomes_active_without_being_loaded_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = site.load()
    other = site.shadow("other")
    models.refresh()
    assert in_use(models) == (site.first, other)
    assert [model.loaded_as for model in (site.known(site.first), site.known(other))] == ["active", "shadow"]
    site.registry.stop_shadow(BY)
    models.refresh()
    assert in_use(models) == (site.first, None)
    site.shadow("other")
    models.refresh()
    was = models.shadow
    monkeypatch.setattr(models_in_use, "load_bundle", None)
    site.activate("other")
    models.refresh()
    assert models.active is was
    assert in_use(models) == (other, None)


def test_a_broken_bundle_leaves_the_old_one_in_place_and_says_why(site: Site) -> None:
    models = site.load()
    broken = site.activate("broken")
    models.refresh()
    assert in_use(models) == (site.first, None)
    problem = site.known(broken).problem
    assert problem is not None
    assert "study_model.safetensors" in problem
    assert any(broken in said and problem in said for said in health_problems(site.registry, 0))
    assert in_use(site.load()) == (site.first, None), "a start goes on with what ran"


def test_a_broken_bundle_is_tried_again_when_a_person_names_it_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = site.load()
    broken = site.activate("broken")
    models.refresh()
    tries: list[Path] = []
    monkeypatch.setattr(models_in_use, "load_bundle", tries.append)
    models.refresh()
    assert tries == []
    monkeypatch.undo()
    path = site.known(broken).path
    shutil.rmtree(path)
    new_bundle(path, 2)
    site.activate("broken")
    models.refresh()
    assert in_use(models) == (broken, None)
    assert site.known(broken).problem is None


def test_another_bundle_in_the_folder_is_not_the_one_that_was_activated(site: Site, random_bundle: Path) -> None:
    models = site.load()
    other = site.activate("other")
    shutil.rmtree(site.known(other).path)
    shutil.copytree(random_bundle, site.known(other).path)
    models.refresh()
    assert in_use(models) == (site.first, None)
    assert "another bundle" in str(site.known(other).problem)


def test_a_broken_shadow_costs_nothing_but_itself(site: Site) -> None:
    models = site.load()
    broken = site.shadow("broken")
    models.refresh()
    assert in_use(models) == (site.first, None)
    assert site.known(broken).problem
    assert not any(broken in said for said in health_problems(site.registry, 0)), "reports are what they should be"


def test_what_cannot_be_loaded_for_want_of_memory_is_refused_like_a_broken_file(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = site.load()

    def full(*_: object) -> None:
        raise MemoryError("DOE^JOHN")

    monkeypatch.setattr(models_in_use, "build_model", full)
    other = site.activate("other")
    models.refresh()
    assert in_use(models) == (site.first, None)
    problem = site.known(other).problem
    assert problem is not None
    assert "MemoryError" in problem
    assert "DOE" not in problem


def test_a_bundle_that_ends_the_process_while_it_is_loaded_is_given_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.load()
    other = site.activate("other")
    real, dead = models_in_use.load_bundle, site.known(other).path

    class Killed(BaseException):
        pass

    def load(path: Path) -> object:
        if path == dead:
            raise Killed
        return real(path)

    monkeypatch.setattr(models_in_use, "load_bundle", load)
    for _ in range(FAULTS):
        with pytest.raises(Killed):
            site.load()
    assert in_use(site.load()) == (site.first, None)
    assert "ended" in str(site.known(other).problem)


def test_an_active_bundle_that_broke_after_it_ran_is_replaced_by_no_other(site: Site) -> None:
    models = site.load()
    other = site.activate("other")
    models.refresh()
    path = site.known(other).path / "study_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigurationError, match=rf"{other}.*rollback"):
        site.load()
    site.registry.rollback_model(BY)
    assert in_use(site.load()) == (site.first, None)


def test_every_model_keeps_latents_of_its_own(site: Site) -> None:
    site.shadow("other")
    models = site.load()
    assert models.shadow is not None
    stores = [models.active.model.store, models.shadow.model.store]
    assert stores == [models.active.cache, models.shadow.cache]
    assert None not in stores
    assert stores[0] is not stores[1]
