"""The operator process against a real API server.

Where there is no kubelet the test is one: it binds pods, writes their status and ends them,
and it writes nothing else but jobs and nodes. The operator runs from source, as its own
process, and is killed the way machines kill processes.
"""

import base64
import contextlib
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.api

REPOSITORY = Path(__file__).parents[2]
AUDIENCE = "spottraining.io/status"
DISRUPTED = {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, look: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The first true answer of `look`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"after {seconds:g} s still no {what}")


class Operator:
    """The operator as a process; started again after every kill."""

    def __init__(self, kubeconfig: str, namespace: str, log: Path, **settings: str) -> None:
        self.metrics_port, self.status_port = free_port(), free_port()
        self._log = log
        self._kubeconfig = kubeconfig
        self._environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{REPOSITORY / 'operator'}:{REPOSITORY / 'trainer'}",
            "SPOT_OPERATOR_NAMESPACE": namespace,
            "SPOT_OPERATOR_WATCH_NAMESPACES": namespace,
            "SPOT_OPERATOR_STATUS_HOST": "127.0.0.1",
            "SPOT_OPERATOR_STATUS_PORT": str(self.status_port),
            "SPOT_OPERATOR_METRICS_PORT": str(self.metrics_port),
            # Short, since a killed process gives nothing back.
            "SPOT_OPERATOR_LEASE_DURATION_SECONDS": "3",
            "SPOT_OPERATOR_LEASE_RENEW_DEADLINE_SECONDS": "2",
            "SPOT_OPERATOR_LEASE_RETRY_SECONDS": "0.5",
        } | settings
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> "Operator":
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "spot_operator", "--kubeconfig", self._kubeconfig]
            self.process = subprocess.Popen(command, env=self._environ, stdout=log, stderr=log)
        if wait:
            wait_for("leader", lambda: "leading True, watching True" in self.get("/readyz"), 30)
        return self

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(10)

    def get(self, path: str) -> str:
        with contextlib.suppress(OSError), self._open(path) as answer:
            return str(answer.read().decode())
        return ""

    def _open(self, path: str) -> Any:
        return urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=5)

    def requests(self) -> dict[tuple[str, str], int]:
        """(verb, resource) -> number of requests, as the operator counts them."""
        found: dict[tuple[str, str], int] = {}
        for line in self.get("/metrics").splitlines():
            if line.startswith("spot_operator_api_requests_total{"):
                labels, value = line.split("{")[1].split("} ")
                pairs = dict(pair.split("=") for pair in labels.replace('"', "").split(","))
                found[(pairs["verb"], pairs["resource"])] = int(float(value))
        return found

    def rss_mb(self) -> float:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024


