"""Everything that a platform team can set, read from the environment once, at the edge.

One frozen value is passed to whoever needs it; nothing else in the package reads the
environment. Invariant: a value that cannot be used is refused at start, naming the
variable, the value and what would be right; there is no silent fallback.
"""

import dataclasses
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Final, get_type_hints

from spot_operator.model import PolicySettings
from spot_operator.names import STATUS_PORT
from spot_operator.prices import InvalidPrices, PriceTable, read_price_table

PREFIX: Final = "SPOT_OPERATOR_"
DNS_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z")
LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")


class InvalidSetting(ValueError):
    """A variable that cannot be used: its name, its value, what is expected."""

    def __init__(self, variable: str, value: object, expected: str) -> None:
        super().__init__(f"{variable}={value!r}: expected {expected}")


@dataclass(frozen=True, kw_only=True)
class LeaseSettings:
    """Leader election; the defaults are those of Kubernetes' own controllers."""

    name: str = "spot-training-operator"
    """Name of the Lease in the operator's namespace; change it to run two installations there."""
    duration_seconds: float = 15.0
    """Seconds without a renewal after which another replica takes over; shorter means a faster
    take-over and less patience with a slow API server."""
    renew_deadline_seconds: float = 10.0
    """Seconds after its last successful renewal that the leader goes on acting; must be less than
    the duration, so that it has stopped before another begins."""
    retry_seconds: float = 2.0
    """Seconds between renewals; a stand-by looks eight times as often."""

    def __post_init__(self) -> None:
        if not self.retry_seconds < self.renew_deadline_seconds < self.duration_seconds:
            raise InvalidSetting(
                PREFIX + "LEASE_RENEW_DEADLINE_SECONDS",
                f"{self.renew_deadline_seconds:g}",
                f"more than LEASE_RETRY_SECONDS ({self.retry_seconds:g}) and less than "
                f"LEASE_DURATION_SECONDS ({self.duration_seconds:g})",
            )


@dataclass(frozen=True, kw_only=True)
class Settings:
    namespace: str = "default"
    """Namespace of the operator itself: Lease, TLS secret, own pod. Downward API in the chart."""
    pod_name: str = ""
    """Name of the operator's pod, for the leader label and the Lease. Empty: not in a pod."""
    pod_uid: str = ""
    """UID of the operator's pod: a restarted container takes its own Lease back at once."""
    watch_namespaces: tuple[str, ...] = ()
    """Namespaces whose jobs are served, separated by commas. Empty: all of them."""
    status_service: str = ""
    """Name of the Service in front of the status server; part of the URL that pods report to and
    of the certificate. Empty (and no STATUS_HOST): no status server, progress is unknown."""
    status_host: str = ""
    """Host name or address in that URL instead of `<service>.<namespace>.svc`: for an operator
    that runs outside the cluster."""
    status_port: int = STATUS_PORT
    """TCP port of the status server (HTTPS)."""
    tls_secret_name: str = "spot-training-operator-tls"
    """Secret in the operator's namespace that holds its CA and serving certificate; created and
    renewed by the operator, shared by the replicas."""
    metrics_port: int = 8080
    """TCP port of /metrics, /healthz and /readyz (HTTP)."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""
    resync_seconds: float = 120.0
    """Seconds between full listings of jobs and nodes. Watches deliver changes at once, and one that
    lost some and begins anew causes a listing; this one heals what is lost unnoticed."""
    workers: int = 12
    """Jobs reconciled at the same time. Each waits mostly for the API server: of a busy one, two answers of
    a tenth of a second each. Eight left it time in a rush of launches, and twenty were slower where a
    thousand jobs were interrupted at once (bench/README.md)."""
    request_timeout_seconds: float = 15.0
    """Seconds after which any single API call is given up."""
    progress_write_seconds: float = 10.0
    """Least seconds between two status writes of one job that carry nothing but progress."""
    report_wake_seconds: float = 10.0
    """Seconds that a progress report may wait for a look at its job, so that a job that reports
    every few seconds is not read as often. A new durable step or incarnation does not wait."""
    lease: LeaseSettings = field(default_factory=LeaseSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)

    def __post_init__(self) -> None:
        for name, value in (("NAMESPACE", self.namespace), ("TLS_SECRET_NAME", self.tls_secret_name)):
            if not DNS_NAME.match(value):
                raise InvalidSetting(PREFIX + name, value, "a Kubernetes object name")
        for namespace in self.watch_namespaces:
            if not DNS_NAME.match(namespace):
                raise InvalidSetting(
                    PREFIX + "WATCH_NAMESPACES", ",".join(self.watch_namespaces), "namespaces and commas"
                )
        if self.log_level not in LOG_LEVELS:
            raise InvalidSetting(PREFIX + "LOG_LEVEL", self.log_level, "one of " + ", ".join(LOG_LEVELS))

    @property
    def status_address(self) -> str:
        """Host that the job's pods report to; empty: no status server."""
        if self.status_host or not self.status_service:
            return self.status_host
        return f"{self.status_service}.{self.namespace}.svc"

    def status_url(self, namespace: str, name: str) -> str:
        """Full URL that the pods of a job report to; empty: no status server."""
        if not self.status_address:
            return ""
        return (
            f"https://{self.status_address}:{self.status_port}"
            f"/v1alpha1/namespaces/{namespace}/spottrainingjobs/{name}/status"
        )


