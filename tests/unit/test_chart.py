"""What the chart renders: the same bytes every time, nothing secret, nothing unknown, settings that exist."""

import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster.binaries import Binaries
from localcluster.cache import Cache
from spot_operator.api import crd
from spot_operator.prices import NodePrices
from spot_operator.settings import Settings, read_settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "spot-training-operator"
EVERYTHING = (
    "replicas=2",
    "networkPolicy.enabled=true",
    "metrics.serviceMonitor.enabled=true",
    "watchNamespaces={team-a,team-b}",
    "commonLabels.team=platform",
    "imagePullSecrets[0].name=registry",
    "priorityClassName=high",
    "prices.g5\\.xlarge.onDemand=1.01",
)
DOWNWARD = {
    "SPOT_OPERATOR_NAMESPACE": "spot-system",
    "SPOT_OPERATOR_POD_NAME": "operator-abc",
    "SPOT_OPERATOR_POD_UID": "0-1-2",
}

Render = Callable[..., str]


@pytest.fixture(scope="session")
def helm() -> Path:
    return Binaries(Cache()).helm()


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    def run(*settings: str, values: Path | None = None) -> str:
        arguments = [
            part
            for setting in settings
            for part in ("--set-string" if "prices" in setting else "--set", setting)
        ]
        arguments += [] if values is None else ["--values", str(values)]
        command = [helm, "template", "stj", CHART, "--namespace", "spot-system", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise ValueError(result.stderr)
        return result.stdout

    return run


def objects(rendered: str) -> list[dict[str, Any]]:
    return [o for o in yaml.safe_load_all(rendered) if o]


def of_kind(rendered: str, kind: str) -> list[dict[str, Any]]:
    return [o for o in objects(rendered) if o["kind"] == kind]


def pod_of(rendered: str) -> dict[str, Any]:
    (deployment,) = of_kind(rendered, "Deployment")
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return pod


def settings_of(rendered: str) -> Settings:
    (container,) = pod_of(rendered)["containers"]
    plain = {e["name"]: e["value"] for e in container["env"] if "value" in e}
    from_pod = {e["name"] for e in container["env"] if "valueFrom" in e}
    assert from_pod == set(DOWNWARD)
    return read_settings(plain | DOWNWARD)


def rules_of(rendered: str, kind: str, name: str) -> set[tuple[str, str, tuple[str, ...]]]:
    found = set()
    for role in of_kind(rendered, kind):
        if role["metadata"]["name"] == name:
            for rule in role["rules"]:
                names = tuple(rule.get("resourceNames", ()))
                found |= {(r, v, names) for r in rule["resources"] for v in rule["verbs"]}
    return found


@pytest.mark.parametrize("settings", [(), EVERYTHING], ids=["defaults", "everything"])
def test_two_renderings_are_the_same_bytes(render: Render, settings: tuple[str, ...]) -> None:
    assert render(*settings) == render(*settings)


@pytest.mark.parametrize("settings", [(), EVERYTHING], ids=["defaults", "everything"])
def test_no_hooks_and_no_secrets(render: Render, settings: tuple[str, ...]) -> None:
    rendered = render(*settings)
    assert "helm.sh/hook" not in rendered
    assert "argocd.argoproj.io/hook" not in rendered
    assert of_kind(rendered, "Secret") == []


def test_nothing_depends_on_the_cluster_or_on_chance() -> None:
    for template in (CHART / "templates").iterdir():
        text = template.read_text()
        for function in ("lookup", "rand", "genCA", "genSelfSigned", "uuidv4", "now ", "htpasswd"):
            assert function not in text or template.name == "crd.yaml", (template.name, function)


def test_crd_is_the_generated_one_and_is_kept(render: Render) -> None:
    (rendered,) = of_kind(render(), "CustomResourceDefinition")
    assert rendered["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert rendered == crd.custom_resource_definition()


def test_crd_can_be_left_out_or_not_kept(render: Render) -> None:
    assert of_kind(render("crds.install=false"), "CustomResourceDefinition") == []
    (rendered,) = of_kind(render("crds.keep=false"), "CustomResourceDefinition")
    assert rendered == crd.custom_resource_definition()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("replica=2", "additional properties 'replica' not allowed"),
        ("image.tga=v1", "additional properties 'tga' not allowed"),
        ("policy.bogus=1", "additional properties 'bogus' not allowed"),
        ("replicas=two", "got string, want integer"),
        ("logLevel=TRACE", "value must be one of 'DEBUG', 'INFO', 'WARNING', 'ERROR'"),
        ("image.digest=latest", "does not match pattern"),
        ("policy.spotUnreachableTolerationSeconds=0", "minimum: got 0, want 1"),
        ("policy.returnPauseSeconds=0", "minimum: got 0, want 1"),
        ("policy.settleSeconds=0", "minimum: got 0, want 1"),
        ("policy.interruptionPriorCount=0", "minimum: got 0, want 1"),
        ("policy.interruptionPriorNodeHours=0", "minimum: got 0, want 1"),
        ("prices.g5\\.xlarge.spot=cheap", "does not match pattern"),
        ("prices.g5\\.xlarge.spt=1", "additional properties 'spt' not allowed"),
        ("prices.a b.spot=1", "does not match pattern"),
    ],
)
def test_unknown_and_impossible_values_are_refused(render: Render, setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render(setting)


def test_defaults_are_the_operators_own(render: Render) -> None:
    settings = settings_of(render())
    assert settings.policy == Settings().policy
    assert settings.log_level == "INFO"
    assert settings.watch_namespaces == ()


def test_values_reach_the_operators_settings(render: Render) -> None:
    settings = settings_of(
        render(
            "policy.spotUnreachableTolerationSeconds=45",
            "policy.protectFromVoluntaryDisruption=false",
            "watchNamespaces={team-a,team-b}",
            "logLevel=DEBUG",
        )
    )
    assert settings.policy.spot_unreachable_toleration_seconds == 45
    assert settings.policy.protect_from_voluntary_disruption is False
    assert settings.watch_namespaces == ("team-a", "team-b")
    assert settings.log_level == "DEBUG"


def test_the_price_table_reaches_the_operator(render: Render, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(
        'prices:\n  g5.xlarge: {spot: "0.42", onDemand: "1.010"}\n  "n1_std-8": {spot: "0.10"}\n'
        "policy: {interruptionPriorCount: 3, interruptionPriorNodeHours: 500}\n"
    )
    policy = settings_of(render(values=values)).policy
    assert policy.prices == {
        "g5.xlarge": NodePrices(spot=Decimal("0.42"), on_demand=Decimal("1.01")),
        "n1_std-8": NodePrices(spot=Decimal("0.10")),
    }
    assert (policy.interruption_prior_count, policy.interruption_prior_node_hours) == (3, 500)


def test_a_price_is_text_as_in_a_job(render: Render, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("prices:\n  g5.xlarge: {spot: 0.42}\n")
    with pytest.raises(ValueError, match=r"(?s)/prices/g5.xlarge/spot.*got number, want string"):
        render(values=values)


def test_status_url_names_the_service_that_selects_the_leader(render: Render) -> None:
    rendered = render()
    settings = settings_of(rendered)
    (service,) = [s for s in of_kind(rendered, "Service") if s["metadata"]["name"] == settings.status_service]
    assert service["spec"]["selector"]["spottraining.io/leader"] == "true"
    (port,) = service["spec"]["ports"]
    assert port["port"] == settings.status_port
    assert port["targetPort"] in {p["name"] for p in pod_of(rendered)["containers"][0]["ports"]}


def test_pod_meets_the_restricted_standard(render: Render) -> None:
    pod = pod_of(render())
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    # A Service named spot-operator would otherwise define SPOT_OPERATOR_SERVICE_HOST and more.
    assert pod["enableServiceLinks"] is False


JOB_RIGHTS = {
    ("spottrainingjobs", "get", ()),
    ("spottrainingjobs", "list", ()),
    ("spottrainingjobs", "watch", ()),
    ("spottrainingjobs/status", "update", ()),
    ("spottrainingjobs/finalizers", "update", ()),
    ("pods", "get", ()),
    ("pods", "list", ()),
    ("pods", "watch", ()),
    ("pods", "create", ()),
    ("pods", "delete", ()),
    ("events", "create", ()),
}
CLUSTER_RIGHTS = {
    ("nodes", "get", ()),
    ("nodes", "list", ()),
    ("nodes", "watch", ()),
    ("nodeclaims", "get", ()),
    ("tokenreviews", "create", ()),
}
NAME = "stj-spot-training-operator"


def test_rights_are_exactly_these(render: Render) -> None:
    rendered = render()
    assert rules_of(rendered, "ClusterRole", NAME) == CLUSTER_RIGHTS | JOB_RIGHTS
    assert rules_of(rendered, "Role", f"{NAME}-node-events") == {("events", "list", ())}
    assert rules_of(rendered, "Role", NAME) == {
        ("leases", "create", ()),
        ("leases", "get", (NAME,)),
        ("leases", "update", (NAME,)),
        ("secrets", "create", ()),
        ("secrets", "get", (f"{NAME}-tls",)),
        ("secrets", "update", (f"{NAME}-tls",)),
        ("pods", "list", ()),
        ("pods", "patch", ()),
    }


def test_watched_namespaces_take_the_rights_on_jobs_from_the_cluster_role(render: Render) -> None:
    rendered = render("watchNamespaces={team-a,team-b}")
    assert rules_of(rendered, "ClusterRole", NAME) == CLUSTER_RIGHTS
    roles = [r for r in of_kind(rendered, "Role") if r["metadata"]["name"] == f"{NAME}-jobs"]
    assert {r["metadata"]["namespace"] for r in roles} == {"team-a", "team-b"}
    assert rules_of(rendered, "Role", f"{NAME}-jobs") == JOB_RIGHTS


def test_disruption_budget_only_with_a_second_replica(render: Render) -> None:
    assert of_kind(render(), "PodDisruptionBudget") == []
    assert len(of_kind(render("replicas=2"), "PodDisruptionBudget")) == 1


def test_prometheus_objects_only_when_asked_for(render: Render) -> None:
    assert of_kind(render(), "ServiceMonitor") == []
    assert len(of_kind(render("metrics.serviceMonitor.enabled=true"), "ServiceMonitor")) == 1


def test_a_digest_wins_over_the_tag(render: Render) -> None:
    digest = "sha256:" + "0" * 64
    image = pod_of(render(f"image.digest={digest}", "image.tag=v9"))["containers"][0]["image"]
    assert image == f"ghcr.io/spot-training-operator/operator@{digest}"


def test_every_value_has_a_schema_and_every_top_level_key_a_comment() -> None:
    values = (CHART / "values.yaml").read_text()
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    assert set(yaml.safe_load(values)) == set(schema["properties"]) - {"global"}
    assert schema["additionalProperties"] is False


def test_what_the_schema_allows_the_operator_can_read(render: Render, tmp_path: Path) -> None:
    """Helm reads the numbers of a file as floats, and writes large ones as 1e+06 where it is let."""
    values = tmp_path / "values.yaml"
    values.write_text("{policy: {interruptionPriorNodeHours: 1000000}, prices: null}")
    container = pod_of(render(values=values))["containers"][0]
    given = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    policy = read_settings(DOWNWARD | given).policy
    assert (policy.interruption_prior_node_hours, policy.prices) == (1_000_000, {})
