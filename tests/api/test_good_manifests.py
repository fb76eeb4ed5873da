"""Every example and sample is accepted as written, means something, and comes back unchanged."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from spot_operator.api.effective import parse_spec
from spot_operator.model import JobSpec

pytestmark = pytest.mark.api

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((Path(__file__).parent / "manifests").glob("good-*.yaml"))
EXAMPLES = sorted(p for p in (ROOT / "examples").rglob("*.yaml") if "kind: SpotTrainingJob" in p.read_text())
CHART = yaml.safe_load((ROOT / "charts" / "spot-training-operator" / "Chart.yaml").read_text())
CHART_EXAMPLES = yaml.safe_load(CHART["annotations"]["artifacthub.io/crdsExamples"])


def jobs_in(path: Path) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(path.read_text()) if d and d["kind"] == "SpotTrainingJob"]


JOBS = [
    *(pytest.param(job, id=str(p.relative_to(ROOT))) for p in (*SAMPLES, *EXAMPLES) for job in jobs_in(p)),
    *(pytest.param(job, id="chart") for job in CHART_EXAMPLES),
]


def test_there_are_samples_and_examples() -> None:
    assert SAMPLES
    assert EXAMPLES


@pytest.mark.parametrize("manifest", JOBS)
def test_accepted_and_nothing_is_added_to_spec(
    api_server: Any, namespace: str, manifest: dict[str, Any]
) -> None:
    text = json.dumps(manifest)
    api_server.kubectl("apply", "-n", namespace, "-f", "-", input=text)
    name = manifest["metadata"]["name"]
    stored = json.loads(api_server.kubectl("get", "stj", name, "-n", namespace, "-o", "json"))
    assert stored["spec"] == manifest["spec"]
    printed = api_server.kubectl("apply", "-n", namespace, "-f", "-", input=text)
    assert printed == f"spottrainingjob.spottraining.io/{name} unchanged\n"


@pytest.mark.parametrize("manifest", JOBS)
def test_means_something_to_the_operator(manifest: dict[str, Any]) -> None:
    created = datetime(2026, 11, 1, tzinfo=UTC)
    name = manifest["metadata"]["name"]
    spec = parse_spec(manifest["spec"], namespace="team-a", name=name, created=created)
    assert isinstance(spec, JobSpec), spec


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_examples_apply_as_files(api_server: Any, namespace: str, path: Path) -> None:
    api_server.kubectl("apply", "-n", namespace, "--dry-run=server", "-f", str(path))
