"""Container images without Docker and without a registry.

Base images are bootstrapped from Debian packages (`mmdebstrap`), the product's
images are built from the repository's Dockerfile (`buildah`, own storage below
the cache). The result of each is an OCI image layout in a directory. A derived
image's layout leaves out the layers of its base: containerd finds those in its
store, because the base is always imported first. So a changed line of code
costs the export of kilobytes and not of the PyTorch below it.
"""

import configparser
import hashlib
import json
import os
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.binaries import Binaries, pip_command
from localcluster.cache import Cache, digest, digest_files, file_lock
from localcluster.commands import LocalClusterError, run
from localcluster.node import PAUSE_IMAGE

REPOSITORY = Path(__file__).resolve().parent.parent.parent
_SUITE = "trixie"
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_CERTIFICATES = Path("/etc/ssl/certs")
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "cert")
_KEPT_IMAGES = 30


@dataclass(frozen=True)
class Base:
    """A base image made of Debian packages."""

    name: str
    packages: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    """Shell commands for mmdebstrap, with the new root directory as $1."""

    @property
    def tag(self) -> str:
        return f"localhost/{self.name}:{_SUITE}"


@dataclass(frozen=True)
class Product:
    """A target of the repository's Dockerfile."""

    target: str
    tag: str
    base: Base
    base_argument: str


# Debian builds torch without libuv, but torchrun asks for it and has no switch to say otherwise.
_TORCH_WITHOUT_LIBUV = (
    'cd "$1/usr/lib/python3/dist-packages/torch/distributed"'
    " && sed -i 's/multi_tenant=True,/multi_tenant=True, use_libuv=False,/'"
    " elastic/rendezvous/static_tcp_rendezvous.py elastic/rendezvous/dynamic_rendezvous.py"
    " elastic/rendezvous/c10d_rendezvous_backend.py"
    " && sed -i 's/is_master=False,/is_master=False, use_libuv=False,/' rendezvous.py"
    """ && sed -i 's/"USE_LIBUV", "1"/"USE_LIBUV", "0"/' rendezvous.py elastic/utils/distributed.py"""
    ' && chroot "$1" python3 -m compileall -q /usr/lib/python3/dist-packages/torch/distributed'
)
PYTHON_BASE = Base("python-base", ("python3", "python3-pip", "ca-certificates"))
TORCH_BASE = Base(
    "torch-base",
    ("python3", "python3-pip", "ca-certificates", "python3-torch", "python3-numpy", "python3-sklearn"),
    excluded=("/usr/lib/libtorch-test/*", "/usr/share/numpy/*"),
    hooks=(_TORCH_WITHOUT_LIBUV,),
)
OPERATOR = Product("operator", "localhost/spot-training-operator:dev", PYTHON_BASE, "PYTHON_BASE_IMAGE")
TRAINER = Product("trainer", "localhost/spot-trainer:dev", TORCH_BASE, "TRAINER_BASE_IMAGE")
_BASES = {base.name: base for base in (PYTHON_BASE, TORCH_BASE)}
_PRODUCTS = {product.target: product for product in (OPERATOR, TRAINER)}


