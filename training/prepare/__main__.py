"""Prepare studies for training: read them from where they are and keep tokens or patches, without patient data.

    python -m training.prepare dicom /data/export --out run/patches --key run/key
    python -m training.prepare dicom /data/export --out run/store --key run/key --encoder run/tokenizer
    python -m training.prepare archive --studies uids.txt --wado https://pacs/dicom-web --out run/store --key run/key …
    python -m training.prepare archive --accession-numbers list.txt --move PACS@10.0.0.5:104 --own TRAIN:11112 …
    python -m training.prepare mr-rate /data/mr-rate --split run/split.csv …
    python -m training.prepare bids /data/ds000001 …
    python -m training.prepare verify run/store

Without --encoder a sample of patches is kept, which a tokenizer is trained on; with it, that encoder's tokens. The
command goes on where it was stopped. An Authorization header for the archive is taken from DICOMWEB_AUTHORIZATION.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from prima_core.base.errors import BundleError
from prima_core.bundle import read_manifest
from training.base.command import command, explained
from training.base.errors import BadTrainingData
from training.base.pseudonyms import load_or_create_key
from training.prepare.archive import Archive, Retrieval
from training.prepare.bids import Bids
from training.prepare.c_move import DimseArchive
from training.prepare.dicom_folder import DicomFolder
from training.prepare.encode import Encoder
from training.prepare.known import Known, read_known
from training.prepare.mr_rate import MrRate
from training.prepare.run import fill_store
from training.prepare.source import Source
from training.prepare.store import TokenStore
from training.prepare.wado import WebArchive
from training.stages.architecture import small

app = command()

Out = Annotated[Path, typer.Option(help="the store: a new folder, or one to go on with")]
Key = Annotated[Path, typer.Option(help="the pseudonym key; made when it is not there; keep it out of the store")]
EncoderFolder = Annotated[Path | None, typer.Option("--encoder", help="a bundle, or a run's tokenizer folder")]
Device = Annotated[str, typer.Option(help="of the encoder: auto, cpu, cuda or cuda:N")]
Patches = Annotated[int, typer.Option(min=1, help="patches a series, without --encoder")]
Workers = Annotated[int, typer.Option(min=0, help="processes; 0: this one alone")]
Limit = Annotated[int | None, typer.Option(min=1, help="at most so many studies, the first ones")]
Labels = Annotated[Path | None, typer.Option(help="CSV by Study Instance UID or accession number")]
Reports = Annotated[Path | None, typer.Option(help="CSV or JSON Lines by the same")]

_DICOM_PEER = re.compile(r"(?P<title>[^@\s]{1,16})@(?P<host>[^@\s]+):(?P<port>\d{1,5})")
_OWN = re.compile(r"(?P<title>[^:@\s]{1,16}):(?P<port>\d{1,5})")


@app.command()
def dicom(
    folders: Annotated[list[Path], typer.Argument(help="folders of DICOM files in any layout")],
    out: Out,
    key: Key,
    encoder: EncoderFolder = None,
    device: Device = "cpu",
    labels: Labels = None,
    reports: Reports = None,
    patches: Patches = 32,
    workers: Workers = 2,
    limit: Limit = None,
) -> None:
    """Studies in folders of DICOM files, such as an export or a node's spool."""
    with explained():
        source = DicomFolder(folders, load_or_create_key(key), read_known(labels, reports))
        _fill(source, out, encoder, device, patches, workers, limit)
        if source.skipped:
            typer.echo(f"{source.skipped} file(s) are no DICOM objects")


@app.command()
def archive(
    out: Out,
    key: Key,
    studies: Annotated[Path | None, typer.Option(help="a file of Study Instance UIDs, one a line")] = None,
    accession_numbers: Annotated[Path | None, typer.Option(help="a file of accession numbers, one a line")] = None,
    wado: Annotated[str, typer.Option(help="the archive's DICOMweb service, an https URL")] = "",
    move: Annotated[str, typer.Option(help="the archive's Query/Retrieve SCP, as TITLE@HOST:PORT")] = "",
    own: Annotated[str, typer.Option(help="with --move: our TITLE:PORT, as the archive knows them")] = "",
    encoder: EncoderFolder = None,
    device: Device = "cpu",
    labels: Labels = None,
    reports: Reports = None,
    patches: Patches = 32,
    workers: Workers = 2,
    limit: Limit = None,
) -> None:
    """Studies by name from an archive, over DICOMweb or by C-MOVE."""
    with explained():
        known: Known = read_known(labels, reports)
        retrieval = _retrieval(wado, move, own)
        source = Archive(retrieval, load_or_create_key(key), _listed(studies), _listed(accession_numbers), known)
        _fill(source, out, encoder, device, patches, workers, limit)


