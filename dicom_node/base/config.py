"""One frozen configuration, read from a TOML file. Nothing is read at import time.

Every key is documented in `deploy/node.example.toml`; a test fails when one is missing there.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import tomllib
from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from dicom_node.base.addresses import checked_addresses
from dicom_node.base.audit_settings import AuditSection
from dicom_node.base.errors import ConfigurationError
from dicom_node.base.hl7_settings import Hl7Destination, Hl7Listener
from dicom_node.base.tls import FINGERPRINT, ClientTls, ServerTls, fingerprint
from dicom_node.base.ups_settings import Subscriber, UpsSettings

# Spaces around an AE title mean nothing (PS3.5 section 6.2).
AeTitle = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=r"^[ -\[\]-~]*$")
]
Port = Annotated[int, Field(ge=1, le=65535)]
Days = Annotated[float, Field(gt=0, le=36500)]
SopClass = Literal["comprehensive_3d", "comprehensive", "enhanced", "basic_text"]
Language = Literal["en", "de", "fr"]
MappedLevel = Literal["routine", "elevated", "urgent"]
DEFAULT_MAPPING: dict[str, MappedLevel] = {"none": "routine", "low": "routine", "medium": "elevated", "high": "urgent"}
FILES = ("ca_file", "certificate", "private_key", "password_file", "token_file", "key_file")
WITH_FILES = ("tls", "http_tls", "syslog")  # sections within sections that name files
LOOPBACK = ("127.0.0.1", "::1", "localhost")
HTTP_OF_ONE_NODE = {"http_bind", "http_port", "http_peers", "http_tls"}
#: Section → keys in which nodes that share a registry may differ: where they listen, what they compute on, what they
#: call the same folder and database, and which of them trains at night.
OF_ONE_NODE = {
    "node": {"name", "bind", "port", "storage", "database", "log_level"} | HTTP_OF_ONE_NODE,
    "intake": {"tls", "processes"},
    "model": {"precision", "device", "token_budget", "execution", "ray"},
    "hl7": {"bind", "port", "tls"},
    "retrain": {"enabled", "window", "nice"},
}


class Section(BaseModel):
    """A table of the file: immutable, and an unknown key is an error rather than a silent nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


NodeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,31}$")]


class NodeSection(Section):
    """name: of one of several nodes that share `storage` and a PostgreSQL database; None: the node is alone there.

    http_peers: IP addresses that may connect to the HTTP port; none: all that can reach it, which is this machine
    alone unless http_tls asks for certificates. http_tls: the port then speaks https alone.
    """

    name: NodeName | None = None
    ae_title: AeTitle = "PRIMA"
    bind: str = "127.0.0.1"
    port: Port = 11112
    storage: Path = Path("prima-data")
    database: str | None = None
    http_bind: str = "127.0.0.1"
    http_port: Port = 8042
    http_peers: tuple[str, ...] = ()
    http_tls: ServerTls | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("http_peers")
    @classmethod
    def _check_peers(cls, peers: tuple[str, ...]) -> tuple[str, ...]:
        return checked_addresses(peers)

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL; SQLite inside the storage folder unless the site names another."""
        return self.database or f"sqlite:///{self.storage / 'registry.sqlite'}"

    def process(self, role: str) -> str:
        """What the node's process of this role is called in the registry."""
        return role if self.name is None else f"{role}@{self.name}"

    def boot(self, run: str) -> str:
        """What a run of its receiver is called in the registry."""
        return run if self.name is None else f"{self.name}/{run}"

    @property
    def frozen(self) -> Path:
        """The configuration that the running node was started with."""
        return self.storage / ("configuration.json" if self.name is None else f"configuration-{self.name}.json")

    @property
    def spool(self) -> Path:
        """Received objects, one durable file each."""
        return self.storage / "spool"

    @property
    def audit(self) -> Path:
        """The audit trail; of several nodes each has its own, whose end it alone knows."""
        return self.storage / ("audit" if self.name is None else f"audit-{self.name}")

    @property
    def pseudonyms(self) -> Path:
        """The key of the pseudonyms in audit trails, the same for all nodes of a registry."""
        return self.storage / "audit" / "pseudonyms.key"

    @property
    def outgoing(self) -> Path:
        """Objects the node made, kept until delivered and after."""
        return self.storage / "outgoing"

    @property
    def latents(self) -> Path:
        """What series were encoded to; may be deleted at any time."""
        return self.storage / "latents"


