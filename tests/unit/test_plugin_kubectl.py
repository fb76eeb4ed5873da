"""How the plugin runs kubectl, and what becomes of its errors; a script stands in for kubectl."""

import json
import os
import sys
import tomllib
from pathlib import Path

import pytest

import spot_plugin
from spot_plugin import app
from spot_plugin.errors import PluginError
from spot_plugin.kubectl import Kubectl

JOB = {"metadata": {"name": "digits", "namespace": "a"}, "spec": {}, "status": {"phase": "Running"}}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes its arguments to `called`, and answers with `answer`, `complaint` and `code`."""
    program = tmp_path / "kubectl"
    program.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\nhere = pathlib.Path({str(tmp_path)!r})\n"
        "(here / 'called').write_text('\\n'.join(sys.argv[1:]))\n"
        "print((here / 'answer').read_text())\n"
        "print((here / 'complaint').read_text(), file=sys.stderr)\n"
        "sys.exit(int((here / 'code').read_text()))\n"
    )
    program.chmod(0o755)
    for name, text in (("answer", json.dumps(JOB)), ("complaint", ""), ("code", "0")):
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["status", "digits", "-n", "team", "--context", "prod", "--kubeconfig", "/k"],
        ["-n", "team", "--context", "prod", "--kubeconfig", "/k", "status", "digits"],
        ["-n", "other", "--context", "prod", "--kubeconfig", "/k", "status", "digits", "-n", "team"],
    ],
)
def test_flags_are_passed_on_wherever_they_stand(stand_in: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app.run(words)
    assert ended.value.code == 0
    assert (stand_in / "called").read_text().split("\n") == [
        "get", "spottrainingjobs.spottraining.io", "digits", "-o", "json",
        "--namespace=team", "--context=prod", "--kubeconfig=/k",
    ]  # fmt: skip


def test_a_patch_is_all_that_is_written(stand_in: Path) -> None:
    Kubectl().patch("digits", {"spec": {"suspend": True}})
    called = (stand_in / "called").read_text().split("\n")
    assert called == [
        "patch", "spottrainingjobs.spottraining.io", "digits", "--type=merge", "-p",
        '{"spec": {"suspend": true}}',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("complaint", "said", "do"),
    [
        ('Error from server (NotFound): jobs "digits" not found', "not found", "status -A"),
        (
            'error: the server doesn\'t have a resource type "spottrainingjobs"',
            "resource type",
            "install the",
        ),
        ("Error from server (Forbidden): no", "Forbidden", "ask for the right to get"),
        (
            "E1125 23:24:56.4 1 memcache.go:265] again\nThe connection to the server x was refused",
            "The connection to the server x was refused",
            "kubectl version",
        ),
        ("", "kubectl get ended with code 1", ""),
    ],
)
def test_what_kubectl_says_reaches_the_user(stand_in: Path, complaint: str, said: str, do: str) -> None:
    (stand_in / "code").write_text("1")
    (stand_in / "complaint").write_text(complaint)
    with pytest.raises(PluginError) as refused:
        Kubectl().job("digits")
    assert said in str(refused.value)
    assert "memcache" not in str(refused.value)
    assert do in refused.value.do
    assert refused.value.code == 3


def test_kubectl_finds_the_plugin_under_its_name() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["scripts"]["kubectl-spottraining"] == "spot_plugin:main"
    assert callable(spot_plugin.main)
    assert "operator/spot_plugin" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needs = " ".join(project["project"]["optional-dependencies"]["plugin"])
    assert not [word for word in ("torch", "kopf", "aiohttp", "rich") if word in needs]


def test_a_missing_kubectl_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PluginError, match="kubectl was not found"):
        Kubectl().jobs()
