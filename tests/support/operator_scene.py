"""The operator as a process, and a scene for it: a namespace, a node, and the test as kubelet.

Where there is no kubelet the test is one: it binds pods, writes their status and ends them,
and it writes nothing else but jobs and nodes.
"""

import base64
import contextlib
import json
import os
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
        self.kubectl("create", "-f", "-", body={"apiVersion": "v1", "kind": "Node", "metadata": metadata})
        self.beat()

    def beat(self) -> None:
        """Report the node ready, as its kubelet does; without it the control plane gives the node up."""
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now()}
        patch = json.dumps({"status": {"conditions": [ready]}})
        self.kubectl("patch", "node", self.node, "--subresource=status", "--type=merge", "-p", patch)

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
        self.beat()
        self.bind(pod)
        self.set_pod_status(pod, "Running", {"running": {"startedAt": now()}})

    def end(self, pod: str, code: int, outcome: str, *, remove: bool = False) -> None:
        self.beat()
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
            self.kubectl(
                "delete",
                "pod",
                pod,
                "-n",
                self.namespace,
                "--grace-period=0",
                "--force",
                "--ignore-not-found",
            )

    @contextlib.contextmanager
    def refusing_pods(self, message: str) -> Iterator[None]:
        """Admission refuses every new pod of the namespace, as a quota or a policy would."""
        api, name = "admissionregistration.k8s.io/v1", f"no-pods-{self.namespace}"
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
        policy = {
            "apiVersion": api,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [rule]},
                "validations": [{"expression": "false", "message": message}],
            },
        }
        here = {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}
        binding = {
            "apiVersion": api,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {
                "policyName": name,
                "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": here},
            },
        }
        self.kubectl(
            "apply", "-f", "-", body={"apiVersion": "v1", "kind": "List", "items": [policy, binding]}
        )
        try:
            wait_for("refusal", lambda: not self._may_create_pods())
            yield
        finally:
            self.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", name)

    def _may_create_pods(self) -> bool:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "probe", "namespace": self.namespace},
            "spec": {"containers": [{"name": "probe", "image": "probe"}]},
        }
        try:
            self.kubectl("create", "--dry-run=server", "-f", "-", body=pod)
        except (AssertionError, RuntimeError):
            return False
        return True

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
