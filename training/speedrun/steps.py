"""The steps of a speedrun in order; each resumes, and returns at once where it is done."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from prima_core.bundle import Bundle
from training.base.checkpoint import write_json
from training.base.embeddings import Embeddings, read_embeddings
from training.base.errors import BadTrainingData
from training.base.pseudonyms import KEY_BYTES, Pseudonyms
from training.base.splits import Split, refuse_empty, split_by_list, split_by_patient
from training.base.trained_on import refuse_seen
from training.evaluate.held_out import evaluation_set, write_evaluation
from training.evaluate.record import EvaluationSet, evaluation_record, judge_set
from training.evaluate.scaling import scaling_curve
from training.labels.terms import TERMS
from training.phantom.source import PhantomSource
from training.prepare.encode import Encoder
from training.prepare.run import fill_store
from training.prepare.store import TokenStore
from training.run_folder import TRAINED, RunFolder, write_split
from training.speedrun.profiles import Profile
from training.stages.clip import STUDY_MODEL, Cohort, read_study_model, read_text_tower, train_clip
from training.stages.embed import embed_store
from training.stages.export import attach_evaluation, export_bundle
from training.stages.heads import TrainedHeads, train_heads
from training.stages.localise import train_localise
from training.stages.series_names import train_series_names
from training.stages.text_tower import TextTower, make_text_tower
from training.stages.tokenizer import ENCODER, read_patches, train_tokenizer
from training.stages.transfer import TransferSettings, train_transfer
from training.stages.zero_shot import ZeroShotHead, plain_prompts, zero_shot_head

NAME = "prima-phantom"
NOBODY = Pseudonyms(
    bytes(KEY_BYTES)
)  # phantoms need no secret, and patients then fall into the same parts in every run
# Seeds: the patients who train, of the home scanners, of the other scanners, and of the tokenizer. The recipe was
# chosen on other patients of home and other scanners (deploy/TRAINING.md).
FIRST_TAUGHT, FIRST_HOME, FIRST_AWAY, FIRST_PATCH = 11_000_000, 20_000_000, 21_000_000, 14_000_000
VALIDATION = 1 / 3  # of the home patients; the others test
MOST_BYTES = 20_000_000
SECONDS = "seconds.json"
UNSEEN, AWAY = "unseen patients", "other scanners"


@dataclass
class Speedrun:
    """One run in its folder. seconds: of each step, in this call and those before that it goes on from."""

    run: RunFolder
    profile: Profile
    workers: int
    seconds: dict[str, float] = field(default_factory=dict)

    def all(self) -> tuple[Bundle, dict[str, Any]]:
        """Every step; the bundle and its evaluation. Raises TrainingError."""
        if (path := self.run / SECONDS).exists():
            self.seconds |= json.loads(path.read_text("utf-8"))
        with self._timed("tokenizer"):
            self.tokenizer()
        with self._timed("phantoms and tokens"):
            self.tokens()
        with self._timed("series names"):
            self.series_names()
        with self._timed("places of findings"):
            self.localise()
        with self._timed("CLIP"):
            self.clip()
        with self._timed("embeddings"):
            self.embeddings()
        with self._timed("heads"):
            heads = self.heads()
        with self._timed("evaluation"):
            record = self.evaluation(heads)
        with self._timed("bundle"):
            return self.bundle(heads, record), record

    def tokenizer(self) -> None:
        """Patches of patients whom no later step sees → the encoder."""
        profile, folder = self.profile, self.run / "patches"
        fill_store(
            self._phantoms(FIRST_PATCH, profile.patch_studies, "home"),
            folder,
            workers=self.workers,
            patches_per_series=profile.patches_per_series,
        )
        store = TokenStore(folder)
        studies = [record.study for record in store.records]
        held_out = max(1, len(studies) // 10)
        training, judged = (read_patches(store, part) for part in (studies[held_out:], studies[:held_out]))
        train_tokenizer(training, judged, self.run / "tokenizer", profile.tokenizer, studies)

    def tokens(self) -> None:
        """Phantoms of all domains → latents, and which patients train, validate and test."""
        encoder = Encoder(self.profile.tokenizer.shape, self.run / "tokenizer" / ENCODER)
        taught = self._phantoms(FIRST_TAUGHT, self.profile.studies, "teaching")
        home = self._phantoms(FIRST_HOME, self.profile.home, "home")
        for source in (taught, home):
            fill_store(source, self.run / "store", encoder, workers=self.workers)
        away = self._phantoms(FIRST_AWAY, self.profile.away, "away")
        fill_store(away, self.run / "store-away", encoder, workers=self.workers)
        write_split(self.run / "split.csv", self._split(taught, home))

    def series_names(self) -> None:
        """Which images a series' name goes with."""
        store, studies, folder = self.run.store(), self.run.split().train, self.run / "series_names"
        train_series_names(store, studies, self.profile.architecture, folder, self.profile.names)

    def localise(self) -> None:
        """What findings look like where the phantoms have them."""
        store, studies = self.run.store(), self.run.split().train
        start, folder = self.run / "series_names", self.run / "localise"
        train_localise(store, store.labels(), studies, self.profile.architecture, folder, self.profile.localise, start)

    def clip(self) -> None:
        """Tokens and reports → the study model and the text tower."""
        store, split = self.run.store(), self.run.split()
        reports = store.reports()
        make_text_tower((reports[study] for study in split.train), self.run / "text", self.profile.text)
        cohort = Cohort(store, reports, store.labels(), split)
        train_clip(
            cohort,
            self.profile.architecture,
            self.run / "text",
            self.run / "clip",
            self.profile.clip,
            self.run / "localise",
        )

    def embeddings(self) -> None:
        """The study embeddings of both stores."""
        for store, path in ((self.run.store(), self._embeddings), (self._away, self._away_embeddings)):
            embed_store(store, self.run / "clip", path)

    def heads(self) -> TrainedHeads:
        """Task heads; brain age, a transfer head, comes with the evaluation."""
        return train_heads(
            self.run.embeddings(), self.run.labels(), self.run.split(), self.run / "heads", self.profile.heads
        )

    def evaluation(self, heads: TrainedHeads) -> dict[str, Any]:
        """The test patients, and patients on other scanners."""
        embeddings, split, store = self.run.embeddings(), self.run.split(), self.run.store()
        tower, zero_shot = self._tower(), self._zero_shot(heads)
        refuse_seen((self.run / stage for stage in TRAINED), store.records, split.test)
        test = self._set(store, embeddings, split.test, tower)
        away = read_embeddings(self._away_embeddings)
        others = self._set(self._away, away, away.studies, tower)
        count = self.profile.resamples
        sets = {name: judge_set(heads, one, zero_shot, count) for name, one in ((UNSEEN, test), (AWAY, others))}
        scaling = scaling_curve(
            embeddings,
            store.labels(),
            split,
            store.records,
            test,
            self.run / "scaling",
            self.profile.heads,
            self.profile.shares,
        )
        age = TransferSettings("value.age_years", self.profile.transfer)
        transfer = train_transfer(embeddings, store.labels(), split, self.run / "transfer" / age.target, age)
        return evaluation_record(
            sets,
            scaling=[asdict(point) for point in scaling],
            transfer={age.target: asdict(transfer)},
            heads=heads.digest(),
            training_state="phantom",
            training_studies=len(split.train),
            left_out=list(heads.left_out),
        )

    def bundle(self, heads: TrainedHeads, record: dict[str, Any]) -> Bundle:
        """The bundle with its evaluation. Raises BadTrainingData when it is too large to ship."""
        out = self.run / "bundle"
        document = {**record, "machine": _machine(), "seconds": {name: round(s) for name, s in self.seconds.items()}}
        page = write_evaluation(self.run, document, NAME)
        body = {**load_file(self.run / "clip" / STUDY_MODEL), **load_file(self.run / "tokenizer" / ENCODER)}
        bundle = export_bundle(
            out,
            name=NAME,
            version="1",
            training_state="phantom",
            architecture=read_study_model(self.run / "clip")[0],
            body=body,
            heads=heads,
        )
        attach_evaluation(bundle, document, page)
        if (size := sum(path.stat().st_size for path in out.iterdir())) > MOST_BYTES:
            raise BadTrainingData(f"{out}: {size} bytes, more than the {MOST_BYTES} that are shipped")
        return bundle

    def _split(self, taught: PhantomSource, home: PhantomSource) -> Split:
        """The teaching collection trains; of the patients as they come, some validate and the others test.

        Raises BadTrainingData when a part would be empty.
        """
        records, as_they_come = self.run.store().records, _studies(home)
        judged = split_by_patient([one for one in records if one.study in as_they_come], VALIDATION, 1 - VALIDATION)
        part_of = dict.fromkeys(_studies(taught), "train")
        part_of |= {study: part for part in ("validation", "test") for study in getattr(judged, part)}
        split = split_by_list(records, part_of)
        refuse_empty(split)
        return split

    @property
    def _embeddings(self) -> Path:
        return self.run / "embeddings.safetensors"

    @property
    def _away_embeddings(self) -> Path:
        return self.run / "embeddings-away.safetensors"

    @property
    def _away(self) -> TokenStore:
        return TokenStore(self.run / "store-away")

    def _phantoms(self, first: int, count: int, domain: str) -> PhantomSource:
        return PhantomSource(range(first, first + count), domain, NOBODY)

    def _tower(self) -> TextTower:
        return read_text_tower(self.run / "clip", self.run / "text")

    def _zero_shot(self, heads: TrainedHeads) -> ZeroShotHead:
        """The trained diagnoses once more, by prompts alone. The scale does not move an AUROC."""
        names = [name for shape in heads.shapes if shape.task == "diagnosis" for name in shape.outputs]
        prompts = {name: plain_prompts(TERMS[name]) for name in names}
        return zero_shot_head(prompts, self._tower().vectors, scale=1.0)

    def _set(
        self, store: TokenStore, embeddings: Embeddings, studies: Sequence[str], tower: TextTower
    ) -> EvaluationSet:
        chosen = set(studies)
        records = tuple(record for record in store.records if record.study in chosen)
        return evaluation_set(records, embeddings, store.labels(), store, tower)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.monotonic() - start
            write_json(self.run / SECONDS, self.seconds)


def _studies(source: PhantomSource) -> set[str]:
    return {source.study(reference) for reference in source.references()}


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
