"""The client's side of the supervisor: start it, and ask it for sandboxes, processes and ports."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from localcluster.commands import LocalClusterError, log_tail
from localcluster.paths import ClusterPaths
from localcluster.sandbox import view_marker

PACKAGE_ROOT = Path(__file__).resolve().parent.parent
_TIMEOUT_SECONDS = 60.0
FABRIC = "control-plane"


def kept_paths(paths: ClusterPaths) -> list[Path]:
    """What every sandbox needs to see of the machine, wherever it is: itself, its files, Python."""
    return sorted({paths.run, paths.cache_root, PACKAGE_ROOT, Path(sys.prefix), Path(sys.base_prefix)})


class Supervision:
    """One request per connection, so that threads and processes need no coordination."""

    def __init__(self, paths: ClusterPaths) -> None:
        self._paths = paths

    def start(self, *, owned: bool) -> int | None:
        """Start the supervisor. If owned, the cluster ends when the returned descriptor is closed."""
        self._paths.run.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._paths.logs.mkdir(parents=True, exist_ok=True)
        log = self._paths.logs / "supervisor.log"
        # `setsid --fork`: nobody's child, so that it outlives a background `up` and leaves no zombie.
        argv = ["setsid", "--fork", sys.executable, "-m", "localcluster.supervisor"]
        argv += ["--name", self._paths.name]
        argv += ["--cache-root", str(self._paths.cache_root)]
        read_end, write_end = os.pipe() if owned else (None, None)
        if read_end is not None:
            argv += ["--owner-fd", str(read_end)]
        with log.open("a") as handle:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=handle,
                pass_fds=() if read_end is None else (read_end,),
                env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
                cwd="/",
            )
        if read_end is not None:
            os.close(read_end)
        child.wait()
        assert child.stdout is not None
        with child.stdout:
            if child.stdout.readline() != b"ready\n":
                raise LocalClusterError(f"the supervisor did not start\n  log: {log}\n{log_tail(log)}")
        return write_end

    def is_alive(self) -> bool:
        try:
            self._request({"op": "children"})
        except (OSError, LocalClusterError):
            return False
        return True

    def sandbox(self, name: str, spec: Path, log: Path) -> int:
        """Start a sandbox that can be entered; returns the pid of its process 1 as seen from here."""
        argv = [sys.executable, "-m", "localcluster.sandbox", str(spec)]
        view_marker(spec).unlink(missing_ok=True)
        answer = self._request({"op": "sandbox", "name": name, "argv": argv, "log": str(log)})
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while not view_marker(spec).exists():
            if name not in self.children() or time.monotonic() > deadline:
                raise LocalClusterError(f"the sandbox {name} did not start\n  log: {log}\n{log_tail(log)}")
            time.sleep(0.01)
        return int(answer["init"])

    def process(self, name: str, argv: Sequence[str], log: Path) -> int:
        """Start a process in the network and the private view of the control plane."""
        answer = self._request(
            {"op": "process", "name": name, "argv": list(argv), "log": str(log), "inside": FABRIC}
        )
        return int(answer["init"])

    def kill(self, name: str) -> None:
        """Kill -9; returns when it and all inside it are gone. Nothing to kill is success."""
        self._request({"op": "kill", "name": name})

    def children(self) -> dict[str, int]:
        """Name -> pid of process 1, of all that is running."""
        answer: dict[str, int] = self._request({"op": "children"})["inits"]
        return answer

    def forward(self, host: str, port: int) -> int:
        """The port of 127.0.0.1 that leads to host:port in the cluster's network."""
        request = {"op": "forward", "host": host, "port": port, "inside": FABRIC}
        return int(self._request(request)["port"])

    def stop(self) -> None:
        """Returns when the supervisor has ended: the kernel then closes the connection."""
        with self._connection() as connection, connection.makefile() as stream:
            connection.sendall(b'{"op": "stop"}\n')
            while stream.readline():
                pass

    def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._connection() as connection, connection.makefile() as stream:
            connection.sendall(json.dumps(request).encode() + b"\n")
            line = stream.readline()
        if not line:
            raise LocalClusterError(f"the supervisor of {self._paths.name!r} ended during a request")
        answer: dict[str, Any] = json.loads(line)
        if error := answer.get("error"):
            raise LocalClusterError(f"supervisor: {error}")
        return answer

    def _connection(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_TIMEOUT_SECONDS)
        try:
            connection.connect(str(self._paths.supervisor_socket))
        except OSError:
            connection.close()
            raise
        return connection