class Scene:
    """A namespace, a node and a job, and the test as their kubelet."""

    def __init__(self, api_server: Any, namespace: str) -> None:
        self._api = api_server
        self.namespace = namespace
        self.node = f"spot-{namespace}"

    def kubectl(self, *arguments: str, body: Any = None) -> str:
        text = json.dumps(body) if body is not None else None
        return str(self._api.kubectl(*arguments, input=text))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        text = self.kubectl("get", kind, name, "-n", self.namespace, "--ignore-not-found", "-o", "json")
        return dict(json.loads(text)) if text.strip() else {}

    def names(self, kind: str) -> list[str]:
        return self.kubectl("get", kind, "-n", self.namespace, "-o", "name").split()

    def add_node(self) -> None:
        metadata = {"name": self.node, "labels": {"pool": "spot"}}
        self.kubectl(
            "apply", "-f", "-", body={"apiVersion": "v1", "kind": "Node", "metadata": metadata}
        )

    def set_taints(self, *taints: dict[str, str]) -> None:
        patch = json.dumps({"spec": {"taints": list(taints)}})
        self.kubectl("patch", "node", self.node, "--type=merge", "-p", patch)

    def apply_job(self, name: str = "digits", **spec: Any) -> None:
        container = {"name": "trainer", "image": "trainer", "command": ["train"]}
        job = {
            "apiVersion": "spottraining.io/v1alpha1",
            "kind": "SpotTrainingJob",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "template": {"spec": {"containers": [container]}},
                "checkpoint": {"persistentVolumeClaim": {"claimName": "checkpoints"}},
                "capacity": {
                    "preset": "Labels",
                    "spot": {"nodeSelector": {"pool": "spot"}},
                    "onDemand": {"nodeSelector": {"pool": "on-demand"}},
                },
            }
            | spec,
        }
        self.kubectl("apply", "-f", "-", body=job)

    def status(self, name: str = "digits") -> dict[str, Any]:
        return dict(self.get("spottrainingjob", name).get("status") or {})

    def condition(self, type_: str) -> str:
        found = [c["status"] for c in self.status().get("conditions", []) if c["type"] == type_]
        return found[0] if found else ""

    def pod_of(self, incarnation: int) -> str:
        """Name of the one pod of an incarnation, as soon as there is one."""

        def look() -> list[str]:
            selector = f"spottraining.io/incarnation={incarnation}"
            text = self.kubectl("get", "pods", "-n", self.namespace, "-l", selector, "-o", "name")
            return text.split()

        (pod,) = wait_for(f"pod of incarnation {incarnation}", look)
        return str(pod).removeprefix("pod/")

    def bind(self, pod: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod},
            "target": {"kind": "Node", "name": self.node},
        }
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/binding"
        self.kubectl("create", "--raw", path, "-f", "-", body=body)

    def set_pod_status(self, pod: str, phase: str, state: dict[str, Any]) -> None:
        container = {
            "name": "trainer",
            "image": "trainer",
            "imageID": "",
            "ready": phase == "Running",
            "restartCount": 0,
            "state": state,
        }
        ready = {"type": "Ready", "status": str(phase == "Running")}
        status = {"phase": phase, "containerStatuses": [container], "conditions": [ready]}
        patch = json.dumps({"status": status})
        self.kubectl(
            "patch", "pod", pod, "-n", self.namespace, "--subresource=status", "--type=merge", "-p", patch
        )

    def run(self, pod: str) -> None:
        self.bind(pod)
        self.set_pod_status(pod, "Running", {"running": {"startedAt": now()}})

    def end(self, pod: str, code: int, outcome: str, *, remove: bool = False) -> None:
        message = {
            "version": 1,
            "outcome": outcome,
            "reason": "Notice" if outcome == "stopped" else "Completed",
            "incarnation": int(pod.split("-")[-2]),
            "step": 100,
            "checkpoint": {"name": "c", "step": 100},
            "message": "",
        }
        ended = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "finishedAt": now(),
            "message": json.dumps(message),
        }
        self.set_pod_status(pod, "Succeeded" if code == 0 else "Failed", {"terminated": ended})
        if remove:
            # What a kubelet does when the containers of a deleted pod have ended.
            self.kubectl("delete", "pod", pod, "-n", self.namespace, "--grace-period=0", "--force")

    def is_stopping(self, pod: str) -> bool:
        return "deletionTimestamp" in self.get("pod", pod).get("metadata", {})

    def token(self, pod: str, audience: str = AUDIENCE) -> str:
        uid = self.get("pod", pod)["metadata"]["uid"]
        bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod}", f"--bound-object-uid={uid}")
        return self.kubectl(
            "create", "token", "default", "-n", self.namespace, f"--audience={audience}", *bound
        ).strip()


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@pytest.fixture
def scene(api_server: Any, namespace: str) -> Iterator[Scene]:
    scene = Scene(api_server, namespace)
    scene.add_node()
    wait_for("default service account", lambda: "serviceaccount/default" in scene.names("serviceaccounts"))
    yield scene
    scene.kubectl("delete", "node", scene.node, "--ignore-not-found")


