"""Both controllers in turn, A/B/A/B: a thousand jobs applied, all interrupted, some evicted one by one."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from checkpoint.measure import Goal, Measure, say
from operator_bench import sides
from operator_bench.figures import ratio_of_medians, rounded, share, spread
from operator_bench.lab import Lab
from operator_bench.sides import OURS, PEER, Applied, Side

EVICTED = 50


@dataclass
class Series:
    """What one side did, round by round."""

    applied: list[Applied] = field(default_factory=list)
    interrupted: list[float] = field(default_factory=list)
    """Until the last job had its replacement."""
    replacements: list[float] = field(default_factory=list)
    evicted: list[float] = field(default_factory=list)
    """The median of each round."""
    evictions: list[float] = field(default_factory=list)


async def measure(lab: Lab, num_rounds: int) -> list[Measure]:
    contenders = (sides.ours(), await sides.peer(lab))
    series = {side.name: Series() for side in contenders}
    for number in range(1, num_rounds + 1):
        # In turn first: the API server is slower while it is new.
        for side in contenders if number % 2 else reversed(contenders):
            await _play(lab, side, series[side.name])
            say(f"round {number} of {num_rounds}, {side.name}: {_summary(series[side.name])}")
    own, peer = series[OURS], series[PEER]
    return [
        *_throughput(own, peer, lab.num_jobs),
        _duration(
            f"{lab.num_jobs} one-pod jobs interrupted at once, all replaced after",
            (own.interrupted, peer.interrupted),
            {OURS: own.replacements, PEER: peer.replacements},
        ),
        _duration(
            "eviction to replacement created, median",
            (own.evicted, peer.evicted),
            {OURS: own.evictions, PEER: peer.evictions},
        ),
    ]


async def _play(lab: Lab, side: Side, series: Series) -> None:
    say(f"{side.name}: {lab.num_jobs} jobs at once")
    series.applied.append(await sides.apply(lab, side, [f"job-{n:04}" for n in range(lab.num_jobs)]))
    say(f"{side.name}: {series.applied[-1].pods_per_second:.1f} pods/s; all of them interrupted")
    replaced = await sides.interrupt_all(lab, side)
    series.interrupted.append(max(replaced.values()))
    series.replacements += replaced.values()
    say(f"{side.name}: replaced in {series.interrupted[-1]:.1f} s; {EVICTED} evicted one by one")
    evicted = await sides.evict_one_by_one(lab, side, [f"fresh-{n:04}" for n in range(EVICTED)])
    series.evicted.append(statistics.median(evicted.values()))
    series.evictions += evicted.values()
    await lab.remove_all(side.namespace, side.collection)
    await lab.wait_until_settled()


def _summary(series: Series) -> str:
    applied = series.applied[-1]
    part = share(applied.cpu_seconds, "operator")
    return (
        f"{applied.pods_per_second:.1f} pods/s, operator {part:.1f} % of the processor time, "
        f"interrupted {series.interrupted[-1]:.2f} s, evicted {series.evicted[-1]:.2f} s"
    )


def _throughput(own: Series, peer: Series, num_jobs: int) -> list[Measure]:
    rates = [each.pods_per_second for each in own.applied]
    peer_rates = [each.pods_per_second for each in peer.applied]
    shares = [share(each.cpu_seconds, "operator") for each in own.applied]
    return [
        Measure(
            name=f"{num_jobs} jobs applied at once",
            unit="pods/s",
            value=statistics.median(rates),
            against={PEER: statistics.median(peer_rates)},
            ratio=ratio_of_medians(rates, peer_rates),
            goal=Goal(">=", 0.8, PEER),
            details={
                OURS: _details(own.applied),
                PEER: _details(peer.applied),
            },
        ),
        Measure(
            name="operator's part of the processor time of that",
            unit="%",
            value=statistics.median(shares),
            goal=Goal("<=", 25),
            details={"rounds": [rounded(each) for each in shares]},
        ),
    ]


def _details(rounds: list[Applied]) -> Mapping[str, object]:
    return {
        "podsPerSecond": [rounded(each.pods_per_second) for each in rounds],
        "allRunningSeconds": [rounded(each.running_seconds) for each in rounds],
        "cpuSeconds": [
            {name: round(value, 1) for name, value in sorted(each.cpu_seconds.items())} for each in rounds
        ],
    }


def _duration(
    name: str, rounds: tuple[list[float], list[float]], all_values: Mapping[str, list[float]]
) -> Measure:
    own, peer = rounds
    return Measure(
        name=name,
        unit="s",
        value=statistics.median(own),
        against={PEER: statistics.median(peer)},
        ratio=ratio_of_medians(own, peer),
        goal=Goal("<=", 1, PEER),
        details={
            "rounds": {OURS: [rounded(each) for each in own], PEER: [rounded(each) for each in peer]},
            "secondsOfEachJob": {side: spread(values) for side, values in all_values.items()},
        },
    )
