"""Settings: flags over environment (`ATTEST_*`) over a YAML file over defaults.

Secrets are named by file, never given as values: flags show in `ps`.
"""

import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from attest.errors import ConfigurationError
from attest.hashing import MANIFEST_NAME
from gateway.engine.address import ADDRESS_PATTERN

__all__ = [
    "EngineSettings",
    "LimitSettings",
    "PolicySettings",
    "Settings",
    "TlsSettings",
    "WitnessSettings",
    "load_settings",
]


class EngineSettings(BaseModel):
    """The model server that the gateway starts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    python: str = Field(
        sys.executable, description="interpreter that has vLLM; may be another venv's"
    )
    dtype: str = Field(
        "", description="number format to compute in; empty takes the manifest's first"
    )
    max_model_len: int | None = Field(
        None, gt=0, description="longest context in tokens; empty asks the engine"
    )
    extra_args: tuple[str, ...] = Field(
        (), description="further vLLM flags; those that weaken the proof are refused"
    )
    start_timeout_seconds: float = Field(
        600, gt=0, description="how long the engine may take to load"
    )
    seal: Literal["none", "small", "all"] = Field(
        "none",
        description="give the engine sealed copies in memory instead of the files: "
        "small copies all but the safetensors files, which the loader hashes anyway; "
        "all takes memory of the model's size for as long as the engine runs",
    )
    restarts: int = Field(
        3,
        ge=0,
        description="how often an engine that ended is started and verified anew, "
        "with growing pauses; ten minutes of service earn the restarts back",
    )


class WitnessSettings(BaseModel):
    """Somebody who watches the log and cosigns it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, Field(pattern=r"\Ahttps?://")] = Field(
        description="submission prefix; /add-checkpoint is asked under it"
    )
    vkey: str = Field(description="public key that its cosignatures verify with")


class TlsSettings(BaseModel):
    """TLS on `port`; without a certificate there is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: Path | None = Field(
        None,
        description="PEM file with the server's certificate chain; read anew when it "
        "changes, so that a renewal needs no restart",
    )
    key: Path | None = Field(None, description="PEM file with its private key")
    client_ca: Path | None = Field(
        None,
        description="PEM file with the authorities of clients: then every client "
        "needs a certificate by one of them (mTLS)",
    )


class LimitSettings(BaseModel):
    """Bounds on what clients may ask for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_body_bytes: int = Field(
        16 * 1024 * 1024, gt=0, description="largest request body; more gets 413"
    )
    max_concurrency: int = Field(
        256, gt=0, description="requests in flight; more get 429"
    )
    max_concurrency_per_key: int | None = Field(
        None,
        gt=0,
        description="requests in flight of one API key; more get 429. Empty: no limit "
        "of its own",
    )
    head_seconds: float = Field(
        10,
        gt=0,
        description="how long the head of a request may take; the connection of a "
        "slower one is closed",
    )
    body_seconds: float = Field(
        60, gt=0, description="how long the body of a request may take; then 408"
    )
    idle_seconds: float = Field(
        60,
        gt=0,
        description="how long a client may take nothing of a stream before its "
        "connection is closed and the record says that it left",
    )
    answer_seconds: float = Field(
        3600,
        gt=0,
        description="how long one answer may take; then it is ended, with a signed "
        "record that says truncated, or 504",
    )