class Images:
    """Makes image layouts; the same inputs give the layout that is already in the cache."""

    def __init__(self, cache: Cache, binaries: Binaries) -> None:
        self._cache = cache
        self._binaries = binaries
        self._log = cache.root / "logs" / "images.log"

    def layouts(self, names: tuple[str, ...]) -> list[Path]:
        """The layouts for these names in the order in which they build on each other."""
        bases = self.bases(names)
        products = [_PRODUCTS[name] for name in _PRODUCTS if name in names]
        return [
            self.pause(),
            *(self.base(base) for base in bases),
            *(self.product(product) for product in products),
        ]

    @staticmethod
    def bases(names: tuple[str, ...]) -> list[Base]:
        """The base images that are named or that a named product stands on."""
        wanted = {*names, *(product.base.name for target, product in _PRODUCTS.items() if target in names)}
        return [base for name, base in _BASES.items() if name in wanted]

    def pause(self) -> Path:
        program = (self._binaries.kube() / "pause").resolve()
        content = program.read_bytes()
        return self._cache.entry(
            "image", digest("pause-1", content), lambda target: write_pause_layout(target, program)
        )

    def base(self, base: Base) -> Path:
        return self._cache.entry("image", base_key(base), lambda target: self._make_base(base, target))

    def product(self, product: Product, context: Path = REPOSITORY) -> Path:
        """Build a target of the Dockerfile in `context`."""
        base = self.base(product.base)
        key = digest(product.tag, base.name, context_digest(context))
        made = self._cache.entry("image", key, lambda target: self._build(product, context, base, target))
        self._cache.prune("image", keep=_KEPT_IMAGES)
        return made

    def _make_base(self, base: Base, target: Path) -> None:
        archive = target / "root.tar"
        options = [f"--dpkgopt=path-exclude={path}" for path in (*_EXCLUDED, *base.excluded)]
        hooks = [f"--customize-hook={hook}" for hook in base.hooks]
        mirror = _debian_mirror()
        source = [f"deb [signed-by={_debian_keyring()}] {mirror} {_SUITE} main"] if mirror else []
        run(
            "mmdebstrap", "--variant=minbase", f"--include={','.join(base.packages)}", *options,
            *hooks, '--customize-hook=ln -sf python3 "$1/usr/bin/python"',
            '--customize-hook=rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
            # The machine's mirror is of no use to whoever runs the image elsewhere.
            '--customize-hook=rm -f "$1/etc/apt/sources.list"',
            _SUITE, archive, *source,
            log=self._log,
        )  # fmt: skip
        container = self._buildah("from", "scratch").strip()
        self._buildah("add", "--quiet", container, str(archive), "/")
        self._buildah("config", "--cmd", "python3", container)
        self._buildah("commit", "--quiet", "--rm", container, base.tag)
        archive.unlink()
        self._export(base.tag, target)

    def _build(self, product: Product, context: Path, base: Path, target: Path) -> None:
        dockerfile = context / "Dockerfile"
        if not dockerfile.exists():
            raise LocalClusterError(f"there is no {dockerfile} to build the image {product.tag} from")
        with file_lock(self._cache.root / "locks" / "buildah"):
            self._ensure_stored(product.base, base)
            pip_config = target / "pip.conf"
            write_pip_config(pip_config)
            run(*self._buildah_command("bud"), "--quiet", "--pull-never", "--layers",
                "--isolation", "chroot", "--network", "host",
                "--volume", f"{_CERTIFICATES}:{_CERTIFICATES}:ro",
                "--volume", f"{pip_config}:/etc/pip.conf:ro",
                "--build-arg", f"{product.base_argument}={product.base.tag}",
                "--target", product.target, "--file", dockerfile, "--tag", product.tag, context,
                log=self._log)  # fmt: skip
            pip_config.unlink()
            for blob in (base / "blobs" / "sha256").iterdir():
                _link(blob, target / "blobs" / "sha256" / blob.name)
            self._export(product.tag, target)
            self._buildah("rmi", "--prune", "--force")
        drop_layers(target, of=base)

    def _ensure_stored(self, base: Base, layout: Path) -> None:
        """buildah's storage may have been emptied since the base was made."""
        try:
            self._buildah("inspect", "--type", "image", base.tag)
        except LocalClusterError:
            name = self._buildah("pull", "--quiet", f"oci:{layout}:{base.tag}").strip()
            self._buildah("tag", name, base.tag)

    def _export(self, tag: str, layout: Path) -> None:
        """Uncompressed: nothing is sent over a network, and layers keep one digest everywhere."""
        self._buildah("push", "--quiet", "--disable-compression", tag, f"oci:{layout}:{tag}")
        name_image(layout, tag)

    def _buildah(self, *words: str) -> str:
        return run(*self._buildah_command(words[0]), *words[1:])

    def _buildah_command(self, command: str) -> list[str]:
        storage = self._cache.root / "buildah"
        return ["buildah", "--root", f"{storage}/root", "--runroot", f"{storage}/run",
                "--storage-driver", "overlay", command]  # fmt: skip


