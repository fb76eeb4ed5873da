"""The commands: options in, text or JSON out, errors as one sentence and an exit code.

Invariant: the only place that reads the clock, prints, and ends the process.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from spot_operator.market import Climate, Market, Overheads, Policy, advise, summaries
from spot_plugin import actions, explain, fleet, plot, report, simulate, status
from spot_plugin.actions import Clock, Wish
from spot_plugin.errors import Exit, PluginError
from spot_plugin.job import Job
from spot_plugin.kubectl import Kubectl
from spot_plugin.manifest import Manifest, read_manifest
from spot_plugin.markets import read_markets
from spot_plugin.options import (
    Context,
    JobName,
    Json,
    Kubeconfig,
    Namespace,
    Timeout,
    Wait,
    kubectl_of,
    seconds_of,
)

PROGRAM = "kubectl spottraining"
PROGRESS_SECONDS = 2.0
SYNTHETIC = "synthetic"

app = typer.Typer(
    name=PROGRAM,
    help="Ask before you run, look at what runs, hold it, go on.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def before(
    context: typer.Context, namespace: Namespace = "", kube_context: Context = "", kubeconfig: Kubeconfig = ""
) -> None:
    context.obj = {"namespace": namespace, "context": kube_context, "kubeconfig": kubeconfig}


@app.command("status")
def show_status(
    context: typer.Context,
    job: Annotated[str, typer.Argument(metavar="[JOB]", help="One job; else all of the namespace.")] = "",
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")
    ] = False,
    namespace: Namespace = "",
    kube_context: Context = "",
    kubeconfig: Kubeconfig = "",
    as_json: Json = False,
) -> None:
    """Where each job is: capacity, progress, deadline and slack, interruptions, cost."""
    if job and all_namespaces:
        raise PluginError("a job has one namespace: name it with -n, or leave JOB out with -A")
    kubectl = kubectl_of(context, namespace=namespace, kube_context=kube_context, kubeconfig=kubeconfig)
    jobs = [Job(kubectl.job(job))] if job else [Job(j) for j in kubectl.jobs(all_namespaces=all_namespaces)]
    if as_json:
        found = [status.as_json(each, _now()) for each in jobs]
        _print_json(found[0] if job else found)
        return
    _print(status.as_table(jobs, _now(), with_namespace=all_namespaces))
    if job and (message := jobs[0].get("status.message")):
        _print(["", message])


@app.command("explain")
def show_explanation(
    context: typer.Context,
    job: JobName,
    namespace: Namespace = "",
    kube_context: Context = "",
    kubeconfig: Kubeconfig = "",
    as_json: Json = False,
) -> None:
    """Why a job is where it is, what would change that and when, and what you can do."""
    kubectl = kubectl_of(context, namespace=namespace, kube_context=kube_context, kubeconfig=kubeconfig)
    found = Job(kubectl.job(job))
    if as_json:
        _print_json(explain.as_json(found, _now()))
    else:
        _print(explain.as_text(found, _now()))


@app.command()
def suspend(
    context: typer.Context,
    job: JobName,
    wait: Wait = False,
    timeout: Timeout = "10m",
    namespace: Namespace = "",
    kube_context: Context = "",
    kubeconfig: Kubeconfig = "",
    as_json: Json = False,
) -> None:
    """Save a last checkpoint, stop, and hold the job. Its deadline does not move."""
    kubectl = kubectl_of(context, namespace=namespace, kube_context=kube_context, kubeconfig=kubeconfig)
    _wish(lambda: actions.suspend(kubectl, job), kubectl, job, wait, timeout, as_json)


@app.command()
def resume(
    context: typer.Context,
    job: JobName,
    wait: Wait = False,
    timeout: Timeout = "30m",
    namespace: Namespace = "",
    kube_context: Context = "",
    kubeconfig: Kubeconfig = "",
    as_json: Json = False,
) -> None:
    """Go on from the last checkpoint."""
    kubectl = kubectl_of(context, namespace=namespace, kube_context=kube_context, kubeconfig=kubeconfig)
    _wish(lambda: actions.resume(kubectl, job), kubectl, job, wait, timeout, as_json)


@app.command()
def checkpoint(
    context: typer.Context,
    job: JobName,
    wait: Wait = False,
    timeout: Timeout = "10m",
    namespace: Namespace = "",
    kube_context: Context = "",
    kubeconfig: Kubeconfig = "",
    as_json: Json = False,
) -> None:
    """Ask the running program for a checkpoint now; it goes on training."""
    kubectl = kubectl_of(context, namespace=namespace, kube_context=kube_context, kubeconfig=kubeconfig)
    request = _now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
    _wish(lambda: actions.checkpoint(kubectl, job, request=request), kubectl, job, wait, timeout, as_json)


def _wish(
    ask: Callable[[], Wish], kubectl: Kubectl, name: str, wait: bool, timeout: str, as_json: bool
) -> None:
    seconds = seconds_of(timeout, "--timeout")
    wish = ask()
    if not as_json:
        _print([wish.said])
    if wait:
        clock = Clock(monotonic=time.monotonic, sleep=time.sleep)
        job = actions.wait_for(wish, kubectl, name, timeout_seconds=seconds, clock=clock)
        if not as_json:
            _print([wish.done(job)])
    if as_json:
        _print_json(status.as_json(Job(kubectl.job(name)), _now()))


@app.command("simulate")
def run_simulation(
    file: Annotated[str, typer.Option("--filename", "-f", help="Manifest of the job; - is stdin.")],
    market: Annotated[
        list[str] | None,
        typer.Option(help="Recorded market: file or folder, may be repeated; or synthetic."),
    ] = None,
    name: Annotated[str, typer.Option(help="Which job, if the file holds several.")] = "",
    runs: Annotated[int, typer.Option(min=1, max=100_000, help="Simulated runs.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same runs.")] = 1,
    policy: Annotated[
        list[Policy] | None,
        typer.Option(case_sensitive=False, help="Alternatives beside the manifest's own; may be repeated."),
    ] = None,
    work: Annotated[
        str, typer.Option(metavar="DURATION", help="Uninterrupted run; else expectedDurationSeconds.")
    ] = "",
    deadline: Annotated[
        str, typer.Option(metavar="DURATION", help="After creation; else the manifest's.")
    ] = "",
    spot_price: Annotated[
        float | None, typer.Option(min=0, help="Per node-hour; else the manifest's.")
    ] = None,
    on_demand_price: Annotated[
        float | None, typer.Option(min=0, help="Per node-hour; else the manifest's.")
    ] = None,
    availability: Annotated[
        float, typer.Option(min=0, max=1, help="Synthetic: share of time with spot.")
    ] = Climate.availability,
    median_up_time: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="Synthetic: median time that spot stays; else as a job that has run tells, or 36m.",
        ),
    ] = "",
    spread: Annotated[
        float, typer.Option(min=0, max=4, help="Synthetic: log-normal sigma of spells; 1.6 is heavy-tailed.")
    ] = Climate.spread,
    provision_time: Annotated[str, typer.Option(metavar="DURATION", help="Pod to ready node.")] = "2m",
    on_demand_provision_time: Annotated[
        str, typer.Option(metavar="DURATION", help="The same on on-demand; else as --provision-time.")
    ] = "",
    start_time: Annotated[
        str, typer.Option(metavar="DURATION", help="Image pull and start of the container.")
    ] = "150s",
    restore_time: Annotated[
        str, typer.Option(metavar="DURATION", help="Program start and loading a checkpoint.")
    ] = "80s",
    overhead_spread: Annotated[
        float, typer.Option(min=0, max=2, help="Log-normal sigma of startups; 0: always the same.")
    ] = Overheads.spread,
    checkpoint_time: Annotated[
        str, typer.Option(metavar="DURATION", help="From a checkpoint's begin to its being durable.")
    ] = "30s",
    checkpoint_stall: Annotated[
        float, typer.Option(min=0, max=3600, help="Seconds that a checkpoint holds training up.")
    ] = 0.5,
    notice_reliability: Annotated[
        float, typer.Option(min=0, max=1, help="Share of interruptions whose last checkpoint lands.")
    ] = 0.5,
    probe_time: Annotated[
        str, typer.Option(metavar="DURATION", help="On on-demand: how often spot is looked for; 0: at once.")
    ] = "0s",
    plot_file: Annotated[str, typer.Option("--plot", metavar="PNG", help="Write the distributions.")] = "",
    processes: Annotated[int, typer.Option(min=0, max=1024, help="0: one for each core.")] = 0,
    as_json: Json = False,
    namespace: Namespace = "",
) -> None:
    """Replay the operator's own decisions over many markets: on time? at what cost? and otherwise?"""
    if plot_file:
        plot.check(Path(plot_file))
    provision = seconds_of(provision_time, "--provision-time")
    overheads = Overheads(
        provision_spot=provision,
        provision_on_demand=seconds_of(on_demand_provision_time, "--on-demand-provision-time")
        if on_demand_provision_time
        else provision,
        pull=seconds_of(start_time, "--start-time"),
        restore=seconds_of(restore_time, "--restore-time"),
        spread=overhead_spread,
    )
    given = simulate.Assumptions(
        work_seconds=seconds_of(work, "--work") if work else None,
        deadline_seconds=seconds_of(deadline, "--deadline") if deadline else None,
        spot_price=spot_price,
        on_demand_price=on_demand_price,
        overheads=overheads,
        checkpoint_seconds=seconds_of(checkpoint_time, "--checkpoint-time"),
        checkpoint_stall=checkpoint_stall,
        notice_reliability=notice_reliability,
        probe_seconds=seconds_of(probe_time, "--probe-time"),
        policies=tuple(policy or ()),
        seed=seed,
    )
    now = _now()
    stdin = sys.stdin.read() if file == "-" else ""
    manifest = read_manifest(file, stdin, name=name, namespace=namespace, created=now)
    markets, notes = _markets(manifest, market or [SYNTHETIC], availability, median_up_time, spread)
    prepared = simulate.prepare(manifest, given, markets, created=now)
    began = time.monotonic()
    outcomes = fleet.play_all(
        prepared.plan,
        runs,
        num_processes=processes or fleet.available_cores(),
        progress=_progress(runs, began),
    )
    found = summaries(outcomes)
    has_deadline = given.deadline_seconds is not None or manifest.spec.deadline is not None
    result = report.Report(
        manifest=manifest,
        plan=prepared.plan,
        num_runs=runs,
        summaries=found,
        advice=advise(manifest.chosen, found, has_deadline=has_deadline),
        notes=(*notes, *prepared.notes),
        wall_seconds=time.monotonic() - began,
        plot=plot_file,
    )
    if plot_file:
        plot.draw(result, outcomes, Path(plot_file))
    if as_json:
        _print_json(report.as_json(result))
    else:
        _print(report.as_text(result))


