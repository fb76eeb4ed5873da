"""Process 1 of a sandbox: prepares the private view of the machine, then keeps programs running.

A sandbox is a set of fresh namespaces made by the supervisor. What happens in
it is data (`SandboxSpec`), computed by `control_plane` and `node` and tested
there; this module only carries it out. Nothing it does is visible outside its
namespaces: mounts are private, addresses and sysctls belong to the own
network namespace, and everything ends when process 1 ends.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

_RESTART_DELAY_SECONDS = 0.5
_READY_TIMEOUT_SECONDS = 60.0
# In the child, so that process 1 goes on reaping.
ONCE_NOT_HELD = ("sh", "-c", 'while [ -e "$0" ]; do sleep 0.1; done; exec "$@"')


@dataclass(frozen=True)
class Program:
    """A program that runs as long as the sandbox does; it is started again if it ends."""

    name: str
    argv: list[str]
    log: str
    ready_path: str | None = None
    """The next program starts once this file exists."""
    hold_path: str | None = None
    """While this file exists the program is not started again."""


@dataclass(frozen=True)
class SandboxSpec:
    hostname: str
    programs: list[Program]
    private: dict[str, str] = field(default_factory=dict)
    """Constant path -> directory that the sandbox sees there instead."""
    keep: list[str] = field(default_factory=list)
    """Directories of the machine that stay visible even below a private one."""
    files: dict[str, str] = field(default_factory=dict)
    """Constant path -> file that the sandbox sees there instead."""
    interface: str | None = None
    """Wait for this network interface to be plugged in."""
    setup: list[list[str]] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "SandboxSpec":
        raw = json.loads(text)
        programs = [Program(**program) for program in raw.pop("programs")]
        return cls(programs=programs, **raw)


def view_marker(spec_file: Path) -> Path:
    """A file that appears once others may enter the sandbox and see what it sees."""
    return spec_file.with_suffix(".entered")


def _mount(*words: str, pass_fds: tuple[int, ...] = ()) -> None:
    subprocess.run(["mount", *words], check=True, pass_fds=pass_fds)


def _open_directory(path: str) -> int:
    Path(path).mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_PATH)


def _bind(descriptor: int, target: str, how: str) -> None:
    """Show the directory behind the descriptor at the target, and close the descriptor."""
    # Not canonicalised: the descriptor may lead below a cover, where its path does not.
    _mount("--no-canonicalize", how, f"/proc/self/fd/{descriptor}", target, pass_fds=(descriptor,))
    os.close(descriptor)


def make_private_view(spec: SandboxSpec) -> None:
    """Cover the constant paths that two nodes on one machine would otherwise share."""
    _mount("--make-rprivate", "/")
    hidden = tuple(spec.private)
    kept = {
        path: os.open(path, os.O_PATH)
        for path in spec.keep
        if any(Path(path).is_relative_to(cover) for cover in hidden)
    }
    # All of them before the first mount: a source may lie below a path that is about to be covered.
    sources = {target: _open_directory(source) for target, source in spec.private.items()}
    for target, descriptor in sources.items():
        if target == "/tmp":
            os.chmod(f"/proc/self/fd/{descriptor}", 0o1777)
        _bind(descriptor, target, "--bind")
    for path, descriptor in kept.items():
        Path(path).mkdir(parents=True, exist_ok=True)
        _bind(descriptor, path, "--rbind")
    for target, source in spec.files.items():
        # Often a link into /run, where the private view has nothing at its end.
        real = Path(os.path.realpath(target))
        real.parent.mkdir(parents=True, exist_ok=True)
        if not real.exists():
            real.touch()
        _mount("--bind", source, str(real))
    _mount("--make-rshared", "/")  # as on a real machine; the kubelet's mounts rely on it


def prepare_network(spec: SandboxSpec) -> None:
    while spec.interface is not None and not _has_interface(spec.interface):
        time.sleep(0.01)
    for argv in spec.setup:
        subprocess.run(argv, check=True)
    for key, value in spec.sysctls.items():
        Path("/proc/sys", key).write_text(value)


def _has_interface(name: str) -> bool:
    return name in (known for _, known in socket.if_nameindex())


class Programs:
    """The running programs; process 1 also reaps every orphan of its namespace."""

    def __init__(self, programs: list[Program]) -> None:
        self._programs = programs
        self._pids: dict[int, Program] = {}

    def run_forever(self) -> None:
        for program in self._programs:
            self._start(program)
            if program.ready_path is not None:
                self._wait_for(program, Path(program.ready_path))
        while True:
            pid, status = os.wait()
            if pid in self._pids:
                program = self._pids.pop(pid)
                code = os.waitstatus_to_exitcode(status)
                print(f"{program.name} ended with {code}; starting it again", flush=True)
                time.sleep(_RESTART_DELAY_SECONDS)
                self._start(program)

    def _start(self, program: Program) -> None:
        wait = [] if program.hold_path is None else [*ONCE_NOT_HELD, program.hold_path]
        with Path(program.log).open("a") as log:
            child = subprocess.Popen(
                [*wait, *program.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._pids[child.pid] = program
        child.returncode = 0  # reaped by `os.wait` above, never by the Popen object

    @staticmethod
    def _wait_for(program: Program, path: Path) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_SECONDS
        while not path.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{program.name} did not make {path}")
            time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description="process 1 of a sandbox; started by the supervisor")
    parser.add_argument("spec", type=Path)
    spec_file: Path = parser.parse_args().spec
    spec = SandboxSpec.from_json(spec_file.read_text())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's business
    socket.sethostname(spec.hostname)
    make_private_view(spec)
    view_marker(spec_file).touch()
    prepare_network(spec)
    Programs(spec.programs).run_forever()


if __name__ == "__main__":
    main()
