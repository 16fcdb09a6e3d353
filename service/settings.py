"""What can be set, all of it by environment variables `EMASCALE_...`."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.db import driver_url

MIB = 2**20
PREFIX = "EMASCALE_"
_HOW_TO_OPEN = (
    "To let others in, set auth to token (EMASCALE_AUTH=token, or --auth token), "
    "and make one with `python -m service token create --name NAME --scope admin`"
)


def _protected(host: str, others: ValidationInfo) -> str:
    """Whoever reaches the port without a token may do everything, so then it is for this machine alone."""
    if others.data.get("auth") == "none" and not is_loopback(host):
        raise ValueError(f"must be a loopback address such as 127.0.0.1 while auth is none. {_HOW_TO_OPEN}")
    return host


def _only_with_tokens(names: tuple[str, ...], others: ValidationInfo) -> tuple[str, ...]:
    """A name besides those of this machine is one by which others come."""
    if names and others.data.get("auth") == "none":
        raise ValueError(f"must be empty while auth is none. {_HOW_TO_OPEN}")
    return names


def _listed(names: Any) -> Any:
    return tuple(name.strip().lower() for name in names.split(",") if name.strip()) if isinstance(names, str) else names


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _anchored(url: str) -> str:
    """A plain path is made absolute: workers run in other folders."""
    if "://" not in url:
        return str(Path(url).absolute())
    if set(url) & set("*?["):
        raise ValueError("must be without *, ? and [: file systems behind an URL take them for a pattern")
    return url


def _known_kind(url: str) -> str:
    """With its driver named; refused here, and not by the first process that connects."""
    return driver_url(url).render_as_string(hide_password=False)


def _database_below(data: dict[str, Any]) -> str:
    return f"sqlite:///{data['data_folder'] / 'emascale.db'}"


def _storage_below(data: dict[str, Any]) -> str:
    return str(data["data_folder"] / "jobs")


class Settings(BaseSettings):
    """Made once at the start of a process and passed on; nothing reads the environment later."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    data_folder: Annotated[Path, AfterValidator(Path.absolute)] = Field(
        Path(".emascale"), validate_default=True, description="Where the service keeps what it must not lose."
    )
    auth: Literal["none", "token"] = Field("none", description="token: every request needs one, from this machine too.")
    host: Annotated[str, AfterValidator(_protected)] = Field("127.0.0.1", description="Address to listen on.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_only_with_tokens)] = (
        Field((), description="Names, with commas between them, that the Host header may have besides this machine's.")
    )
    port: int = Field(8000, ge=0, le=65535, description="0: any free port.")
    database_url: Annotated[str, AfterValidator(_known_kind)] = Field(
        default_factory=_database_below, description="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME."
    )
    storage_url: Annotated[str, AfterValidator(_anchored)] = Field(
        default_factory=_storage_below, description="Folder or fsspec URL below which every job has its own folder."
    )
    ray_address: str | None = Field(None, description="Of a running cluster; null: the service starts its own.")
    local_slots: int | None = Field(None, ge=1, description="CPUs of the own Ray head; null: all of the machine.")
    grace_s: float = Field(
        60.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds for jobs to leave a checkpoint when the service stops, and its own cluster with it.",
    )
    max_body_bytes: int = Field(MIB, ge=1, description="Larger request bodies are refused.")
    read_recipes: bool = Field(
        True, description="Import a user's own recipe in a process beside the service, to check its config at submit."
    )
    log_format: Literal["text", "json"] = Field("text", description="Of the log lines on standard error.")
    event_poll_s: float = Field(0.2, gt=0, description="How often a live stream looks for something new.")
    log_poll_s: float = Field(
        2.0, gt=0, description="How often whoever follows logs is told new lines: each look lists the job's logs."
    )


def variable(field: str) -> str:
    """The environment variable that sets a field of `Settings`."""
    return PREFIX + field.upper()


def default(field: str) -> str:
    """What a field of `Settings` is without its variable, as a person reads it."""
    derived = {"database_url": "emascale.db in the data folder", "storage_url": "jobs in the data folder"}
    value = Settings.model_fields[field].get_default()
    return derived.get(field) or ("none" if value in (None, ()) else str(value))
