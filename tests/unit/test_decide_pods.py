"""The pod of an incarnation: where it runs, what it is told, what it is given."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from spot_operator.decide.pods import STATUS_PATH, build_pod
from spot_operator.model import (
    CheckpointSpec,
    DeadlineSpec,
    JobSpec,
    PolicySettings,
    Pool,
    S3Location,
    VolumeLocation,
)
from spot_operator.names import CapacityType
from spot_operator.testing import JOB_UID, make_gang, make_observation, make_spec
from spot_trainer.contract import CapacityType as ContractCapacity
from spot_trainer.contract import Environment, IntervalPolicy

SETTINGS = PolicySettings()
SPOT, ON_DEMAND = CapacityType.SPOT, CapacityType.ON_DEMAND


def build(
    spec: JobSpec | None = None,
    *,
    capacity_type: CapacityType = SPOT,
    settings: PolicySettings = SETTINGS,
    hands_over_from: int | None = None,
    **observation: Any,
) -> Any:
    return build_pod(
        make_observation(**observation),
        spec or make_spec(),
        gang=make_gang(capacity_type, incarnation=3, hands_over_from=hands_over_from),
        rank=0,
        settings=settings,
    )


def with_template(metadata: dict[str, Any] | None = None, **pod_spec: Any) -> JobSpec:
    base = {"containers": [{"name": "trainer", "image": "x"}, {"name": "sidecar", "image": "y"}]}
    return make_spec(template={"metadata": metadata or {}, "spec": {**base, **pod_spec}})


def environment(pod: Any, container: int = 0) -> dict[str, str]:
    return {
        entry["name"]: entry.get("value", entry.get("valueFrom"))
        for entry in pod["spec"]["containers"][container].get("env", [])
    }


def test_the_trainer_understands_what_the_operator_tells_it() -> None:
    deadline = DeadlineSpec(finish_by=datetime(2026, 12, 1, 6, tzinfo=UTC))
    pod = build(make_spec(deadline=deadline), status_url="https://status/x")
    values = {name: value for name, value in environment(pod).items() if isinstance(value, str)}
    read = Environment.from_environ({**values, "SPOT_POD_NAME": "p", "SPOT_POD_UID": "u"})
    assert read == Environment(
        job_name="digits",
        job_namespace="team",
        job_uid=JOB_UID,
        job_created=make_observation().created,
        pod_name="p",
        pod_uid="u",
        incarnation=3,
        capacity_type=ContractCapacity.SPOT,
        run_id="team/digits",
        checkpoint_uri="s3://runs/digits",
        grace_seconds=100,
        deadline=deadline.finish_by,
        template_fingerprint="0123456789abcdef",
        status_url="https://status/x",
        status_ca_cert=f"{STATUS_PATH}/ca.crt",
        status_token=f"{STATUS_PATH}/token",
    )


def test_pod_name_and_uid_come_from_the_downward_api() -> None:
    values = environment(build())
    assert values["SPOT_POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert values["SPOT_POD_UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}


def test_our_variables_come_first_so_that_the_templates_can_refer_to_them() -> None:
    container = {"name": "trainer", "image": "x", "env": [{"name": "OUT", "value": "$(SPOT_RUN_ID)"}]}
    env = build(make_spec(template={"spec": {"containers": [container]}}))["spec"]["containers"][0]["env"]
    assert env[-1] == {"name": "OUT", "value": "$(SPOT_RUN_ID)"}


def test_only_the_trainer_container_is_equipped() -> None:
    pod = build(with_template(), status_url="https://status/x")
    assert pod["spec"]["containers"][1] == {"name": "sidecar", "image": "y"}


@pytest.mark.parametrize(
    ("capacity_type", "grace", "notice", "expected"),
    [(SPOT, 120, 100, "100"), (SPOT, 30, 100, "30"), (ON_DEMAND, 120, 100, "120")],
)
def test_the_trainer_may_count_on_the_notice_on_spot_and_on_its_full_grace_elsewhere(
    capacity_type: CapacityType, grace: int, notice: int, expected: str
) -> None:
    spec = make_spec(grace_seconds=grace, spot_notice_seconds=notice)
    pod = build(spec, capacity_type=capacity_type)
    assert environment(pod)["SPOT_GRACE_SECONDS"] == expected
    assert pod["spec"]["terminationGracePeriodSeconds"] == grace


def test_identity_is_in_name_labels_and_controller_reference() -> None:
    metadata = build(with_template({"labels": {"team": "a"}, "annotations": {"note": "b"}}))["metadata"]
    assert (metadata["name"], metadata["namespace"]) == ("digits-0c5e1-3-0", "team")
    assert metadata["labels"] == {
        "team": "a",
        "spottraining.io/job-name": "digits",
        "spottraining.io/job-uid": JOB_UID,
        "spottraining.io/incarnation": "3",
        "spottraining.io/rank": "0",
        "spottraining.io/capacity-type": "spot",
        "spottraining.io/trainer-container": "trainer",
    }
    (owner,) = metadata["ownerReferences"]
    assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (JOB_UID, True, True)


def test_kubectl_shows_the_trainers_logs_unless_the_template_says_otherwise() -> None:
    key = "kubectl.kubernetes.io/default-container"
    assert build(make_spec())["metadata"]["annotations"][key] == "trainer"
    assert (
        build(with_template({"annotations": {key: "sidecar"}}))["metadata"]["annotations"][key] == "sidecar"
    )


def test_a_template_cannot_pose_as_another_jobs_pod() -> None:
    labels = build(with_template({"labels": {"spottraining.io/job-uid": "other"}}))["metadata"]["labels"]
    assert labels["spottraining.io/job-uid"] == JOB_UID


def test_pods_are_protected_from_consolidation_unless_the_platform_says_no() -> None:
    protected = build()["metadata"]["annotations"]
    assert protected["karpenter.sh/do-not-disrupt"] == "true"
    assert protected["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    settings = PolicySettings(protect_from_voluntary_disruption=False)
    assert "karpenter.sh/do-not-disrupt" not in build(settings=settings)["metadata"]["annotations"]


def test_the_pool_decides_where_the_pod_runs() -> None:
    assert build()["spec"]["nodeSelector"] == {"karpenter.sh/capacity-type": "spot"}
    on_demand = build(with_template(nodeSelector={"gpu": "a100"}), capacity_type=ON_DEMAND)
    assert on_demand["spec"]["nodeSelector"] == {"gpu": "a100", "karpenter.sh/capacity-type": "on-demand"}


def term(*keys: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": "Exists"} for key in keys]}


def test_affinity_terms_of_template_and_pool_must_both_hold() -> None:
    required = {"nodeSelectorTerms": [term("a"), term("b")]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    spec = replace(with_template(affinity=affinity), spot=Pool(node_affinity_terms=(term("x"), term("y"))))
    placed = build(spec)["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert placed["nodeSelectorTerms"] == [term("a", "x"), term("a", "y"), term("b", "x"), term("b", "y")]


def test_without_terms_in_the_template_the_pools_terms_stand_alone() -> None:
    spec = make_spec(spot=Pool(node_affinity_terms=(term("x"),)))
    placed = build(spec)["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert placed["nodeSelectorTerms"] == [term("x")]


def tolerations(pod: Any) -> dict[str, Any]:
    return {toleration["key"]: toleration for toleration in pod["spec"]["tolerations"]}


@pytest.mark.parametrize(("capacity_type", "expected"), [(SPOT, 60), (ON_DEMAND, 300)])
def test_a_silent_node_is_left_sooner_on_spot(capacity_type: CapacityType, expected: int) -> None:
    given = tolerations(build(capacity_type=capacity_type))
    for key in ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"):
        assert (given[key]["effect"], given[key]["tolerationSeconds"]) == ("NoExecute", expected)


def test_the_templates_own_toleration_for_silent_nodes_is_kept() -> None:
    own = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 7}
    pod = build(with_template(tolerations=[own]))
    assert [t for t in pod["spec"]["tolerations"] if t["key"] == own["key"]] == [own]


def test_spot_tolerations_are_given_on_spot_only() -> None:
    spec = make_spec(spot=Pool(tolerations=({"key": "spot", "operator": "Exists"},)))
    assert "spot" in tolerations(build(spec))
    assert "spot" not in tolerations(build(spec, capacity_type=ON_DEMAND))


def test_s3_credentials_are_named_and_never_read() -> None:
    location = S3Location(
        bucket="b", prefix="p/", endpoint="https://s3", region="eu", credentials_secret="keys"
    )
    pod = build(make_spec(checkpoint=CheckpointSpec(location=location, run_id="r")))
    values = environment(pod)
    assert (values["SPOT_CHECKPOINT_URI"], values["AWS_ENDPOINT_URL_S3"]) == ("s3://b/p", "https://s3")
    assert values["AWS_REGION"] == "eu"
    assert pod["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "keys"}}]


def test_without_a_secret_the_service_account_is_left_to_authenticate() -> None:
    assert "envFrom" not in build()["spec"]["containers"][0]
    assert "AWS_ENDPOINT_URL_S3" not in environment(build())


@pytest.mark.parametrize("policy", IntervalPolicy)
def test_the_trainer_is_told_how_often_to_save(policy: IntervalPolicy) -> None:
    checkpoint = replace(make_spec().checkpoint, interval_policy=policy, interval_seconds=90)
    values = environment(build(make_spec(checkpoint=checkpoint)))
    assert values["SPOT_CHECKPOINT_INTERVAL_POLICY"] == policy
    assert values["SPOT_CHECKPOINT_INTERVAL_SECONDS"] == "90"


def test_a_volume_claim_is_mounted_at_the_stated_path() -> None:
    location = VolumeLocation(claim_name="ckpt", sub_path="digits")
    pod = build(make_spec(checkpoint=CheckpointSpec(location=location, run_id="r")))
    assert environment(pod)["SPOT_CHECKPOINT_URI"] == "file:///checkpoints"
    (mount,) = pod["spec"]["containers"][0]["volumeMounts"]
    assert (mount["mountPath"], mount["subPath"]) == ("/checkpoints", "digits")
    (volume,) = pod["spec"]["volumes"]
    assert volume == {"name": mount["name"], "persistentVolumeClaim": {"claimName": "ckpt"}}


def test_the_status_token_is_bound_to_one_audience_and_mounted_read_only() -> None:
    pod = build(status_url="https://status/x", status_ca="PEM")
    (mount,) = pod["spec"]["containers"][0]["volumeMounts"]
    assert (mount["mountPath"], mount["readOnly"]) == (STATUS_PATH, True)
    token, authority = pod["spec"]["volumes"][0]["projected"]["sources"]
    assert token["serviceAccountToken"]["audience"] == "spottraining.io/status"
    assert authority["downwardAPI"]["items"][0]["path"] == "ca.crt"
    assert pod["metadata"]["annotations"]["spottraining.io/status-ca"] == "PEM"


def test_without_a_status_server_nothing_is_mounted_for_it() -> None:
    pod = build()
    assert "volumes" not in pod["spec"]
    assert "KUBEFLOW_TRAINER_SERVER_URL" not in environment(pod)


@pytest.mark.parametrize(("given", "expected"), [({}, False), ({"automountServiceAccountToken": True}, True)])
def test_no_api_token_unless_the_template_asks_for_one(given: dict[str, Any], expected: bool) -> None:
    assert build(with_template(**given))["spec"]["automountServiceAccountToken"] is expected


def test_building_a_pod_leaves_the_template_as_it_is() -> None:
    spec = with_template(tolerations=[], nodeSelector={"a": "b"})
    before = repr(spec.template)
    build(spec, status_url="https://status/x")
    assert repr(spec.template) == before
