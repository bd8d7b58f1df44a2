"""The receiving process stays light, and says what is wrong with its port."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dicom_node.base.errors import ConfigurationError
from dicom_node.intake.receiver import run_receiver
from dicom_node.jobs.registry import Registry
from support.peers import configuration_for, free_port


def test_neither_torch_nor_monai_is_ever_imported() -> None:
    program = (
        "import sys, dicom_node.intake.receiver, dicom_node.intake.content; "
        "print(sorted({'torch', 'monai', 'transformers', 'highdicom'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_port_in_use_is_a_configuration_error(tmp_path: Path) -> None:
    configuration = configuration_for(tmp_path, free_port())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", configuration.node.port))
        taken.listen()
        with pytest.raises(ConfigurationError, match=r"node\.port"):
            run_receiver(configuration, Registry(configuration.node.database_url), threading.Event())
