"""What a result was computed with besides the model: software, and the machine that torch ran on."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dicom_node
import prima_core

if TYPE_CHECKING:
    from prima_core.base.device import Runtime

#: What decodes, resamples and computes, and what writes the report.
PACKAGES = (
    *("prima-node", "torch", "monai", "numpy", "SimpleITK", "safetensors"),
    *("pydicom", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-libjpeg", "pylibjpeg-rle", "pyjpegls", "highdicom"),
)
CPU_INFO = Path("/proc/cpuinfo")


def software() -> dict[str, str | None]:
    """Versions by the names of their packages, None for one that is not installed; nothing of them is imported.

    `source` is the SHA-256 of the node's own modules and tables: a version's number says less.
    """
    found = {"python": platform.python_version(), "platform": platform.platform(), "source": _source()}
    return found | {name: _version(name) for name in PACKAGES}


def machine(runtime: Runtime) -> dict[str, Any]:
    """The device by torch's name and its maker's, and what else may change the last bits of a result."""
    import torch

    found: dict[str, Any] = {"device": str(runtime.device), "threads": torch.get_num_threads()}
    if runtime.device.type == "cuda":
        name, cudnn = torch.cuda.get_device_name(runtime.device), torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        return found | {"name": name, "cuda": torch.version.cuda, "cudnn": cudnn}
    return found | {"name": _processor(), "instructions": torch.backends.cpu.get_cpu_capability()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _source() -> str:
    total = hashlib.sha256()
    for package in (dicom_node, prima_core):
        folder = Path(package.__path__[0])
        for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".csv")):
            total.update(f"{package.__name__}/{path.relative_to(folder).as_posix()}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


@cache
def _processor() -> str:
    """As Linux says it; elsewhere as Python does."""
    lines = CPU_INFO.read_text("utf-8", "replace").splitlines() if CPU_INFO.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
