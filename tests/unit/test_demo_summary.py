"""The summary's arithmetic: what an interruption cost, what the run cost, which goals are met."""

from collections.abc import Callable

import pytest

from demo.measures import Sample, num_job_writes, num_writes, parse_metrics
from demo.recorder import PodTimes
from demo.result import replace_seconds
from demo.scenes import Scene
from demo.summary import (
    Interruption,
    at_most,
    below,
    interruptions,
    interval_steps,
    loss_measures,
    total_cost,
)
from demo.training import Training


def make_training(*steps: tuple[int, int, int]) -> Training:
    """From (incarnation, step, second)."""
    training = Training()
    for incarnation, step, second in steps:
        training.add(
            {
                "event": "step",
                "step": step,
                "incarnation": incarnation,
                "capacityType": "spot",
                "time": f"2026-11-24T00:00:{second:02}Z",
                "loss": 1.0,
            }
        )
    return training


RESTART = {
    "incarnation": 1,
    "capacityType": "spot",
    "nodeName": "spot-a",
    "cause": "Interruption",
    "evidence": "the node object is gone",
}


def test_steps_done_again_are_the_steps_lost() -> None:
    training = make_training((1, 1, 1), (1, 2, 2), (1, 3, 3), (2, 2, 11), (2, 3, 12))
    (found,) = interruptions([RESTART], training)
    assert (found.steps_lost, found.seconds_to_training) == (2, 8.0)


def test_nothing_is_lost_where_the_next_incarnation_goes_on() -> None:
    training = make_training((1, 1, 1), (1, 2, 2), (2, 3, 9))
    (found,) = interruptions([RESTART], training)
    assert (found.steps_lost, found.seconds_to_training) == (0, 7.0)


def test_an_incarnation_that_never_made_a_step_is_skipped_over() -> None:
    """Its predecessor's loss is measured to the first step that came after it."""
    training = make_training((1, 1, 1), (1, 2, 2), (3, 2, 20))
    training.add(
        {
            "event": "start",
            "step": 0,
            "incarnation": 2,
            "capacityType": "spot",
            "time": "2026-11-24T00:00:10Z",
        }
    )
    (found,) = interruptions([RESTART], training)
    assert (found.steps_lost, found.seconds_to_training) == (1, 18.0)


def make_interruption(steps_lost: int, *, had_notice: bool) -> Interruption:
    return Interruption(
        incarnation=1,
        capacity_type="spot",
        node="spot-a",
        cause="Interruption",
        evidence="",
        had_notice=had_notice,
        steps_lost=steps_lost,
        seconds_to_training=1.0,
    )


def test_goals_for_lost_work_depend_on_whether_there_was_notice() -> None:
    found = [make_interruption(0, had_notice=True), make_interruption(9, had_notice=False)]
    assert [measure.met for measure in loss_measures(found, 10)] == [True, True]
    assert [measure.met for measure in loss_measures(found, 8)] == [True, False]
    assert not loss_measures([make_interruption(1, had_notice=True)], 10)[0].met


def test_a_goal_without_a_measurement_is_not_met() -> None:
    assert not at_most("x", None, 5, "s").met
    assert not below("x", None, 5, "s").met


def test_under_means_less_and_at_most_does_not() -> None:
    assert at_most("x", 5, 5, "s").met
    assert not below("x", 5, 5, "s").met


def test_most_steps_of_an_interval_include_the_step_at_whose_end_it_is_over() -> None:
    assert interval_steps(5, 0.5) == 12


def test_cost_is_the_sum_over_jobs_and_compares_with_on_demand_only() -> None:
    statuses = [
        {"cost": {"spotNodeSeconds": 100, "onDemandNodeSeconds": 0, "spent": "0.25", "onDemandOnly": "1.00"}},
        {"cost": {"spotNodeSeconds": 0, "onDemandNodeSeconds": 50, "spent": "0.50", "onDemandOnly": "0.50"}},
        {},
    ]
    cost = total_cost(statuses)
    assert (cost.spot_node_seconds, cost.on_demand_node_seconds) == (100.0, 50.0)
    assert (cost.spent, cost.on_demand_only, cost.saved_share) == (0.75, 1.5, 0.5)


def test_replacement_times_leave_out_what_waited_for_the_user_or_for_a_dead_node() -> None:
    pods = [
        PodTimes("j-1", "j", 1, created=0.0, ended=10.0),
        PodTimes("j-2", "j", 2, created=10.5, ended=30.0),  # the object outlived its replacement
        PodTimes("j-3", "j", 3, created=20.0, ended=40.0),  # suspended for a minute
        PodTimes("j-4", "j", 4, created=100.0),
        PodTimes("other-2", "other", 2, created=99.0),
    ]
    assert replace_seconds(pods, "j", [Scene("suspend", "j", 3, 0.0)]) == [0.5]


METRICS = """\
# HELP spot_operator_api_requests_total Requests to the API server.
spot_operator_api_requests_total{resource="spottrainingjobs",verb="get"} 40.0
spot_operator_api_requests_total{resource="pods",verb="create"} 3.0
spot_operator_api_requests_total{resource="spottrainingjobs/status",verb="patch"} 4.0
spot_operator_api_requests_total{resource="leases",verb="put"} 90.0
apiserver_request_total{code="200",group="spottraining.io",verb="PATCH",resource="spottrainingjobs"} 5
apiserver_request_total{code="200",group="spottraining.io",verb="LIST",resource="spottrainingjobs"} 7
apiserver_request_total{code="200",group="",verb="PATCH",resource="nodes"} 8
"""


@pytest.mark.parametrize(("count", "expected"), [(num_writes, 7.0), (num_job_writes, 5.0)])
def test_writes_are_counted_without_reads_and_lease_renewals(
    count: Callable[[list[Sample]], float], expected: float
) -> None:
    assert count(parse_metrics(METRICS)) == expected