class Peer(Section):
    """Who may send: the calling AE title and, where given, the IP address it must come from.

    certificate: the one it must show under TLS, by a name in it or as `sha256:` and its fingerprint. A certificate that
    some peer is bound to serves no other AE title.
    """

    ae_title: AeTitle
    address: str | None = None
    certificate: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] | None = None

    @field_validator("certificate")
    @classmethod
    def _check_certificate(cls, certificate: str | None) -> str | None:
        if certificate is not None and certificate.lower().startswith(FINGERPRINT):
            return FINGERPRINT + fingerprint(certificate)
        return certificate

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str | None) -> str | None:
        if address is not None and address not in LOOPBACK:
            try:
                ipaddress.ip_address(address)
            except ValueError as error:
                raise ValueError(f"'{address}' is not an IP address; host names are not looked up") from error
        return address


class IntakeSection(Section):
    stability_seconds: Annotated[float, Field(gt=0)] = 30.0
    max_open_seconds: Annotated[float, Field(gt=0)] = 1800.0
    peers: tuple[Peer, ...] = ()
    require_called_ae_title: bool = True
    max_associations: Annotated[int, Field(ge=1, le=200)] = 32  # pynetdicom's `select` ends at descriptor 1023
    max_associations_of_one: Annotated[int, Field(ge=1, le=200)] = 16
    max_pdu_bytes: Annotated[int, Field(ge=4096, le=1 << 20)] = 131072
    max_object_bytes: Annotated[int, Field(ge=1 << 20)] = 2 << 30
    max_incoming_bytes: Annotated[int, Field(ge=2 << 20)] | None = None
    least_bytes_per_second: Annotated[int, Field(ge=1)] = 1000
    acse_timeout_seconds: Annotated[float, Field(gt=0)] = 15.0
    dimse_timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    idle_timeout_seconds: Annotated[float, Field(gt=0)] = 120.0
    tls: ServerTls | None = None
    inline: bool = True
    processes: Annotated[int, Field(ge=1, le=16)] = 2
    reserve_bytes: Annotated[int, Field(ge=0)] = 1 << 30

    @property
    def incoming_bytes(self) -> int:
        """How much may be on its way at once."""
        return self.max_incoming_bytes or 2 * max(2, self.processes) * self.max_object_bytes

    @model_validator(mode="after")
    def _check(self) -> IntakeSection:
        if self.incoming_bytes < 2 * self.processes * self.max_object_bytes:
            why = "one sender has half of a process's share, which must hold one object"
            raise ValueError(f"max_incoming_bytes: at least 2 × processes × max_object_bytes: {why}")
        return self


class RaySettings(Section):
    """Where the model runs on a Ray cluster: so many actors, each with so many GPUs and CPUs.

    address: of the cluster; auto: the one that this machine belongs to. accelerator: the type of GPU, as Ray calls it.
    start_seconds: how long an actor is awaited, its loading of the bundle included; less than a worker may be without a
    sign that its work moves on (`jobs.pulse`), as nothing moves meanwhile.
    """

    address: Annotated[str, StringConstraints(pattern=r"^(auto|[A-Za-z0-9_.-]+:[0-9]{1,5})$")] = "auto"
    actors: Annotated[int, Field(ge=1, le=256)] = 1
    gpus: Annotated[float, Field(ge=0, le=16)] = 1.0
    cpus: Annotated[float, Field(gt=0, le=256)] = 1.0
    accelerator: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    start_seconds: Annotated[float, Field(gt=0, le=500)] = 300.0


class ModelSection(Section):
    """execution: local, in the worker's own process, or on a Ray cluster, see `ray`."""

    bundle: Path | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    device: str = "auto"
    allow_nonclinical: bool = False
    token_budget: Annotated[int, Field(ge=1)] = 4000
    max_attempts: Annotated[int, Field(ge=1)] = 3
    retry_seconds: Annotated[float, Field(gt=0, le=14400)] = 60.0
    keep_embeddings_days: Days | None = None
    keep_latents_bytes: Annotated[int, Field(ge=0)] = 1 << 30
    keep_latents_days: Days = 30.0
    execution: Literal["local", "ray"] = "local"
    ray: RaySettings = RaySettings()