def base_key(base: Base) -> str:
    return digest("base-1", base.name, _SUITE, *base.packages, *base.excluded, *_EXCLUDED, *base.hooks)


def context_digest(context: Path) -> str:
    """Digest of the Dockerfile and of what it copies: other files of the repository do not matter."""
    dockerfile = context / "Dockerfile"
    sources = copied_sources(dockerfile.read_text()) if dockerfile.exists() else []
    files = [path for source in sources for path in sorted(context.glob(source.rstrip("/")))]
    return digest_files([dockerfile, *files], relative_to=context)


def copied_sources(dockerfile: str) -> list[str]:
    """What the COPY and ADD instructions take from the build context."""
    joined = re.sub(r"\\\n", " ", dockerfile)
    sources: list[str] = []
    for words in re.findall(r"^\s*(?:COPY|ADD)\s+(.+)$", joined, re.MULTILINE | re.IGNORECASE):
        parts = [word for word in words.split() if not word.startswith("--")]
        if "--from=" not in words:
            sources += parts[:-1]
    return sources


def write_pip_config(path: Path) -> None:
    """The machine's package index settings, for the time of a build; never part of a layer."""
    config = configparser.ConfigParser(interpolation=None)
    config["global"] = {}
    for line in run(*pip_command(), "config", "list").splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        if key in _PIP_SETTINGS:
            config["global"][key] = value.strip("'\"")
    with path.open("w") as handle:
        config.write(handle)


def write_pause_layout(target: Path, program: Path) -> None:
    """An image of one file, written by hand: a layer, a configuration, a manifest, an index."""
    layer_file = target / "layer.tar"
    with tarfile.open(layer_file, "w") as archive:
        info = tarfile.TarInfo("pause")
        info.mode, info.size = 0o755, program.stat().st_size
        with program.open("rb") as content:
            archive.addfile(info, content)
    layer = _add_blob(target, layer_file.read_bytes(), "application/vnd.oci.image.layer.v1.tar")
    layer_file.unlink()
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": _add_json(target, config, "application/vnd.oci.image.config.v1+json"),
        "layers": [layer],
    }
    descriptor = _add_json(target, manifest, manifest_type)
    (target / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (target / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    name_image(target, PAUSE_IMAGE)


def name_image(layout: Path, tag: str) -> None:
    """Write the full name under which containerd shall know the layout's image."""
    path = layout / "index.json"
    index = json.loads(path.read_text())
    (descriptor,) = index["manifests"]
    descriptor["annotations"] = {"io.containerd.image.name": tag}
    path.write_text(json.dumps(index))


def drop_layers(layout: Path, *, of: Path) -> None:
    """Remove the blobs that the base's layout holds too."""
    for blob in (of / "blobs" / "sha256").iterdir():
        (layout / "blobs" / "sha256" / blob.name).unlink(missing_ok=True)


def _add_json(layout: Path, content: Any, media_type: str) -> dict[str, Any]:
    return _add_blob(layout, json.dumps(content).encode(), media_type)


def _add_blob(layout: Path, content: bytes, media_type: str) -> dict[str, Any]:
    name = hashlib.sha256(content).hexdigest()
    blob = layout / "blobs" / "sha256" / name
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(content)}


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.hardlink_to(source)


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def _debian_keyring() -> str:
    return "/usr/share/keyrings/debian-archive-keyring.gpg"


def _debian_mirror() -> str:
    """The machine's own mirror; empty on other systems, where mmdebstrap's own default is right."""
    for path in sorted(Path("/etc/apt").rglob("*")):
        if path.suffix not in (".list", ".sources") or not path.is_file():
            continue
        if match := re.search(r"https?://\S*/debian/?(?=\s|$)", path.read_text()):
            return match[0]
    return ""