class PolicySettings(BaseModel):
    """What requests may ask for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system_prompt: Literal["observe", "require", "inject"] = Field(
        "observe",
        description="observe: the token says whether the system prompt is governed; "
        "require: refuse one that is not; inject: put the governed one first",
    )
    inject_prompt: Path | None = Field(
        None, description="file with the governed prompt that inject puts first"
    )
    request_overrides: Literal["refuse", "mark"] = Field(
        "refuse",
        description="members that change how the prompt is built, go round the weights "
        "or are unknown: refuse the request, or mark the token",
    )


class Settings(BaseSettings):
    """Everything that can be set, each with what it does."""

    model_config = SettingsConfigDict(
        env_prefix="ATTEST_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )
    # Set for the one call of load_settings; pydantic-settings reads it there.
    _config_file: ClassVar[Path | None] = None

    model: Path | None = Field(
        None, description="directory of the model; may be left out with upstream only"
    )
    manifest: Path = Field(
        Path(), description=f"training manifest; default: MODEL/{MANIFEST_NAME}"
    )
    authority: tuple[Path, ...] = Field(
        min_length=1, description="public keys of the training authorities to trust"
    )
    threshold: int = Field(
        1, ge=1, description="how many of the authorities must have signed"
    )
    signer: Annotated[str, Field(pattern=r"\A[a-z0-9]+:")] = Field(
        description="key that certifies session keys, for example file:issuer.key.pem"
    )
    gateway_id: str = Field(
        "urn:attest-gateway:local",
        min_length=1,
        max_length=256,
        description="name of this gateway in every token (iss)",
    )
    served_model_name: str = Field(
        "", description="name that clients ask for; empty takes the manifest's"
    )
    upstream: Annotated[str, Field(pattern=ADDRESS_PATTERN)] = Field(
        "",
        description="engine that somebody else starts: http://…, https://… or "
        "unix:/path; empty starts one as a child",
    )
    reference_file: Path | None = Field(
        None,
        description="with upstream: where to write what the engine's loader must find",
    )
    load_report: Path | None = Field(
        None,
        description="with upstream: file that the engine's plug-in writes after "
        "loading, for where its evidence route can't be reached; counts only if the "
        "kernel shows that its writer is the process that listens",
    )
    files_max_age_seconds: int = Field(
        0,
        ge=0,
        description="a start does not read the model's files again that an earlier one "
        "read so long ago at most, if inodes, sizes and times are as they were; the "
        "boot record then says `cached`. 0: every start reads them. Whoever may write "
        "`state_dir` can make a start believe that files were read",
    )
    recheck_seconds: float = Field(
        60,
        gt=0,
        description="between two looks at files, engine process and settings; a change "
        "may go unseen for so long",
    )
    canary_seconds: float = Field(
        600,
        ge=0,
        description="between two rounds of fixed greedy questions whose answers must "
        "not change; 0 asks them never, also not at the start",
    )
    live_weights_seconds: float = Field(
        0,
        ge=0,
        description="between two hashings of the weights in the engine's memory, which "
        "hold it up for a second per 1.5 GB; 0 hashes them never",
    )
    session_key_seconds: float = Field(
        24 * 3600,
        gt=0,
        le=5 * 24 * 3600,
        description="how long a session key signs before the next one, certified anew, "
        "takes over; certificates last six days, so that a signer may be out of reach "
        "for the rest of them",
    )
    on_change: Literal["stop", "mark"] = Field(
        "stop",
        description="when what was verified changes: stop refuses every request until "
        "the gateway is started again; mark goes on, with tokens that say stale and "
        "claim no measurement",
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on, 0 for any")
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="processes that answer, for sites where one core of Python is not "
        "enough; each takes its share of limits.max_concurrency and of "
        "limits.max_concurrency_per_key, rounded up. With more than one, state_dir "
        "must not be on a network file system",
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="port for /metrics, without API keys, on the same address; "
        "empty: none, 0 for any",
    )
    state_dir: Path = Field(
        Path("attest-state"), description="store, engine log and refusals live here"
    )
    log_requests: bool = Field(
        True,
        description="one line in the log for each request: path, status, outcome, "
        "times, sizes, ids and the name of the API key; never a prompt or an answer",
    )
    traces_endpoint: Annotated[str, Field(pattern=r"\A(https?://.*)?\z")] = Field(
        "",
        description="OTLP/HTTP URL for OpenTelemetry spans, such as "
        "http://collector:4318/v1/traces; whoever runs it learns who asks what model "
        "when, no text",
    )
    tls: TlsSettings = Field(default_factory=TlsSettings)
    postgres_dsn_file: Path | None = Field(
        None,
        description="file with a PostgreSQL connection string: replicas then share "
        "attestations and one log; empty keeps them in a file in state_dir",
    )
    api_keys_file: Path | None = Field(
        None, description="SHA-256 digests of the API keys, one a line; none: open"
    )
    log_key: Path | None = Field(
        None,
        description="Ed25519 private key that signs the log's heads; without it there "
        "is no log, and no answer is proven beyond tier T1",
    )
    log_origin: str = Field(
        "",
        max_length=256,
        description="name of the log, such as example.com/log; empty takes gateway_id",
    )
    log_witnesses: tuple[WitnessSettings, ...] = Field(
        (), max_length=16, description="witnesses to have the log cosigned by"
    )
    status_lists: tuple[Path, ...] = Field(
        (),
        max_length=16,
        description="signed status lists: a revoked manifest is not served, and they "
        "go into bundles, read anew each time",
    )
    key_status_uri: str = Field(
        "",
        max_length=1024,
        description="status list in which each session key gets an entry, so that it "
        "can be revoked; empty: none",
    )
    engine: EngineSettings = Field(default_factory=EngineSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    policy: PolicySettings = Field(default_factory=PolicySettings)
    stream_delivery: Literal["comment", "header-only"] = Field(
        "comment",
        description="comment: streams carry the attestation in an SSE comment; "
        "header-only: they carry its id alone, for readers that choke on comments",
    )

    @property
    def manifest_path(self) -> Path:
        """Where the manifest is.

        Raises:
            ConfigurationError: neither it nor the model was given.
        """
        if self.manifest != Path():
            return self.manifest
        if self.model is None:
            raise ConfigurationError(
                "settings: manifest: needed where there is no model directory",
                hint="name it: --manifest training-manifest.json",
            )
        return self.model / MANIFEST_NAME

    def check_together(self) -> None:
        """Return when no setting goes against another.

        Raises:
            ConfigurationError: two do, or one needs another; both are named.
        """
        external = bool(self.upstream)
        rules = {
            "model: needed unless upstream names an engine": external or self.model,
            "engine.extra_args: the engine at upstream has flags of its own": not (
                external and self.engine.extra_args
            ),
            "engine.max_model_len: the engine at upstream has its own": not (
                external and self.engine.max_model_len
            ),
            "engine.seal: the engine at upstream reads its own files": not external
            or self.engine.seal == "none",
            "reference_file: for an engine at upstream only": external
            or not self.reference_file,
            "tls: certificate and key go together": (self.tls.certificate is None)
            == (self.tls.key is None),
            "tls.client_ca: needs tls.certificate": not self.tls.client_ca
            or self.tls.certificate,
            "load_report: needs reference_file, which says what was to be loaded": (
                self.reference_file or not self.load_report
            ),
        }
        for problem, holds in rules.items():
            if not holds:
                raise ConfigurationError(
                    f"settings: {problem}", hint="see: attest-gateway serve --help"
                )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then the YAML file."""
        del dotenv_settings, file_secret_settings
        yaml = YamlConfigSettingsSource(settings_cls, yaml_file=cls._config_file)
        return init_settings, env_settings, yaml


def load_settings(flags: dict[str, Any], config: Path | None = None) -> Settings:
    """The settings from all sources; flags that are None were not given.

    Raises:
        ConfigurationError: one is missing, unknown or unusable; each is named.
    """
    if config is not None and not config.is_file():
        raise ConfigurationError(
            f"settings: {config} is not a file", hint="check --config"
        )

    class _Configured(Settings):
        _config_file = config

    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = _Configured(**given)
    except ValidationError as error:
        # The values themselves are left out: one could be a secret in a wrong place.
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(
            f"settings: {problems}",
            hint="see: attest-gateway serve --help",
        ) from None
    settings.check_together()
    return settings
