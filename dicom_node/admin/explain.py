"""`explain`: what a finding of a result rests on, worked out again offline, as pictures and heat maps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import SimpleITK as sitk
import typer
from PIL import Image

from dicom_node.admin.options import DEFAULT_CONFIG, ConfigFile, open_registry
from dicom_node.admin.output import Json, notes, print_json, progress, result
from dicom_node.admin.provenance import Revision, bundle_folder, result_record
from dicom_node.admin.studies import Uid
from dicom_node.base.config import Configuration
from dicom_node.base.errors import ConfigurationError, PermanentError
from dicom_node.base.provenance import ResultRecord
from dicom_node.base.types import Level, Priority, StudyResult
from dicom_node.bundles import identity_of
from dicom_node.intake.spool import Spool
from dicom_node.latent_cache import latent_cache
from dicom_node.models_in_use import scores_of
from dicom_node.replay import check_bundle, check_images, recorded, recorded_scope
from dicom_node.reporting.pages import Reader, key_slice_page
from dicom_node.reporting.wording import Wording
from prima_core.base.types import PreparedStudy
from prima_core.bundle import Bundle
from prima_core.prepare import prepare_study
from prima_core.volume.geometry import as_image

app = typer.Typer()

NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")  # a site may name its heads as it likes


@app.command()
def explain(
    uid: Uid,
    out: Annotated[Path, typer.Option(help="Folder for the pictures and heat maps; made if it is not there.")],
    finding: Annotated[
        list[str] | None, typer.Option(help="A diagnosis by the bundle's name; all that were reported when left out.")
    ] = None,
    revision: Revision = None,
    method: Annotated[str | None, typer.Option(help="lime or gradient; the configuration's when left out.")] = None,
    samples: Annotated[int | None, typer.Option(min=32, max=4096, help="Of LIME.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of LIME; the same seed gives the same answer.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Where the bundle lies now, if it was moved.")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    json: Json = False,
) -> None:
    """Show on the images what a finding of a result rests on. Changes and sends nothing.

    Writes pages as PNG and a heat map for each finding and series as NIfTI, in the source's own geometry. The pictures
    are patient data.
    """
    configuration, registry = open_registry(config)
    record = result_record(registry, uid, revision)
    kept = recorded(record)
    spool = Spool(configuration.node.spool)
    found = check_bundle(kept, bundle or bundle_folder(registry, kept))
    check_images(kept.images, spool)
    chosen = {"method": method, "samples": samples, "seed": seed}
    given = {name: value for name, value in chosen.items() if value is not None}
    if method not in (None, "lime", "gradient"):
        raise ConfigurationError("--method: use lime or gradient")
    settings = configuration.explanation.model_validate(configuration.explanation.model_dump() | given)
    configuration = configuration.model_copy(update={"explanation": settings})
    files = {image.sop_instance_uid: spool.folder / image.path for image in kept.images}
    described, silent = _explain(configuration, record, found, files, finding or [], out)
    for name in silent:
        notes.print(f"nothing in the images could be singled out for {name}")
    if json:
        print_json({"study_instance_uid": record.study_instance_uid, "revision": record.revision, "series": described})
        return
    for one in described:
        result.print(f"{one['finding']} in {one['series']}: {one['method']}, share {one['share']:+.3f} of the logit")
        for path in one["files"]:
            result.print(f"  {path}")


def _explain(
    configuration: Configuration,
    record: ResultRecord,
    bundle: Bundle,
    files: dict[str, Path],
    findings: list[str],
    out: Path,
) -> tuple[list[dict[str, Any]], list[str]]:
    """What was found, and the findings for which nothing was."""
    from dicom_node.explaining import described
    from prima_core.bundle import build_model
    from prima_core.explanation import Question
    from prima_core.key_slices import ExplanationSettings
    from prima_core.key_slices import explain as explain_on_images

    document, chosen = recorded(record).document, configuration.explanation
    with progress() as bar:
        task = bar.add_task("explaining", total=None)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        study = prepare_study(list(files.values()), recorded_scope(document), tell)
        said = _result(record, bundle, study)
        unknown = set(findings) - {score.name for score in said.diagnoses}
        if unknown:
            raise PermanentError(f"the bundle has no diagnosis '{min(unknown)}'; `dicom-node model verify` lists them")
        names = findings or [score.name for score in said.positive[: chosen.findings]]
        model = build_model(bundle, configuration.model.device, document["precision"])
        model.store = latent_cache(configuration, bundle.manifest, model.runtime, read_only=True)
        settings = ExplanationSettings(chosen.method, chosen.series, chosen.slices, chosen.samples, chosen.seed)
        questions = [Question("diagnosis", name) for name in names]
        explained = explain_on_images(model, study, files, questions, settings, tell) if questions else []
    out.mkdir(parents=True, exist_ok=True)
    reader, told = Reader(Wording(configuration.report.language)), []
    for number, one in enumerate(explained, 1):
        stem = f"{number:02d}-{NOT_IN_NAMES.sub('_', one.question.output)}"
        written = [out / f"{stem}-heat.nii.gz"]
        heat = np.stack([np.nan_to_num(one.heat.on(plane.frame)) for plane in one.slices]).astype(np.float32)
        sitk.WriteImage(as_image(heat, one.slices), str(written[0]))
        for key in one.key:
            written.append(out / f"{stem}-slice{key.position + 1:03d}.png")
            Image.fromarray(key_slice_page(said, one, key, reader)).save(written[-1])
        told.append(described(one) | {"files": [str(path) for path in written]})
    explained_names = {one.question.output for one in explained if one.key}
    return told, [name for name in names if name not in explained_names]


def _result(record: ResultRecord, bundle: Bundle, study: PreparedStudy) -> StudyResult:
    """The result on record, in the form in which pages are written of it."""
    logits = record.logits or {}
    return StudyResult(
        study_instance_uid=record.study_instance_uid,
        revision=record.revision,
        diagnoses=scores_of(bundle.manifest, "diagnosis", logits.get("diagnosis", {})),
        referrals=scores_of(bundle.manifest, "referral", logits.get("referral", {})),
        priority=Priority(Level(record.level), record.rule),
        model=identity_of(bundle.manifest),
        precision=recorded(record).document["precision"],
        sop_instance_uids=tuple(uid for series in study.series for uid in series.sop_instance_uids),
    )