def _variables(cls: type, prefix: str) -> list[tuple[str, str, Any]]:
    """(field, variable, type) of every scalar field of a settings class."""
    hints = get_type_hints(cls)
    return [
        (f.name, PREFIX + prefix + f.name.upper(), hints[f.name])
        for f in dataclasses.fields(cls)
        if not dataclasses.is_dataclass(hints[f.name])
    ]


# Downward-API names that charts use everywhere are understood without our prefix too.
_BARE: Final = frozenset({"NAMESPACE", "POD_NAME", "POD_UID"})


def _read(environ: Mapping[str, str], variable: str) -> tuple[str, str | None]:
    bare = variable.removeprefix(PREFIX)
    if variable not in environ and bare in _BARE:
        return bare, environ.get(bare)
    return variable, environ.get(variable)


def _parse(variable: str, text: str, kind: Any) -> Any:
    if isinstance(kind, UnionType):
        raise TypeError(f"{variable} has no parser")
    if kind is str:
        return text
    if kind == PriceTable:
        try:
            return read_price_table(text)
        except InvalidPrices as error:
            raise InvalidSetting(f"{variable}: {error.path}", error.value, error.expected) from None
    if kind is bool:
        if text not in ("true", "false"):
            raise InvalidSetting(variable, text, "true or false")
        return text == "true"
    if kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            raise InvalidSetting(variable, text, f"a number ({kind.__name__})") from None
        if not 0 < number < 10**9:
            raise InvalidSetting(variable, text, "a number greater than 0")
        return number
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _from_environ(cls: type, prefix: str, environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, variable, kind in _variables(cls, prefix):
        source, text = _read(environ, variable)
        if text is not None and text != "":
            values[name] = _parse(source, text, kind)
    return values


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read and check all settings; an empty variable counts as unset.

    Raises:
        InvalidSetting: names the variable, the value and what is expected.
    """
    known = {variable for cls, prefix in _GROUPS for _, variable, _ in _variables(cls, prefix)}
    for variable, value in environ.items():
        if variable.startswith(PREFIX) and variable not in known:
            raise InvalidSetting(variable, value, "no such setting (see --help)")
    return Settings(
        **_from_environ(Settings, "", environ),
        lease=LeaseSettings(**_from_environ(LeaseSettings, "LEASE_", environ)),
        policy=PolicySettings(**_from_environ(PolicySettings, "POLICY_", environ)),
    )


_GROUPS: Final[tuple[tuple[type, str], ...]] = (
    (Settings, ""),
    (LeaseSettings, "LEASE_"),
    (PolicySettings, "POLICY_"),
)


def describe_settings() -> str:
    """One paragraph per variable: name, default, and the docstring of its field."""
    lines: list[str] = []
    for cls, prefix in _GROUPS:
        docs = _field_docs(cls)
        instance = cls()
        for name, variable, _ in _variables(cls, prefix):
            default = getattr(instance, name)
            shown = ",".join(default) if isinstance(default, tuple) else default
            lines.append(f"  {variable} (default: {shown!r})")
            if name in docs:
                lines.append(f"      {docs[name]}")
    return "\n".join(lines)


def _field_docs(cls: type) -> dict[str, str]:
    """The docstring under each field, which Python itself does not keep."""
    found = re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""', inspect.getsource(cls), re.M | re.S)
    return {name: re.sub(r"\s+", " ", text).strip() for name, text in found}
