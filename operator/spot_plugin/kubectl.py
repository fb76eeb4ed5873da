"""The cluster, by way of kubectl: the same context, credentials and rights.

Invariant: no request is made but by running kubectl, and what it says when it fails reaches the user.
"""

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from spot_operator.names import GROUP, PLURAL
from spot_plugin.errors import Exit, PluginError

RESOURCE: Final = f"{PLURAL}.{GROUP}"
_LOG_LINE: Final = re.compile(r"[EWIF]\d{4} \d\d:\d\d:\d\d")
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kubectl:
    namespace: str = ""
    """Empty: as the context says."""
    context: str = ""
    kubeconfig: str = ""
    program: str = "kubectl"

    @property
    def flags(self) -> list[str]:
        given = (
            ("--namespace", self.namespace),
            ("--context", self.context),
            ("--kubeconfig", self.kubeconfig),
        )
        return [f"{flag}={value}" for flag, value in given if value]

    def job(self, name: str) -> Json:
        return self._json("get", RESOURCE, name, "-o", "json")

    def jobs(self, *, all_namespaces: bool = False) -> list[Json]:
        everywhere = ["--all-namespaces"] if all_namespaces else []
        return list(self._json("get", RESOURCE, "-o", "json", *everywhere)["items"])

    def patch(self, name: str, patch: Mapping[str, Any]) -> None:
        self._run("patch", RESOURCE, name, "--type=merge", "-p", json.dumps(patch))

    def _json(self, *words: str) -> Json:
        return dict(json.loads(self._run(*words)))

    def _run(self, *words: str) -> str:
        command = [self.program, *words, *self.flags]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise PluginError(
                f"{self.program} was not found", do="install kubectl, or add it to PATH", code=Exit.CLUSTER
            ) from error
        if result.returncode == 0:
            return result.stdout
        said = _without_log(result.stderr) or f"kubectl {words[0]} ended with code {result.returncode}"
        raise PluginError(said, do=_remedy(said, words), code=Exit.CLUSTER)


def _without_log(text: str) -> str:
    """What kubectl says to people; the lines of its client library repeat it several times."""
    lines = text.strip().splitlines()
    return "\n".join([line for line in lines if not _LOG_LINE.match(line)] or lines[-1:])


def _remedy(said: str, words: tuple[str, ...]) -> str:
    if "the server doesn't have a resource type" in said:
        return "install the operator (helm install), or choose the right cluster with --context"
    if "(NotFound)" in said and "namespaces" not in said:
        return "`kubectl spottraining status -A` lists all jobs; -n names another namespace"
    if "(Forbidden)" in said:
        return f"ask for the right to {words[0]} {RESOURCE} in this namespace"
    if "was refused" in said or "Unable to connect" in said:
        return "see whether `kubectl version` reaches the cluster; --context and --kubeconfig choose another"
    return ""
