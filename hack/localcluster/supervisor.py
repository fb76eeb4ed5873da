"""The one process that a cluster's life hangs on: when it ends, however it ends, the cluster is gone.

It starts the sandboxes and servers as children that the kernel kills when
their parent dies (`setpriv --pdeathsig`), and it forwards ports of the host's
loopback into the cluster's network. Clients send one JSON line per request
over a Unix socket. It stays single-threaded: the parent-death signal follows
the thread that forked, and `setns` in the forwarder must not leak into others.

Ends on: the `stop` request, SIGTERM, SIGINT, or the end of its owner, seen as
end-of-file on the pipe given with --owner-fd.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import IO, Any

from localcluster import forward
from localcluster.cleanup import remove_leftovers
from localcluster.paths import ClusterPaths, cluster_paths
from localcluster.processes import children_of

_CONTAIN = ("setpriv", "--pdeathsig", "KILL", "--")
_SANDBOX_FLAGS = ("--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child")


class Supervisor:
    """Children by name, and the listening sockets."""

    def __init__(self, paths: ClusterPaths) -> None:
        self._paths = paths
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._inits: dict[str, int] = {}
        self._forwards: dict[str, tuple[asyncio.Server, int]] = {}
        self._over = asyncio.Event()

    async def serve(self, owner_fd: int | None) -> None:
        """Answer requests until something ends the cluster, then take everything down."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._over.set)
        if owner_fd is not None:
            loop.add_reader(owner_fd, self._over.set)
        server = await asyncio.start_unix_server(self._client, self._paths.supervisor_socket)
        print("ready", flush=True)
        await self._over.wait()
        server.close()
        for name in list(self._children):
            await self._kill(name)
        remove_leftovers(self._paths)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = await self._answer(json.loads(line))
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            pass  # the client gave up waiting; its request has been carried out
        finally:
            writer.close()

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            match request["op"]:
                case "sandbox":
                    return await self._spawn(request, ("unshare", *_SANDBOX_FLAGS, "--"))
                case "process":
                    inside = self._inits[request["inside"]]
                    return await self._spawn(
                        request, ("nsenter", "-t", str(inside), "--net", "--mount", "--")
                    )
                case "kill":
                    await self._kill(request["name"])
                    return {}
                case "children":
                    return {"inits": self._inits}
                case "forward":
                    return {"port": await self._forward(request)}
                case "stop":
                    self._over.set()
                    return {}
                case other:
                    return {"error": f"unknown request {other!r}"}
        except (OSError, KeyError) as error:
            return {"error": f"{request['op']}: {error!r}"}

    async def _spawn(self, request: dict[str, Any], wrap: tuple[str, ...]) -> dict[str, Any]:
        """Start a child; `init` is the process whose death ends it, process 1 for a sandbox."""
        name = request["name"]
        if name in self._children:
            return {"error": f"{name} is already running"}
        with _append_to(Path(request["log"])) as handle:
            child = await asyncio.create_subprocess_exec(
                *_CONTAIN,
                *wrap,
                *request["argv"],
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
            )
        self._children[name] = child
        if request["op"] == "process":
            self._inits[name] = child.pid
        else:
            self._inits[name] = await _first_child(child)
        watcher = asyncio.create_task(self._reap(name, child))
        watcher.add_done_callback(lambda task: task.result())
        return {"init": self._inits[name]}

    async def _reap(self, name: str, child: asyncio.subprocess.Process) -> None:
        """Forget a child that ended, unless a new one has taken its name."""
        await child.wait()
        if self._children.get(name) is child:
            del self._children[name]
            self._inits.pop(name, None)

    async def _kill(self, name: str) -> None:
        """Power off: no signal that could be handled, everything inside dies with its process 1."""
        child = self._children.pop(name, None)
        init = self._inits.pop(name, None)
        if child is None:
            return
        if init is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(init, signal.SIGKILL)
        await child.wait()

    async def _forward(self, request: dict[str, Any]) -> int:
        """The loopback port that leads to host:port inside the network of a sandbox."""
        host, port, inside = request["host"], int(request["port"]), request["inside"]
        key = f"{inside}/{host}:{port}"
        if key not in self._forwards:
            self._forwards[key] = await forward.listen(self._inits[inside], host, port)
        return self._forwards[key][1]


async def _first_child(parent: asyncio.subprocess.Process) -> int:
    """The process that `unshare --fork` made, once it is there."""
    while parent.returncode is None:
        if children := children_of(parent.pid):
            return children[0]
        await asyncio.sleep(0.01)
    raise ProcessLookupError(f"the sandbox ended at once with code {parent.returncode}")


def _append_to(log: Path) -> IO[str]:
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.open("a")


def main() -> None:
    parser = argparse.ArgumentParser(description="holds one local cluster; started by `up`")
    parser.add_argument("--name", required=True)
    parser.add_argument("--cache-root", type=Path, required=True)
    parser.add_argument("--owner-fd", type=int)
    options = parser.parse_args()
    supervisor = Supervisor(cluster_paths(options.name, options.cache_root))
    asyncio.run(supervisor.serve(options.owner_fd))


if __name__ == "__main__":
    main()
