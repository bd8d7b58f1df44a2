"""An installed wheel has every file that the packages read: what is no module is named in setup.cfg."""

from __future__ import annotations

from configparser import ConfigParser
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("dicom_node", "prima_core", "training")
IGNORED = ("__pycache__", ".mypy_cache")


def package_of(path: Path) -> Path:
    """The innermost package that a file lies in."""
    return next(folder for folder in path.parents if (folder / "__init__.py").exists())


def test_every_file_is_in_the_wheel() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = [pattern.strip() for pattern in setup["options.package_data"]["*"].split(",")]
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()]
    data = [
        path
        for path in files
        if not any(part in IGNORED for part in path.parts)
        and not (path.suffix == ".py" and (path.parent / "__init__.py").exists())
    ]
    assert len(data) > 20
    left_out = [
        str(path.relative_to(ROOT))
        for path in data
        if not any(fnmatch(path.relative_to(package_of(path)).as_posix(), pattern) for pattern in patterns)
    ]
    assert left_out == []
