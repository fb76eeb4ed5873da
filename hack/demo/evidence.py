"""What is needed to understand a run afterwards, collected before the cluster is gone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from demo.lab import OPERATOR_NAMESPACE, RELEASE, Lab
from localcluster import LocalClusterError
from localcluster.api import ApiError


def collect(lab: Lab, namespaces: list[str], folder: Path) -> list[str]:
    """Write logs and objects below `folder`; returns what could not be had. Never raises for the cluster."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    missing: list[str] = []

    def keep(name: str, get: Callable[[], str]) -> None:
        try:
            (folder / name).write_text(get())
        except (ApiError, LocalClusterError, OSError) as error:
            missing.append(f"{name}: {str(error).splitlines()[0]}")

    def kubectl(*words: str) -> Callable[[], str]:
        return lambda: str(lab.cluster.kubectl(*words))

    operator = ("logs", f"deployment/{RELEASE}", "--namespace", OPERATOR_NAMESPACE)
    keep("operator.log", kubectl(*operator))
    if has_restarted(lab):
        keep("operator-previous.log", kubectl(*operator, "--previous"))
    keep("operator-pods.yaml", kubectl("get", "pods", "--namespace", OPERATOR_NAMESPACE, "--output=yaml"))
    keep("operator-events.txt", kubectl("get", "events", "--namespace", OPERATOR_NAMESPACE))
    keep("nodes.yaml", kubectl("get", "nodes", "--output=yaml"))
    for namespace in namespaces:
        keep(f"{namespace}-jobs.yaml", kubectl("get", "stj", "--namespace", namespace, "--output=yaml"))
        keep(f"{namespace}-pods.yaml", kubectl("get", "pods", "--namespace", namespace, "--output=yaml"))
        events = ("get", "events", "--namespace", namespace, "--sort-by=.metadata.creationTimestamp")
        keep(f"{namespace}-events.txt", kubectl(*events))
        for pod in _pod_names(lab, namespace):
            keep(f"{namespace}-{pod}.log", kubectl("logs", pod, "--namespace", namespace))
    if lab.cluster.paths.logs.is_dir():
        shutil.copytree(lab.cluster.paths.logs, folder / "cluster", ignore_dangling_symlinks=True)
    (folder / "missing.json").write_text(json.dumps(missing, indent=1))
    return missing


def has_restarted(lab: Lab) -> bool:
    try:
        statuses = lab.operator_pod()["status"].get("containerStatuses", [])
    except Exception:  # noqa: BLE001  the reason for collecting may be that there is no operator
        return False
    return any(status.get("restartCount", 0) > 0 for status in statuses)


def _pod_names(lab: Lab, namespace: str) -> list[str]:
    try:
        pods = lab.cluster.api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    except (ApiError, OSError):
        return []
    return [pod["metadata"]["name"] for pod in pods]