class Exclusion(Section):
    """Which studies a site keeps out. `descriptions` are case-insensitive regular expressions on StudyDescription."""

    descriptions: tuple[str, ...] = ()
    younger_than_years: Annotated[float, Field(ge=0)] | None = None
    older_than_years: Annotated[float, Field(ge=0)] | None = None
    ae_titles: tuple[AeTitle, ...] = ()

    @field_validator("descriptions")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is not a regular expression: {error}") from error
        return patterns


class ScopeSection(Section):
    min_series: Annotated[int, Field(ge=1)] = 2
    max_kept_tokens: Annotated[int, Field(ge=26)] = 5000
    exclude: Exclusion = Exclusion()


class ExplanationSection(Section):
    """What is explained on the images, for destinations that are sent more than the report.

    findings: the strongest ones, so many; 0: none. series: of each, those that it rests on most; slices: shown of each.
    samples, seed: of LIME. burn_in_name: the patient's name on every page, and the Series Description of each slice.
    """

    findings: Annotated[int, Field(ge=0, le=20)] = 3
    method: Literal["lime", "gradient"] = "lime"
    series: Annotated[int, Field(ge=1, le=10)] = 2
    slices: Annotated[int, Field(ge=1, le=10)] = 2
    samples: Annotated[int, Field(ge=32, le=4096)] = 256
    seed: Annotated[int, Field(ge=0)] = 0
    burn_in_name: bool = False


ObjectKind = Literal["sr", "sc", "kos", "seg"]
DestinationName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Archive(Section):
    """A destination that is sent objects, however they get there.

    objects: sr the report, sc pages as Secondary Capture, kos key objects, seg regions as Segmentation.
    """

    name: DestinationName
    objects: tuple[ObjectKind, ...] = ("sr",)
    sop_class: SopClass | None = None
    secondary_capture: Literal["multi_frame", "single_frame"] = "multi_frame"
    timeout_seconds: Annotated[float, Field(gt=0, le=14400)] = 30.0
    first_retry_seconds: Annotated[float, Field(gt=0, le=14400)] = 5.0
    max_retry_seconds: Annotated[float, Field(gt=0, le=14400)] = 600.0


class Destination(Archive):
    """An archive or workstation that is sent results by C-STORE.

    storage_commitment: an object is delivered only once the archive has committed to keep it. commitment_seconds: how
    long its answer is awaited before it is asked again.
    """

    kind: Literal["dicom"] = "dicom"
    ae_title: AeTitle
    host: str
    port: Port
    calling_ae_title: AeTitle | None = None
    tls: ClientTls | None = None
    storage_commitment: bool = False
    commitment_seconds: Annotated[float, Field(gt=0, le=86400)] = 3600.0


class StowDestination(Archive):
    """An archive that is sent results by STOW-RS.

    url: of the DICOMweb service; `/studies` follows. user, password_file or token_file: Basic or Bearer credentials,
    read at each attempt.
    """

    kind: Literal["stow"] = "stow"
    url: str
    user: Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[!-9;-~]+$")] | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    tls: ClientTls | None = None

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not parts.netloc.isascii():
            raise ValueError("not an address such as https://pacs.example.org/dicom-web")
        if parts.username is not None or parts.password is not None:
            raise ValueError("holds credentials; they belong in user and password_file, or token_file")
        if parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", url):
            raise ValueError("holds more than scheme, host, port and path")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _check(self) -> StowDestination:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user: user and password_file belong together")
        if self.user is not None and self.token_file is not None:
            raise ValueError("token_file: either user and password_file, or token_file")
        parts = urlsplit(self.url)
        if parts.scheme == "http":
            if self.tls is not None:
                raise ValueError("tls: the url is not https")
            if (self.user or self.token_file) and parts.hostname not in LOOPBACK:
                raise ValueError("url: credentials go over https alone")
        return self


class UpsDestination(UpsSettings):
    """A worklist manager that is told reading priorities by Unified Procedure Step."""

    name: DestinationName
    kind: Literal["ups"] = "ups"
    first_retry_seconds: Annotated[float, Field(gt=0, le=14400)] = 5.0
    max_retry_seconds: Annotated[float, Field(gt=0, le=14400)] = 600.0


def _kind(destination: Any) -> Any:
    # None, what is no table, is refused like an unknown kind.
    return destination.get("kind", "dicom") if isinstance(destination, dict) else getattr(destination, "kind", None)


