"""How a run is configured: by the operator if there is one, else by the script.

Invariant: in a pod the operator's word wins over the script's arguments, which are for
runs elsewhere; the start line says which place is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from spot_trainer.contract import ContractError, Environment, IfExists, IntervalPolicy
from spot_trainer.notice_endpoint import CLOUDS, DEFAULT_URL
from spot_trainer.outcome import is_writer

LOCAL_JOB_UID = "local"
MAX_AUTOMATIC_SECONDS = 600.0
"""Whatever the arithmetic says: more work than this is not put at stake outside a pod."""
VERIFY_INTERVAL_SECONDS = "SPOT_VERIFY_INTERVAL_SECONDS"
"""Set by `spot-trainer verify` only: the interval, which may be a fraction of a second."""
VERIFY_LOG_SECONDS = "SPOT_VERIFY_LOG_SECONDS"
"""Set by `spot-trainer verify` only: it has to see each step in order to interrupt at one."""
NOTICE_ENDPOINT = "SPOT_NOTICE_ENDPOINT"
NOTICE_ENDPOINT_URL = "SPOT_NOTICE_ENDPOINT_URL"
METRICS_PORT = "SPOT_METRICS_PORT"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that the run needs to know from outside."""

    uri: str | None
    """file:///path or s3://bucket/prefix; None: nothing is kept."""
    run_id: str = "local"
    job: str = "local"
    job_uid: str = LOCAL_JOB_UID
    job_created: datetime = _EPOCH
    pod_uid: str = ""
    incarnation: int | None = None
    """None: one more than the store has seen (there is no operator to count)."""
    capacity_type: str = "local"
    interval_policy: IntervalPolicy = IntervalPolicy.FIXED
    interval_seconds: float = 300.0
    """The interval if the policy is Fixed, else the longest one."""
    keep: int = 3
    keep_every_steps: int | None = None
    """The first checkpoint at or after each multiple stays for good; always the script's word."""
    if_exists: IfExists = IfExists.RESUME
    grace_seconds: float = 30.0
    handover_seconds: float = 0.0
    """How long the claim waits for a predecessor that is still saving; 0: it has ended already."""
    fingerprint: str = ""
    termination_log: str | None = None
    status_url: str | None = None
    status_ca_cert: str | None = None
    status_token: str | None = None
    notice_endpoint: str | None = None
    """The cloud whose metadata service is polled, a key of `CLOUDS`; None: nobody is asked."""
    notice_endpoint_url: str = DEFAULT_URL
    metrics_port: int | None = None
    """Where Prometheus may scrape; None: nothing listens."""
    log_seconds: float | None = None
    """Least time between two step lines; None: as the script says."""


def read_settings(
    environ: Mapping[str, str],
    *,
    checkpoint: str | Path | None = None,
    interval_seconds: float | Literal["auto"] = 300.0,
    keep: int = 3,
    keep_every_steps: int | None = None,
) -> Settings:
    """Settings from the operator's environment, else from the arguments; raises ContractError."""
    if int(environ.get("WORLD_SIZE") or 1) > 1:
        raise ContractError("this version trains with one process per job (WORLD_SIZE=1)")
    if interval_seconds != "auto" and not interval_seconds > 0:
        raise ContractError(f'interval_seconds is {interval_seconds}: use a positive number, or "auto"')
    if checkpoint is not None and not str(checkpoint):
        raise ContractError('checkpoint is "": name a directory, file:///path or s3://bucket/prefix')
    if keep < 2:
        raise ContractError("keep must be at least 2: with 1 a damaged newest checkpoint leaves nothing")
    if keep_every_steps is not None and keep_every_steps < 1:
        raise ContractError(f"keep_every_steps is {keep_every_steps}: use a positive number, or None")
    options = _read_options(environ)
    if not Environment.is_present(environ):
        is_auto = interval_seconds == "auto"
        return Settings(
            uri=_as_uri(checkpoint),
            interval_policy=IntervalPolicy.AUTO if is_auto else IntervalPolicy.FIXED,
            interval_seconds=MAX_AUTOMATIC_SECONDS if is_auto else float(interval_seconds),
            keep=keep,
            keep_every_steps=keep_every_steps,
            **options,
        )
    told = Environment.from_environ(environ)
    return Settings(
        uri=told.checkpoint_uri or _as_uri(checkpoint),
        run_id=told.run_id,
        job=f"{told.job_namespace}/{told.job_name}",
        job_uid=told.job_uid,
        job_created=told.job_created,
        pod_uid=told.pod_uid,
        incarnation=told.incarnation,
        capacity_type=told.capacity_type,
        interval_policy=told.checkpoint_interval_policy,
        interval_seconds=float(environ.get(VERIFY_INTERVAL_SECONDS) or told.checkpoint_interval_seconds),
        keep=told.checkpoint_keep,
        keep_every_steps=keep_every_steps,
        if_exists=told.checkpoint_if_exists,
        grace_seconds=told.grace_seconds,
        handover_seconds=float(told.handover_seconds),
        fingerprint=told.template_fingerprint,
        termination_log=told.termination_log if is_writer(environ.get("LOCAL_RANK", "")) else None,
        status_url=told.status_url,
        status_ca_cert=told.status_ca_cert,
        status_token=told.status_token,
        log_seconds=float(environ[VERIFY_LOG_SECONDS]) if environ.get(VERIFY_LOG_SECONDS) else None,
        **options,
    )


def _read_options(environ: Mapping[str, str]) -> dict[str, Any]:
    """What users set in the environment, in a pod and elsewhere; raises ContractError."""
    cloud, port = environ.get(NOTICE_ENDPOINT, "").lower(), environ.get(METRICS_PORT, "")
    if cloud and cloud not in CLOUDS:
        known = ", ".join(CLOUDS)
        raise ContractError(f"{NOTICE_ENDPOINT}={cloud!r}: use one of {known}, or leave it unset")
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ContractError(f"{METRICS_PORT}={port!r}: use a port from 1 to 65535, or leave it unset")
    return {
        "notice_endpoint": cloud or None,
        "notice_endpoint_url": environ.get(NOTICE_ENDPOINT_URL) or DEFAULT_URL,
        "metrics_port": int(port) if port else None,
    }


def _as_uri(checkpoint: str | Path | None) -> str | None:
    if checkpoint is None or "://" in str(checkpoint):
        return None if checkpoint is None else str(checkpoint)
    return Path(checkpoint).absolute().as_uri()
