"""An image is rebuilt when something that goes into it changed, and only then."""

import hashlib
import json
from pathlib import Path

from localcluster.images import (
    PYTHON_BASE,
    TORCH_BASE,
    Images,
    base_key,
    context_digest,
    copied_sources,
    drop_layers,
    write_pause_layout,
)

DOCKERFILE = """FROM x AS build
COPY requirements.lock \\
     pyproject.toml /build/
COPY --chown=1:1 src /src
FROM y
COPY --from=build /out /out
"""


def test_what_is_copied_from_other_stages_is_no_source() -> None:
    assert copied_sources(DOCKERFILE) == ["requirements.lock", "pyproject.toml", "src"]


def test_the_context_is_what_the_dockerfile_copies(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "src" / "a.py").write_text("1")
    before = context_digest(tmp_path)
    (tmp_path / "README.md").write_text("not copied")
    assert context_digest(tmp_path) == before
    (tmp_path / "src" / "a.py").write_text("2")
    assert context_digest(tmp_path) != before


def test_products_bring_their_bases() -> None:
    assert Images.bases(("operator",)) == [PYTHON_BASE]
    assert Images.bases(("trainer", "python-base")) == [PYTHON_BASE, TORCH_BASE]
    assert Images.bases(()) == []


def test_bases_have_keys_of_their_own() -> None:
    assert base_key(PYTHON_BASE) != base_key(TORCH_BASE)


def test_the_pause_layout_is_consistent(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(b"program")
    layout = tmp_path / "layout"
    layout.mkdir()
    write_pause_layout(layout, program)
    for blob in (layout / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    (descriptor,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert descriptor["annotations"] == {"io.containerd.image.name": "localhost/pause:1"}
    manifest = json.loads((layout / "blobs" / "sha256" / descriptor["digest"][7:]).read_text())
    assert (layout / "blobs" / "sha256" / manifest["layers"][0]["digest"][7:]).exists()


def test_a_derived_layout_leaves_out_the_layers_of_its_base(tmp_path: Path) -> None:
    for image, blobs in {"base": ("a",), "derived": ("a", "b")}.items():
        folder = tmp_path / image / "blobs" / "sha256"
        folder.mkdir(parents=True)
        for blob in blobs:
            (folder / blob).touch()
    drop_layers(tmp_path / "derived", of=tmp_path / "base")
    assert [path.name for path in (tmp_path / "derived" / "blobs" / "sha256").iterdir()] == ["b"]