KINDS = ("dicom", "stow", "hl7", "ups")
OfDicom = Annotated[Destination, Tag("dicom")]
OfStow = Annotated[StowDestination, Tag("stow")]
OfHl7 = Annotated[Hl7Destination, Tag("hl7")]
OfUps = Annotated[UpsDestination, Tag("ups")]
AnyDestination = Destination | StowDestination | Hl7Destination | UpsDestination


class Route(Section):
    """Results of studies that came from these calling AE titles go to these destinations; `["*"]` means from anyone."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    from_: tuple[AeTitle, ...] = Field(("*",), alias="from")
    to: tuple[str, ...]
    exclude: Exclusion = Exclusion()


class ReportSection(Section):
    sop_class: SopClass = "comprehensive_3d"
    series_description: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "Prima AI results"
    series_number: Annotated[int, Field(ge=1, le=2**31 - 1)] = 9901
    language: Language = "en"
    negatives: Literal["summary", "all", "none"] = "summary"
    manufacturer: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "prima-node"
    institution: Annotated[str, StringConstraints(max_length=64)] = ""
    keep_sent_days: Days = 90.0


class FindingRule(Section):
    """Any of these findings, the bundle's names of diagnoses, raises the study to this level.

    min_probability: of a finding of a calibrated bundle; min_score: logit above the threshold, of any other bundle.
    """

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=r"^[ -~]+$")]
    findings: Annotated[tuple[str, ...], Field(min_length=1)]
    level: Literal["elevated", "urgent", "critical"]
    min_probability: Annotated[float, Field(ge=0, le=1)] | None = None
    min_score: Annotated[float, Field(ge=0)] | None = None


class WorklistSection(Section):
    """mapping: level of each output of the priority head. keep_hours: how long a study that is not final is listed.

    objective_seconds, objective_share: how soon after the last image a flag is to be acknowledged, and how often.
    modality_worklist, procedure_steps: whether MWL and UPS are answered. subscribers: who may be sent UPS events.
    keep_*: what is deleted when; whatever belongs to a study stays with it. max_open_steps: work items of other AEs
    that are not final, of all and of one; max_final_steps: of everybody. max_step_bytes: one of them, encoded.
    """

    rules: tuple[FindingRule, ...] = ()
    mapping: dict[str, MappedLevel] = Field(default_factory=lambda: dict(DEFAULT_MAPPING))
    allow_nonclinical: bool = False
    keep_hours: Annotated[float, Field(gt=0)] = 72.0
    objective_seconds: Annotated[float, Field(gt=0)] = 120.0
    objective_share: Annotated[float, Field(gt=0, le=1)] = 0.95
    modality_worklist: bool = True
    procedure_steps: bool = True
    subscribers: tuple[Subscriber, ...] = ()
    keep_messages_days: Days = 90.0
    keep_messages_bytes: Annotated[int, Field(ge=1 << 20)] = 2 << 30
    keep_orders_days: Days = 180.0
    keep_steps_days: Days = 30.0
    keep_locked_steps_days: Days = 180.0
    max_final_steps: Annotated[int, Field(ge=1)] = 20000
    max_open_steps: Annotated[int, Field(ge=1)] = 5000
    max_open_steps_of_one: Annotated[int, Field(ge=1)] = 1000
    max_step_bytes: Annotated[int, Field(ge=4096, le=4 << 20)] = 1 << 20


class RetrainSection(Section):
    """Retraining at night. window: from and to, local time, over midnight where the end is the earlier one.

    options: further ones of the command line, such as --leave-out. nice: as in nice(1).
    """

    enabled: bool = False
    what: Literal["heads", "full"] = "heads"
    labels: Path | None = None
    reports: Path | None = None
    window: Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")] = (
        "22:00-05:00"
    )
    nice: Annotated[int, Field(ge=0, le=19)] = 19
    options: tuple[str, ...] = ()

    @property
    def hours(self) -> tuple[time, time]:
        """When the window begins and ends."""
        begin, end = map(time.fromisoformat, self.window.split("-"))
        return begin, end

    def open_at(self, moment: datetime) -> bool:
        """Whether the window is open at a local time."""
        (begin, end), now = self.hours, moment.time()
        return begin <= now < end if begin < end else now >= begin or now < end

    @model_validator(mode="after")
    def _check(self) -> RetrainSection:
        begin, end = self.hours
        if begin == end:
            raise ValueError("window: begins when it ends")
        if self.enabled and self.labels is None:
            raise ValueError("labels: name the file of labels")
        if self.enabled and self.what == "full" and self.reports is None:
            raise ValueError('reports: name the file of reports, which what = "full" is trained on')
        return self


class RetentionSection(Section):
    """Which files of finished studies are deleted. keep_days: older ones. min_free_bytes, max_used_share: the oldest,
    while the disk has less free space, or more in use; min_hours: but none that was finished later.
    """

    keep_days: Days | None = None
    min_free_bytes: Annotated[int, Field(ge=1)] | None = None
    max_used_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    min_hours: Annotated[float, Field(ge=0, le=876000)] = 24.0


class Configuration(Section):
    """The whole file. Paths are absolute once loaded: relative ones are relative to the file's folder."""

    node: NodeSection = NodeSection()
    intake: IntakeSection = IntakeSection()
    model: ModelSection = ModelSection()
    scope: ScopeSection = ScopeSection()
    destinations: tuple[Annotated[OfDicom | OfStow | OfHl7 | OfUps, Discriminator(_kind)], ...] = ()
    routes: tuple[Route, ...] = ()
    report: ReportSection = ReportSection()
    explanation: ExplanationSection = ExplanationSection()
    worklist: WorklistSection = WorklistSection()
    hl7: Hl7Listener = Hl7Listener()
    retrain: RetrainSection = RetrainSection()
    audit: AuditSection = AuditSection()
    retention: RetentionSection = RetentionSection()

    @model_validator(mode="after")
    def _check(self) -> Configuration:
        names = [destination.name for destination in self.destinations]
        if len(set(names)) != len(names):
            raise ValueError("destinations: two destinations have the same name")
        rules = [rule.name for rule in self.worklist.rules]
        if len(set(rules)) != len(rules):
            raise ValueError("worklist.rules: two rules have the same name")
        for route in self.routes:
            unknown = set(route.to) - set(names)
            if unknown:
                raise ValueError(f"routes: unknown destination {sorted(unknown)[0]!r}")
        known = {peer.ae_title for peer in self.intake.peers}
        bound = [peer.ae_title for peer in self.intake.peers if peer.certificate is not None]
        if bound and (self.intake.tls is None or self.intake.tls.ca_file is None):
            raise ValueError(f"intake.tls.ca_file: '{bound[0]}' is bound to a certificate, which nobody is asked for")
        for one in self.destinations:
            if isinstance(one, Destination) and one.storage_commitment and known and one.ae_title not in known:
                raise ValueError(
                    f"intake.peers: '{one.name}' answers storage commitment on associations of its own; "
                    "add its AE title"
                )
        if self.node.name is not None and not self.node.database_url.startswith("postgresql"):
            raise ValueError("node.name: several nodes share a PostgreSQL database (node.database); SQLite serves one")
        if self.node.bind not in LOOPBACK and not self.intake.peers:
            raise ValueError("intake.peers: an empty list is allowed only while node.bind is a loopback address")
        certain = self.node.http_tls is not None and self.node.http_tls.ca_file is not None
        if self.node.http_bind not in LOOPBACK and not (self.node.http_peers or certain):
            raise ValueError(
                "node.http_peers: an empty list is allowed only while node.http_bind is a loopback address, "
                "or node.http_tls.ca_file has clients show certificates"
            )
        if self.hl7.port is not None and self.hl7.bind not in LOOPBACK and not self.hl7.peers:
            raise ValueError("hl7.peers: an empty list is allowed only while hl7.bind is a loopback address")
        return self

    def destination(self, name: str) -> AnyDestination:
        """The destination of that name; ConfigurationError when the file no longer has it."""
        for destination in self.destinations:
            if destination.name == name:
                return destination
        raise ConfigurationError(f"destination '{name}' is not in the configuration")

    @property
    def moves_nonclinical(self) -> bool:
        """Whether the site lets a model that is not clinical move worklists, its own list included."""
        return self.model.allow_nonclinical and self.worklist.allow_nonclinical

    def sop_class_for(self, destination: Archive) -> SopClass:
        """The SOP class of the report that a destination is sent: its own, or the site's."""
        return destination.sop_class or self.report.sop_class

    def to_json(self) -> str:
        """The whole effective configuration, which `load_configuration` reads back from a `.json` file.

        Holds the database's password, if it has one.
        """
        return self.model_dump_json(by_alias=True, indent=1)

    def shown(self) -> dict[str, Any]:
        """The whole effective configuration as plain values, the database's password hidden."""
        shown = self.model_dump(mode="json", by_alias=True)
        if self.node.database is not None:
            shown["node"]["database"] = make_url(self.node.database).render_as_string(hide_password=True)
        return shown

    def shared_digests(self) -> dict[str, str]:
        """Section → SHA-256 of what nodes that share a registry must agree on: all but `OF_ONE_NODE`.

        Otherwise it would be chance what becomes of a study: whichever node takes it next would decide.
        """
        shown = self.shown()
        for section, keys in OF_ONE_NODE.items():
            for key in keys & shown[section].keys():
                del shown[section][key]
        return {
            name: hashlib.sha256(json.dumps(section, sort_keys=True).encode()).hexdigest()
            for name, section in shown.items()
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the effective configuration as it is shown: what a result was made under.

        Without the password: a digest that goes into records must not be one that it can be guessed from.
        """
        return hashlib.sha256(json.dumps(self.shown(), sort_keys=True).encode()).hexdigest()


def load_configuration(path: Path) -> Configuration:
    """Read and check a TOML file, or a `.json` file that holds `Configuration.to_json`.

    Raises ConfigurationError naming the key and the reason.
    """
    parse = json.loads if path.suffix == ".json" else tomllib.loads
    try:
        table = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"no configuration at {path}: copy deploy/node.example.toml there") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    return configuration_from(table, path.parent.absolute())


def configuration_from(table: dict[str, Any], folder: Path) -> Configuration:
    """Check a parsed table; relative paths in it start at `folder`. Raises ConfigurationError."""
    try:
        loaded = Configuration.model_validate(table)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_explain(dict(item)) for item in error.errors())) from error
    node = loaded.node.model_copy(
        update={"storage": folder / loaded.node.storage, "database": _absolute(loaded.node.database, folder)}
    )
    model = loaded.model
    if model.bundle is not None:
        model = model.model_copy(update={"bundle": folder / model.bundle})
    files = {name: folder / path for name in ("labels", "reports") if (path := getattr(loaded.retrain, name))}
    subscribers = tuple(_with_absolute_files(one, folder) for one in loaded.worklist.subscribers)
    changes: dict[str, Any] = {
        "node": _with_absolute_files(node, folder),
        "intake": _with_absolute_files(loaded.intake, folder),
        "worklist": loaded.worklist.model_copy(update={"subscribers": subscribers}),
        "model": model,
        "retrain": loaded.retrain.model_copy(update=files),
        "destinations": tuple(_with_absolute_files(destination, folder) for destination in loaded.destinations),
        "hl7": _with_absolute_files(loaded.hl7, folder),
        "audit": _with_absolute_files(loaded.audit, folder),
    }
    return loaded.model_copy(update=changes)


def _with_absolute_files(section: Any, folder: Path) -> Any:
    """The same section; relative paths of certificates, keys and credentials start at `folder`."""
    changes = {name: folder / path for name in FILES if (path := getattr(section, name, None)) is not None}
    for name in WITH_FILES:
        if (below := getattr(section, name, None)) is not None:
            changes[name] = _with_absolute_files(below, folder)
    return section.model_copy(update=changes)


def _absolute(database: str | None, folder: Path) -> str | None:
    """The same URL; an SQLite file's relative path starts at `folder`."""
    if database is None:
        return None
    try:
        url = make_url(database)
    except ArgumentError as error:
        raise ConfigurationError("node.database: not a database URL that SQLAlchemy knows") from error
    if url.get_backend_name() == "sqlite" and (not url.database or url.database == ":memory:"):
        raise ConfigurationError(
            "node.database: SQLite needs a file; in memory each process would have a registry of its own"
        )
    if url.get_backend_name() != "sqlite" or not url.database or Path(url.database).is_absolute():
        return database
    return url.set(database=str(folder / url.database)).render_as_string(hide_password=False)


def _explain(item: dict[str, Any]) -> str:
    if item["type"] == "union_tag_invalid":  # pydantic names the whole table, not the key
        item["loc"], item["msg"] = (*item["loc"], "kind"), f"not one of {item['ctx']['expected_tags']}"
    parts = [str(part) for part in item["loc"]]
    if parts[:1] == ["destinations"] and parts[2:3] and parts[2] in KINDS:
        del parts[2]  # the kind, which is no key of the file
    where = ".".join(parts) or "configuration"
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key"
    return f"{where}: {item['msg']}"
