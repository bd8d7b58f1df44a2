"""What the node asks of a bundle before it is used: that it fits the site, and that somebody evaluated it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from dicom_node.base.config import Configuration
from dicom_node.base.errors import ConfigurationError, PermanentError
from dicom_node.base.types import ModelIdentity
from prima_core.base.config import to_json
from prima_core.bundle import BundleManifest

EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class Evaluation:
    """A record that a bundle was evaluated. digest: the file's SHA-256. studies: how many it was evaluated on."""

    digest: str
    studies: int


def check_fits(configuration: Configuration, manifest: BundleManifest) -> None:
    """See that the site's rules and mapping know what the bundle answers; studies would end `dead` otherwise.

    Raises ConfigurationError.
    """
    named = {name for rule in configuration.worklist.rules for name in rule.findings}
    if unknown := named - {*manifest.labels["diagnosis"]}:
        raise ConfigurationError(f"worklist.rules: the bundle has no finding '{min(unknown)}'; a rule could never fire")
    missing = [output for output in manifest.labels["priority"] if output not in configuration.worklist.mapping]
    if missing:
        raise ConfigurationError(f"worklist.mapping: no entry for {', '.join(missing)}, which the bundle may answer")


def identity_of(manifest: BundleManifest) -> ModelIdentity:
    """What reports and records say of the model."""
    return ModelIdentity(manifest.id, manifest.name, manifest.version, manifest.device_uid, manifest.training_state)


def encoder_of(manifest: BundleManifest) -> str:
    """Names all of a bundle that decides its study embeddings, which is everything but the heads. A SHA-256."""
    files = {name: digest for name, digest in manifest.files.items() if not name.startswith("heads_")}
    architecture = {name: part for name, part in to_json(manifest.architecture).items() if name != "heads"}
    return hashlib.sha256(json.dumps([files, architecture], sort_keys=True).encode()).hexdigest()


def read_evaluation(folder: Path, bundle_id: str) -> Evaluation:
    """The record beside a bundle's manifest. Raises PermanentError when there is none, or not one of this bundle."""
    path = folder / EVALUATION
    try:
        content = path.read_bytes()
        document = json.loads(content)
    except OSError as error:
        raise PermanentError(f"no evaluation record: {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PermanentError(f"no evaluation record: {path} is not JSON") from error
    if not isinstance(document, dict) or document.get("bundle_id") != bundle_id:
        raise PermanentError(f"no evaluation record: {path} is not of bundle {bundle_id}")
    studies = document.get("studies")
    if type(studies) is not int or studies < 1:
        raise PermanentError(f"no evaluation record: {path} names no study that the bundle was evaluated on")
    return Evaluation(hashlib.sha256(content).hexdigest(), studies)
