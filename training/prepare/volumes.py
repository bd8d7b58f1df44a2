"""NIfTI files of one study → a prepared study: what the layouts of public collections share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prima_core.base.errors import OutOfScope, UnusableSeries
from prima_core.base.types import PreparedSeries, PreparedStudy, SetAside
from prima_core.scope import ScopeSettings, kind_of, too_few
from prima_core.volume.faults import unexpected
from training.prepare.nifti import prepare_nifti


@dataclass(frozen=True)
class VolumeFile:
    """One series: its file, and its name as the model reads it. plane: axial, sagittal, coronal or "".

    identifier: stands where a Series Instance UID would.
    """

    path: Path
    identifier: str
    name: str
    plane: str = ""


def prepare_volumes(
    study: str,
    description: str,
    files: Iterable[VolumeFile | SetAside],
    settings: ScopeSettings,
    age_years: float | None,
) -> PreparedStudy:
    """Files are read one after the other, and may be made only when they are asked for.

    A file that cannot be used is set aside. Raises OutOfScope when too few are left or the settings exclude the study.
    """
    if reason := settings.exclusion.reason(description, age_years):
        raise OutOfScope(reason, (), study)
    outcomes = [file if isinstance(file, SetAside) else _prepared(file, settings.max_kept_tokens) for file in files]
    series = tuple(one for one in outcomes if isinstance(one, PreparedSeries))
    set_aside = tuple(one for one in outcomes if isinstance(one, SetAside))
    if reason := too_few(len(series), settings.min_series, "series of the head that can be read as volumes"):
        raise OutOfScope(reason, set_aside, study)
    return PreparedStudy(study, description, series, set_aside, age_years)


def _prepared(file: VolumeFile, max_kept_tokens: int) -> PreparedSeries | SetAside:
    if kind := kind_of((), file.name):
        return SetAside(file.identifier, kind)
    try:
        return prepare_nifti(file.path, file.identifier, file.name, max_kept_tokens, file.plane)
    except UnusableSeries as error:
        return SetAside(file.identifier, str(error))
    except Exception as error:  # noqa: BLE001 - one series that nobody thought of must not end the study
        return SetAside(file.identifier, unexpected(error))