def _markets(
    manifest: Manifest, words: Sequence[str], availability: float, median_up_time: str, spread: float
) -> tuple[tuple[Market, ...] | Climate, tuple[str, ...]]:
    """The markets, and what is to be said about them."""
    if SYNTHETIC not in words:
        return read_markets(words), ()
    if len(words) > 1:
        raise PluginError("--market is either synthetic or recorded files, not both")
    try:
        return simulate.climate(
            manifest,
            availability=availability,
            median_up_seconds=seconds_of(median_up_time, "--median-up-time") if median_up_time else None,
            spread=spread,
        )
    except ValueError as error:
        raise PluginError(str(error)) from error


def _progress(num_runs: int, began: float) -> Callable[[int], None]:
    """A line now and then, once it takes long enough to be wondered about."""
    last = began

    def say(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PROGRESS_SECONDS and done < num_runs:
            last = now
            left = (now - began) / done * (num_runs - done)
            # The first runs include the start of the processes, and say nothing about the others.
            about = f", about {left:.0f} s left" if done >= num_runs / 5 else ""
            typer.echo(f"{done} of {num_runs} runs{about}", err=True)

    return say


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - the edge: everything below takes it as an argument


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        typer.echo(line)


def _print_json(body: Any) -> None:
    typer.echo(json.dumps(body, indent=2))


def run(words: Sequence[str] | None = None) -> NoReturn:
    """The whole program; every foreseen error is one sentence, and what to do about it."""
    try:
        app(args=None if words is None else list(words), prog_name=PROGRAM)
    except PluginError as error:
        typer.echo(f"error: {error}", err=True)
        if error.do:
            typer.echo(f"       {error.do}", err=True)
        sys.exit(error.code)
    sys.exit(Exit.OK)
