"""Images are unpacked once, into a template of containerd's store, and hard-linked into every node.

Unpacking a gigabyte takes a minute, linking it a second. Templates form a
chain: each is the previous one plus one image archive, so that a changed
operator image leaves the unpacked PyTorch base as it is. Linked files are only
ever read (containers write to an overlay); containerd's two databases are
copied, because it writes to them in place.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from localcluster.cache import Cache, digest
from localcluster.cleanup import remove_tree
from localcluster.commands import CommandError, LocalClusterError, log_tail, run
from localcluster.processes import children_of

_NAMESPACE = "k8s.io"
_START_TIMEOUT_SECONDS = 30.0
_KEPT_TEMPLATES = 40


def template_for(cache: Cache, layouts: Sequence[Path]) -> Path:
    """A containerd root directory that holds all the images, in the order given."""
    key, current = digest("template-1"), None
    for layout in layouts:
        key = digest(key, layout_key(layout))
        current = cache.entry("template", key, _adder(cache, current, layout))
    assert current is not None, "there is always the pause image"
    cache.prune("template", keep=_KEPT_TEMPLATES)
    return current / "root"


def layout_key(layout: Path) -> str:
    """An image layout is named by its index, which holds the digests of all the rest."""
    return digest((layout / "index.json").read_bytes())


def link_store(source: Path, target: Path) -> None:
    """Make `target` a store of its own that shares all unchanging files with `source`."""
    run("cp", "--archive", "--link", source, target)
    for database in target.rglob("*.db"):
        copy = database.with_suffix(".copy")
        shutil.copy2(database, copy)
        copy.rename(database)


def import_image(socket: Path, layout: Path, *wrap: str) -> None:
    """Stream an image into a running containerd; `wrap` is a command prefix such as nsenter."""
    ctr = ["ctr", "--address", str(socket), "--namespace", _NAMESPACE, "images", "import", "-"]
    with subprocess.Popen(
        [*wrap, *ctr], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as importer:
        assert importer.stdin is not None
        assert importer.stdout is not None
        # A broken pipe means that the importer gave up; what it says is in its output.
        with (
            contextlib.suppress(BrokenPipeError),
            importer.stdin as stream,
            tarfile.open(fileobj=stream, mode="w|") as archive,
        ):
            archive.add(layout, arcname=".")
        output = importer.stdout.read().decode(errors="replace")
    if importer.returncode != 0:
        raise CommandError(ctr, importer.returncode, output, None)


def _adder(cache: Cache, previous: Path | None, layout: Path) -> Callable[[Path], None]:
    def make(target: Path) -> None:
        if previous is not None:
            link_store(previous / "root", target / "root")
        with _temporary_containerd(target, cache.root / "logs" / "template.log") as socket:
            import_image(socket, layout)

    return make


@contextlib.contextmanager
def _temporary_containerd(target: Path, log: Path) -> Iterator[Path]:
    """A containerd without network and runtime, on the store `target`/root; yields its socket."""
    config = target / "containerd.toml"
    config.write_text(_config(target))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as handle:
        daemon = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--net", "--mount", "--pid", "--fork",
             "--mount-proc", "--kill-child", "--", "containerd", "--config", config],
            stdout=handle, stderr=handle,
        )  # fmt: skip
        try:
            _wait_for(target / "c.sock", daemon, log)
            yield target / "c.sock"
        finally:
            for inside in children_of(daemon.pid):
                os.kill(inside, signal.SIGTERM)  # lets it close its databases
            daemon.wait()
    for name in ("containerd.toml", "state", "opt", "c.sock", "c.sock.ttrpc"):
        remove_tree(target / name)


def _wait_for(socket: Path, daemon: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while not socket.exists():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise LocalClusterError(f"containerd did not start\n  log: {log}\n{log_tail(log)}")
        time.sleep(0.05)


def _config(target: Path) -> str:
    return f"""version = 2
root = "{target}/root"
state = "{target}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{target}/c.sock"
[ttrpc]
  address = "{target}/c.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{target}/opt"
"""
