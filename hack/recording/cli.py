"""`make record`: play scenarios on an embedded cluster and write down what its API server shows."""

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from localcluster import CapacityType, Cluster, ClusterConfig, NodeSpec, Progress
from localcluster.binaries import KUBERNETES_VERSION
from localcluster.images import REPOSITORY
from recording.scenarios import PLAYS, Play
from recording.sequence import Recording
from recording.stage import Stage

FOLDER = REPOSITORY / "tests" / "data" / "recordings"
SETTLE_SECONDS = 3.0
"""What comes of a deed may take a moment more than what was waited for."""
NAME = "record"


def record(cluster: Cluster, config: ClusterConfig, play: Play, number: int) -> Recording:
    """One scenario from its node's start to its end; raises TimeoutError if it does not come about."""
    stage = Stage(cluster, play.scenario, f"recorded-{number}")
    stage.watch()
    try:
        if play.scenario.has_node:
            stage.boot()
            stage.wait_settled()
            time.sleep(SETTLE_SECONDS)
        play.act(stage)
        time.sleep(SETTLE_SECONDS)
        now = datetime.now(UTC)
        assert stage.seen.zero is not None
        return Recording(
            scenario=play.scenario,
            kubernetes=f"v{KUBERNETES_VERSION}",
            date=now.date().isoformat(),
            monitor_grace_seconds=config.node_monitor_grace_seconds,
            seconds=round((now - stage.seen.zero).total_seconds(), 1),
            deeds=tuple(stage.done),
            changes=tuple(stage.seen.changes),
        )
    finally:
        stage.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="recording", description=__doc__)
    parser.add_argument("scenarios", nargs="*", help="their names; default: all of them")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the recordings are written")
    options = parser.parse_args()
    config = ClusterConfig(
        name=NAME, nodes=(NodeSpec("first", CapacityType.ON_DEMAND),), images=("python-base",), s3=False
    )
    failed = 0
    with Cluster.up(config, progress=Progress()) as cluster:
        for number, play in enumerate(PLAYS, start=1):
            if options.scenarios and play.scenario.name not in options.scenarios:
                continue
            try:
                recording = record(cluster, config, play, number)
            except TimeoutError as error:
                print(error, file=sys.stderr)
                failed += 1
                continue
            path = recording.write(options.out)
            size = path.stat().st_size
            name, changes = play.scenario.name, len(recording.changes)
            print(f"{name:<20} {recording.seconds:6.1f} s, {changes:3} changes, {size} bytes", flush=True)
    return 1 if failed else 0