@pytest.fixture
def operator(api_server: Any, namespace: str, tmp_path: Path) -> Iterator[Operator]:
    log = tmp_path / "operator.log"
    operator = Operator(str(api_server.kubeconfig), namespace, log).start()
    yield operator
    if operator.process is not None and operator.process.poll() is None:
        operator.kill()
    text = log.read_text()
    print(text)
    assert "unexpectedly" not in text


def report(operator: Operator, scene: Scene, token: str, body: Any, job: str = "digits") -> tuple[int, str]:
    """POST a report as a trainer does: verified TLS, bearer token."""
    secret = scene.get("secret", "spot-training-operator-tls")
    ca = base64.b64decode(secret["data"]["ca.crt"]).decode()
    url = (
        f"https://127.0.0.1:{operator.status_port}"
        f"/v1alpha1/namespaces/{scene.namespace}/spottrainingjobs/{job}/status"
    )
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Authorization": f"Bearer {token}"})
    context = ssl.create_default_context(cadata=ca)
    try:
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_job_runs_reports_and_completes(operator: Operator, scene: Scene) -> None:
    scene.apply_job()
    pod = scene.pod_of(1)
    scene.run(pod)
    wait_for("running phase", lambda: scene.status().get("phase") == "Running")
    body = {"step": 40, "totalSteps": 100, "durableStep": 30, "checkpointName": "c30", "incarnation": 1}
    code, answer = report(operator, scene, scene.token(pod), body)
    assert (code, json.loads(answer)) == (200, {"directives": {}})
    progress = wait_for("durable step", lambda: scene.status().get("progress", {}).get("durableStep") == 30)
    assert progress
    assert scene.status()["claims"] is True
    scene.end(pod, 0, "complete")
    wait_for("Complete", lambda: scene.condition("Complete") == "True")
    assert scene.status()["restarts"]["interruptions"] == 0


def test_stop_signal_stops_the_pod_at_once_and_its_end_brings_the_next(
    operator: Operator, scene: Scene
) -> None:
    scene.apply_job()
    first = scene.pod_of(1)
    scene.run(first)
    wait_for("running phase", lambda: scene.status().get("phase") == "Running")
    scene.set_taints(DISRUPTED)
    wait_for("graceful stop", lambda: scene.is_stopping(first), 2)
    assert scene.status()["gang"]["stop"]["reason"] == "NodeSignal"
    scene.set_taints()
    scene.end(first, 75, "stopped", remove=True)
    second = scene.pod_of(2)
    assert second != first
    restarts = wait_for("restart", lambda: scene.status().get("recentRestarts"))
    assert [restart["incarnation"] for restart in restarts] == [1]
    metrics = operator.get("/metrics")
    assert 'spot_operator_launches_total{capacity_type="spot"} 2.0' in metrics
    assert 'stop_signal_to_delete_seconds_bucket{le="1.0"} 1.0' in metrics
    assert 'pod_gone_to_replacement_seconds_bucket{le="1.0"} 1.0' in metrics


def test_operator_killed_during_relaunches_counts_each_once(operator: Operator, scene: Scene) -> None:
    """Killed at a random moment after each interruption; every seed must hold."""
    dice = random.Random(7)
    scene.apply_job()
    rounds = 4
    for incarnation in range(1, rounds + 1):
        pod = scene.pod_of(incarnation)
        scene.run(pod)
        wait_for("running phase", lambda: scene.status().get("phase") == "Running")
        scene.set_taints(DISRUPTED)
        if dice.random() < 0.5:
            time.sleep(dice.uniform(0, 0.1))
            operator.kill()
            operator.start(wait=False)
        wait_for("graceful stop", lambda pod=pod: scene.is_stopping(pod), 30)
        scene.set_taints()
        scene.end(pod, 75, "stopped", remove=True)
        time.sleep(dice.uniform(0, 0.15))
        operator.kill()
        operator.start(wait=False)
    scene.pod_of(rounds + 1)
    wait_for("quiet", lambda: len(scene.status().get("recentRestarts", [])) == rounds)
    time.sleep(2)
    restarts = scene.status()["recentRestarts"]
    assert [restart["incarnation"] for restart in restarts] == list(range(1, rounds + 1))
    assert scene.status()["incarnation"] == rounds + 1
    assert len([pod for pod in scene.names("pods") if pod.endswith(f"-{rounds + 1}-0")]) == 1


