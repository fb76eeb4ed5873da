"""One cluster with the operator in it serves all end-to-end tests of the product."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from scene_bench import Bench

from demo import evidence
from demo.lab import Lab
from localcluster import Progress

OUT = Path("e2e-out")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("namespaces and cgroups need root")
    running = Lab.up("e2e", Progress())
    try:
        # Otherwise a test of what is missing would wait for the end of a long back-off, and one of
        # what is out of reach for a minute.
        running.install_operator("policy.backoffBaseSeconds=2", "policy.spotUnreachableTolerationSeconds=10")
        yield running
    finally:
        running.cluster.down()


@pytest.fixture(scope="session")
def bench(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Scenes that run at the same time; what they said is in e2e-out/."""
    OUT.mkdir(exist_ok=True)

    def log(name: str, text: str) -> None:
        (OUT / f"{name}.txt").write_text(text)

    made = Bench(lab, log)
    yield made
    made.close()
    if request.session.testsfailed:
        namespaces = [path.stem for path in OUT.glob("*.txt")]
        evidence.collect(lab, namespaces, OUT / "logs")