@app.command()
def mr_rate(
    folder: Annotated[
        Path, typer.Argument(help="the collection: mri, metadata, reports, pathology_labels, splits.csv")
    ],
    out: Out,
    key: Key,
    split: Annotated[Path | None, typer.Option(help="write the collection's own split there, by pseudonym")] = None,
    encoder: EncoderFolder = None,
    device: Device = "cpu",
    patches: Patches = 32,
    workers: Workers = 2,
    limit: Limit = None,
) -> None:
    """The MR-RATE collection."""
    with explained():
        source = MrRate(folder, load_or_create_key(key))
        if split is not None:
            _write_parts(split, source.parts())
        _fill(source, out, encoder, device, patches, workers, limit)
        if unmapped := source.unmapped():
            typer.echo(f"labels kept as value.…, as no diagnosis of the model means the same: {', '.join(unmapped)}")


@app.command()
def bids(
    folder: Annotated[Path, typer.Argument(help="the data set, with sub-* below")],
    out: Out,
    key: Key,
    encoder: EncoderFolder = None,
    device: Device = "cpu",
    labels: Labels = None,
    reports: Reports = None,
    patches: Patches = 32,
    workers: Workers = 2,
    limit: Limit = None,
) -> None:
    """A BIDS data set; labels and reports by sub-X_ses-Y or sub-X."""
    with explained():
        source = Bids(folder, load_or_create_key(key), read_known(labels, reports))
        _fill(source, out, encoder, device, patches, workers, limit)


@app.command()
def verify(store: Annotated[Path, typer.Argument(help="a store")]) -> None:
    """Read every shard of a store and compare its SHA-256."""
    with explained():
        opened = TokenStore(store)
        opened.verify()
        typer.echo(f"{len(opened)} studies, all shards as they were written")


def encoder_in(folder: Path, device: str) -> Encoder:
    """The encoder of a bundle, or of a run's tokenizer. Raises BadTrainingData."""
    own = folder / "encoder.safetensors"
    if own.exists():
        return Encoder(small((), ()).tokenizer, own, device)
    try:
        shape = read_manifest(folder).architecture.tokenizer
    except BundleError as error:
        raise BadTrainingData(f"{folder}: neither a bundle nor a run's tokenizer: {error}") from error
    return Encoder(shape, folder / "tokenizer.safetensors", device)


def _fill(
    source: Source, out: Path, encoder: Path | None, device: str, patches: int, workers: int, limit: int | None
) -> None:
    chosen = encoder_in(encoder, device) if encoder else None
    result = fill_store(source, out, chosen, workers=workers, patches_per_series=patches, limit=limit)
    typer.echo(f"{result.stored} studies added, {result.before} were there already")
    for reason, count in sorted(result.refused.items(), key=lambda item: -item[1]):
        typer.echo(f"{count} not used: {reason}")


def _retrieval(wado: str, move: str, own: str) -> Retrieval:
    if bool(wado) == bool(move):
        _wrong("name the archive by --wado or by --move")
    if wado:
        authorization = os.environ.get("DICOMWEB_AUTHORIZATION")
        return WebArchive(wado, {"Authorization": authorization} if authorization else {})
    peer, ours = _DICOM_PEER.fullmatch(move), _OWN.fullmatch(own)
    if peer is None or ours is None:
        _wrong("--move needs TITLE@HOST:PORT, and --own TITLE:PORT as the archive knows them")
    return DimseArchive(peer["title"], peer["host"], int(peer["port"]), ours["title"], int(ours["port"]))


def _listed(path: Path | None) -> Sequence[str]:
    if path is None:
        return ()
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadTrainingData(f"{path}: cannot be read ({type(error).__name__})") from error


def _write_parts(path: Path, parts: dict[str, str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("study", "part"), *parts.items()])


def _wrong(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(2)


if __name__ == "__main__":
    app()
