"""Leadership as the cluster sees it: the Lease object, and the label that routes reports.

The status Service selects `spottraining.io/leader=true`. Invariant: a pod that does not
lead does not keep the label: it is taken away at start (a restarted container keeps its
pod's labels), from every other pod by a new leader, and at the end.
"""

from typing import Any

from spot_operator.kube import LEASES, PODS, Kube, KubeError, NotFound
from spot_operator.logs import Log
from spot_operator.names import LABEL_LEADER

_log = Log(__name__)


class KubeLease:
    """The LeaseStore at the API server."""

    def __init__(self, kube: Kube, namespace: str, name: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name

    async def read(self) -> dict[str, Any] | None:
        try:
            return await self._kube.get(LEASES, self._name, self._namespace)
        except NotFound:
            return None

    async def create(self, spec: dict[str, Any]) -> dict[str, Any]:
        metadata = {"name": self._name, "namespace": self._namespace}
        return await self._kube.create(LEASES, self._lease(metadata, spec), self._namespace)

    async def replace(self, lease: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
        return await self._kube.replace(LEASES, self._lease(lease["metadata"], spec))

    @staticmethod
    def _lease(metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


class LeaderLabel:
    """The label on the operator's own pod; does nothing outside a pod."""

    def __init__(self, kube: Kube, namespace: str, pod_name: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._pod_name = pod_name

    async def take(self) -> None:
        """Label our pod, after taking the label from whoever else still has it.

        Raises:
            KubeError: without the label no report arrives; the caller tries again.
        """
        if not self._pod_name:
            return
        for pod in await self._kube.list(PODS, self._namespace, labels=LABEL_LEADER):
            if (name := pod["metadata"]["name"]) != self._pod_name:
                await self._set(name, None)
        await self._set(self._pod_name, "true")

    async def drop(self) -> None:
        """Take the label from our pod; best effort, since a new leader does it as well."""
        if not self._pod_name:
            return
        try:
            await self._set(self._pod_name, None)
        except KubeError as error:
            _log.warning("leader label not removed", error=error.message)

    async def _set(self, pod: str, value: str | None) -> None:
        try:
            await self._kube.patch(
                PODS, pod, {"metadata": {"labels": {LABEL_LEADER: value}}}, self._namespace
            )
        except NotFound:
            if value is not None:
                raise
