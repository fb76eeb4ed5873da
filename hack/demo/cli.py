"""`python -m demo`: from the plan to the summary, and everything taken down at the end.

Invariant: whatever happens (an error, Ctrl-C, SIGTERM), the logs are collected first and
the cluster is gone afterwards; the cluster also ends if this process is killed.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path

from demo import evidence, plan
from demo.jobs import DemoError
from demo.lab import Lab
from demo.measures import measure_idle
from demo.plan import Options
from demo.plot import plot_losses
from demo.recorder import Recorder
from demo.report import make_console, print_summary
from demo.result import marks, summarize
from demo.screen import Screen
from demo.story import Story
from demo.summary import Summary
from demo.timeline import as_text
from localcluster import LocalClusterError, Progress
from localcluster.api import ApiError

IDLE_SECONDS = 20.0
CTRL_C = 130


def main(arguments: list[str] | None = None) -> int:
    """0: everything as promised; 1: not; 130: interrupted."""
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(plan.describe(options), flush=True)
    began = time.time()
    lab: Lab | None = None
    code = 1
    try:
        lab = Lab.up(options.name, Progress(), owned=not options.keep)
        code = _run(lab, options, began)
        if code != 0:
            _keep_evidence(lab, options)
    except (DemoError, LocalClusterError, ApiError, OSError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        _keep_evidence(lab, options)
    except KeyboardInterrupt:
        print("\ninterrupted: taking everything down", file=sys.stderr)
        _keep_evidence(lab, options)
        code = CTRL_C
    except Exception:
        _keep_evidence(lab, options)
        raise
    finally:
        if lab is not None:
            _end(lab, options, code)
    return code


def _parse(arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--volume", action="store_true", help="checkpoints on a persistent volume, not in S3")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up at the end")
    parser.add_argument("--plain", action="store_true", help="one line for each event, no live screen")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="where results go (%(default)s)")
    parser.add_argument("--name", default="demo", help="name of the cluster (%(default)s)")
    found = parser.parse_args(arguments)
    return Options(volume=found.volume, keep=found.keep, plain=found.plain, out=found.out, name=found.name)


def _run(lab: Lab, options: Options, began: float) -> int:
    """With the cluster up: install, tell the story, compare, write everything down."""
    prepare_seconds = time.time() - began
    options.out.mkdir(parents=True, exist_ok=True)
    screen = Screen(time.time(), plain=options.plain)
    timeline = screen.timeline
    progress = Progress()
    with progress.step("Operator (helm upgrade --install)"):
        lab.install_operator()
    with progress.step("Namespace, script, credentials"):
        jobs = lab.make_namespace(plan.NAMESPACE, volume=options.volume)
    recorder = screen.recorder = Recorder(lab.streams(), plan.NAMESPACE, timeline)
    recorder.start()
    story = Story(lab, jobs, recorder, screen, options)
    try:
        with screen.running():
            story.tell()
        recorder.note(f"measures the idle operator for {IDLE_SECONDS:.0f} s, then compares the runs")
        idle = measure_idle(lab, IDLE_SECONDS)
        summary = summarize(story, idle, time.time() - began, prepare_seconds)
    finally:
        (options.out / "timeline.txt").write_text(as_text(timeline.entries(), timeline.start))
        recorder.close()
    _write(summary, story, screen, options)
    print_summary(summary, make_console())
    print(f"\nwritten: {options.out}/summary.json, loss.png, timeline.txt, timeline.svg")
    return 0 if summary.equality.holds else 1


def _write(summary: Summary, story: Story, screen: Screen, options: Options) -> None:
    out = options.out
    (out / "summary.json").write_text(json.dumps(summary.as_json(), indent=2) + "\n")
    screen.focus, screen.total_steps = plan.MAIN, plan.EPOCHS * plan.STEPS_PER_EPOCH
    screen.save_picture(out / "timeline.svg", title="make demo")
    run = story.recorder.training(plan.MAIN)
    plot_losses(
        story.recorder.training(plan.REFERENCE),
        run,
        marks([scene for scene in story.scenes if scene.job == plan.MAIN], run),
        out / "loss.png",
        title="Interrupted training is the same training",
    )


def _keep_evidence(lab: Lab | None, options: Options) -> None:
    if lab is None:
        return
    folder = options.out / "logs"
    evidence.collect(lab, [plan.NAMESPACE], folder)
    print(f"logs, objects and events are in {folder}/", file=sys.stderr)


def _end(lab: Lab, options: Options, code: int) -> None:
    # A second Ctrl-C must not leave half a cluster behind.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if options.keep and code != CTRL_C:
        _leave(lab)
        return
    with Progress().step("Take everything down"):
        lab.cluster.down()


def _leave(lab: Lab) -> None:
    """The cluster outlives this process; say how to use it and how to end it."""
    print(
        f"\nThe cluster stays up:\n\n"
        f"  export KUBECONFIG={lab.cluster.kubeconfig}\n"
        f"  {lab.cluster.kubectl_path} get spottrainingjobs --namespace {plan.NAMESPACE}\n\n"
        f"and ends with\n\n"
        f"  PYTHONPATH=hack {sys.executable} -m localcluster --name {lab.cluster.name} down\n"
    )