def test_idle_job_causes_no_writes_and_little_memory(operator: Operator, scene: Scene) -> None:
    scene.apply_job()
    pod = scene.pod_of(1)
    scene.run(pod)
    wait_for("running phase", lambda: scene.status().get("phase") == "Running")
    time.sleep(3)

    def versions() -> list[str]:
        objects = (scene.get("spottrainingjob", "digits"), scene.get("pod", pod))
        return [obj["metadata"]["resourceVersion"] for obj in objects]

    def writes() -> dict[tuple[str, str], int]:
        writing = ("create", "update", "patch", "delete")
        return {k: n for k, n in operator.requests().items() if k[0] in writing and k[1] != "leases"}

    before = versions(), writes()
    time.sleep(30)
    assert (versions(), writes()) == before
    print(f"RSS {operator.rss_mb():.0f} MB")
    assert operator.rss_mb() < 180


def test_report_is_refused_without_the_right_pod(operator: Operator, scene: Scene) -> None:
    scene.apply_job()
    scene.apply_job("other")
    pods = [
        wait_for(
            f"pod of {job}",
            lambda job=job: scene.kubectl(
                "get", "pods", "-n", scene.namespace, "-l", f"spottraining.io/job-name={job}", "-o", "name"
            ).split(),
        )[0].removeprefix("pod/")
        for job in ("digits", "other")
    ]
    for pod in pods:
        scene.run(pod)
    good, other = (scene.token(pod) for pod in pods)
    wait_for("answer", lambda: report(operator, scene, good, {})[0] == 200)
    assert report(operator, scene, "nonsense", {})[0] == 401
    assert report(operator, scene, scene.token(pods[0], "somebody.else"), {})[0] == 401
    assert report(operator, scene, other, {})[0] == 403
    assert report(operator, scene, good, b"{]")[0] == 400
    assert report(operator, scene, good, b" " * 70_000)[0] == 413
    assert report(operator, scene, other, {}, job="absent")[0] == 403
    started = time.monotonic()
    for _ in range(50):
        assert report(operator, scene, good, {"step": 1})[0] == 200
    print(f"{(time.monotonic() - started) / 50 * 1000:.1f} ms per report, kubectl included")


def test_job_of_another_controller_is_left_alone(operator: Operator, scene: Scene) -> None:
    scene.apply_job(managedBy="example.com/other")
    time.sleep(2)
    assert scene.status() == {}
    assert scene.names("pods") == []


def test_stand_by_takes_over_from_a_killed_leader(
    operator: Operator, scene: Scene, api_server: Any, tmp_path: Path
) -> None:
    second = Operator(str(api_server.kubeconfig), scene.namespace, tmp_path / "second.log")
    second.start(wait=False)
    try:
        wait_for("stand-by", lambda: "started True, leading False" in second.get("/readyz"))
        started = time.monotonic()
        operator.kill()
        wait_for("take-over", lambda: "leading True, watching True" in second.get("/readyz"), 10)
        print(f"took over after {time.monotonic() - started:.1f} s of a lease of 3 s")
        scene.apply_job()
        scene.pod_of(1)
        assert second.kill(signal.SIGTERM) == 0
        holder = scene.get("lease", "spot-training-operator")["spec"].get("holderIdentity", "")
        assert holder == ""
    finally:
        if second.process is not None and second.process.poll() is None:
            second.kill()
