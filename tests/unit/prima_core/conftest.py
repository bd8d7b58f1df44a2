"""The golden bundle, imported once for all tests of the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prima_core.bundle import Bundle, build_model
from prima_core.prima import Prima
from support.golden import STUDIES, GoldenStudy, golden_study, import_golden

torch.set_num_threads(1)  # tests share the processor, with each other and with the peers they start


@pytest.fixture(scope="session")
def golden_bundle(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return import_golden(shared_data, tmp_path_factory.mktemp("golden") / "bundle")


@pytest.fixture(scope="session")
def golden_model(golden_bundle: Bundle) -> Prima:
    return build_model(golden_bundle, "cpu", "fp32")


@pytest.fixture(scope="session", params=STUDIES)
def golden(request: pytest.FixtureRequest, shared_data: Path) -> GoldenStudy:
    return golden_study(shared_data, request.param)


@pytest.fixture(scope="session")
def golden_studies(shared_data: Path) -> list[GoldenStudy]:
    return [golden_study(shared_data, name) for name in STUDIES]
