"""What node time costs: at the price of its node, counted once, and never free for want of a price."""

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spot_operator.changes import Change, compare
from spot_operator.decide import decide
from spot_operator.decide.cost import account, sum_up
from spot_operator.decide.draft import Draft
from spot_operator.decide.prices import known_price, price_by_selector
from spot_operator.model import (
    UNKNOWN,
    CapacityStatus,
    ContainerTermination,
    ContainerView,
    Cost,
    Decision,
    GoneNode,
    InterruptionRate,
    JobSpec,
    JobStatus,
    NodeView,
    Observation,
    Overheads,
    PodRecord,
    PolicySettings,
    Pool,
    Progress,
    Stop,
    ZoneInterruptions,
)
from spot_operator.names import LABEL_INSTANCE_TYPE, CapacityType, Reason, StopReason
from spot_operator.policy import Launches
from spot_operator.prices import NodePrices, PriceTable
from spot_operator.testing import (
    NOW,
    POD_UID,
    make_ended_pod,
    make_gang,
    make_node,
    make_observation,
    make_outcome,
    make_pod,
    make_spec,
    make_status,
    seconds,
)
from spot_operator.wire import status_from_json, status_to_json
from spot_trainer.contract import OutcomeKind

SPOT, ON_DEMAND = CapacityType.SPOT, CapacityType.ON_DEMAND
BARE = make_spec(spot=Pool(), on_demand=Pool())
TABLE: PriceTable = {
    "small": NodePrices(spot=Decimal("0.50"), on_demand=Decimal("1.50")),
    "large": NodePrices(spot=Decimal("4"), on_demand=Decimal("8")),
    "odd": NodePrices(spot=Decimal("7")),
}
HOUR = 3600.0


def step(observation: Observation, *, after: float = 0, table: PriceTable | None = None) -> Decision:
    return decide(observation, NOW + seconds(after), PolicySettings(prices=table or {}))


def told(price: str, **changes: Any) -> NodeView:
    return make_node(price_annotation=price, **changes)


def of_type(instance_type: str, **changes: Any) -> NodeView:
    return make_node(labels={LABEL_INSTANCE_TYPE: instance_type}, **changes)


def unread(**changes: Any) -> PodRecord:
    """Of a pod that is bound, and whose node nobody has looked at yet."""
    record = replace(make_gang().pods[0], node_uid=None, boot_id=None, zone=None)
    return replace(record, **changes)


def fresh(**changes: Any) -> JobStatus:
    """Bound 99 s ago, and not looked at since."""
    return make_status(gang=make_gang(pods=(unread(),), accounted_until=None), **changes)


def one_hour_on(
    node: NodeView | None, *, spec: JobSpec = BARE, table: PriceTable | None = None, **changes: Any
) -> Cost:
    """An hour from the binding of the pod, in one look."""
    nodes = {} if node is None else {"spot-a": node}
    observation = make_observation(**({"spec": spec, "status": fresh(), "nodes": nodes} | changes))
    return step(observation, after=HOUR - 99, table=table).status.cost


# --- where prices come from -------------------------------------------------------------------


def test_the_job_goes_before_the_node_and_the_node_before_the_table() -> None:
    node = told("2.00", labels={LABEL_INSTANCE_TYPE: "small"})
    assert one_hour_on(node, spec=make_spec(), table=TABLE).spent == Decimal("0.9700")
    assert one_hour_on(node, table=TABLE).spent == Decimal("2.0000")
    assert one_hour_on(of_type("small"), table=TABLE).spent == Decimal("0.5000")


def test_on_demand_has_its_own_price_in_the_table() -> None:
    gang = make_gang(ON_DEMAND, pods=(unread(),), accounted_until=None)
    cost = one_hour_on(of_type("small"), table=TABLE, status=make_status(gang=gang))
    assert (cost.spent, cost.on_demand_node_seconds, cost.spot_node_seconds) == (Decimal("1.5000"), 3600, 0)


@pytest.mark.parametrize("node", [make_node(), of_type("unheard-of"), of_type("")])
def test_without_a_price_only_the_seconds_are_known(node: NodeView) -> None:
    cost = one_hour_on(node, table=TABLE)
    assert (cost.spot_node_seconds, cost.unpriced_spot_node_seconds) == (3600.0, 3600.0)
    assert (cost.spent, cost.saved, cost.projected) == (None, None, None)


def test_a_price_of_nothing_is_a_price() -> None:
    cost = one_hour_on(told("0"))
    assert (cost.spent, cost.unpriced_spot_node_seconds, cost.spot_price) == (Decimal("0.0000"), 0.0, 0)


RUBBISH = [
    "cheap",
    "-1",
    "+1",
    "1,5",
    "1e3",
    " 0.97",
    "0.97\n",
    ".5",
    "1.",
    "NaN",
    "\u0663",
    "9" * 10,
    "0" * 64,
]


@pytest.mark.parametrize("text", RUBBISH)
def test_rubbish_on_a_node_is_no_price_and_is_said_once(text: str) -> None:
    node = told(text, labels={LABEL_INSTANCE_TYPE: "small"})
    observation = make_observation(spec=BARE, status=fresh(), nodes={"spot-a": node})
    first = step(observation, after=HOUR - 99, table=TABLE)
    assert first.status.cost.spent == Decimal("0.5000")
    said = [event for event in first.events if event.reason == Reason.INVALID_PRICE]
    assert [event.type for event in said] == ["Warning"]
    assert (
        f"node spot-a: annotation spottraining.io/price-per-node-hour={text!r} is ignored" in said[0].message
    )
    later = step(replace(observation, status=first.status), after=2 * HOUR, table=TABLE)
    assert [event for event in later.events if event.reason == Reason.INVALID_PRICE] == []


def test_rubbish_that_would_not_count_anyway_is_not_complained_of() -> None:
    for spec, node in ((make_spec(), told("cheap")), (BARE, told("1.5")), (BARE, make_node())):
        decision = step(make_observation(spec=spec, status=fresh(), nodes={"spot-a": node}))
        assert [event for event in decision.events if event.reason == Reason.INVALID_PRICE] == []


# --- each second at its own price ---------------------------------------------------------------


@given(
    prices=st.lists(st.decimals(min_value=0, max_value=1000, places=4), min_size=1, max_size=4),
    looks=st.lists(
        st.tuples(st.integers(min_value=1, max_value=20_000), st.booleans()), min_size=1, max_size=8
    ),
)
def test_spent_is_the_sum_over_the_nodes_whoever_looked_and_whatever_was_written(
    prices: list[Decimal], looks: list[tuple[int, bool]]
) -> None:
    """A look whose status was not written, or an operator that is restarted, changes nothing."""
    status, begun, expected = make_status(gang=None), NOW, Decimal(0)
    for number, price in enumerate(prices):
        uid = f"node-{number}"
        gang = make_gang(
            ON_DEMAND if number % 2 else SPOT,
            pods=(unread(scheduled_time=begun),),
            created_time=begun,
            accounted_until=None,
        )
        status, now = replace(status, gang=gang), begun
        node = told(f"{price:.4f}", uid=uid)
        for after, is_written in [*looks, (1, True)]:
            now += timedelta(milliseconds=after)
            capacity = replace(make_status().capacity, type=gang.capacity_type)  # type: ignore[type-var]
            observation = make_observation(
                spec=BARE, status=replace(status, capacity=capacity), nodes={"spot-a": node}
            )
            seen, gang_seen = account(_draft(observation, now), status.gang or gang, now)
            # The first look reads the node's UID, as `refresh_gang` does.
            gang_seen = replace(gang_seen, pods=(replace(gang_seen.pods[0], node_uid=uid),))
            if is_written:
                status = status_from_json(status_to_json(replace(seen, gang=gang_seen)))
        expected += Decimal(str((now - begun).total_seconds())) * price / 3600
        begun = now + seconds(5)
    found = sum_up(_draft(make_observation(spec=BARE, status=status), begun))
    assert found.spent is not None
    assert abs(found.spent - expected) <= Decimal("0.00006")


def _draft(observation: Observation, now: datetime, table: PriceTable | None = None) -> Draft:
    assert isinstance(observation.spec, JobSpec)
    return Draft(
        observation=observation,
        spec=observation.spec,
        now=now,
        settings=PolicySettings(prices=table or {}),
        status=observation.status,
    )


def test_two_incarnations_on_two_nodes_are_paid_for_at_two_prices() -> None:
    """The whole way through `decide`: a stop, a hand-over to a dearer node, and the end of the first."""
    table = TABLE
    nodes = {"spot-a": of_type("small"), "spot-b": of_type("large", name="spot-b", uid="b")}
    first = step(
        make_observation(spec=BARE, status=fresh(), nodes=nodes), after=HOUR - 99, table=table
    ).status
    assert first.gang is not None
    stopping = replace(
        first.gang, stop=Stop(reason=StopReason.NODE_SIGNAL, time=NOW + seconds(HOUR), message="x")
    )
    second = replace(
        make_gang(incarnation=2, accounted_until=None, created_time=NOW + seconds(HOUR - 99)),
        pods=(
            unread(
                name="digits-0c5e1-2-0", uid="2", node_name="spot-b", scheduled_time=NOW + seconds(HOUR - 99)
            ),
        ),
    )
    pods = (
        make_pod(deletion_timestamp=NOW + seconds(HOUR + 200), deletion_grace_seconds=120),
        make_pod(name="digits-0c5e1-2-0", uid="2", incarnation=2, node_name="spot-b"),
    )
    both = step(
        make_observation(
            spec=BARE, status=replace(first, predecessor=stopping, gang=second), pods=pods, nodes=nodes
        ),
        after=2 * HOUR - 99,
        table=table,
    ).status
    assert both.predecessor is not None
    assert both.cost.spot_node_seconds == 3 * 3600
    assert both.cost.spent == Decimal("0.5") * 2 + Decimal("4")
    assert both.cost.on_demand_only == 3 * Decimal("8")  # the dearest that it runs on


def test_a_price_that_changes_counts_from_then_on() -> None:
    status = fresh()
    for after, price in ((HOUR - 99, "1.00"), (2 * HOUR - 99, "5.00"), (3 * HOUR - 99, "5.00")):
        observation = make_observation(spec=BARE, status=status, nodes={"spot-a": told(price)})
        status = step(observation, after=after).status
    assert status.cost.spent == Decimal("1") + Decimal("1") + Decimal("5")
    assert status.cost.spot_price == Decimal("5.00")


def test_a_price_that_is_withdrawn_stays_that_of_its_node() -> None:
    status = fresh()
    for after, node in ((HOUR - 99, told("1.00")), (2 * HOUR - 99, told("")), (3 * HOUR - 99, told("free"))):
        status = step(make_observation(spec=BARE, status=status, nodes={"spot-a": node}), after=after).status
    assert status.cost.spent == Decimal("3.0000")


def test_what_a_node_was_is_known_when_its_label_is_gone() -> None:
    status = fresh()
    for node in (of_type("small"), make_node()):
        status = step(make_observation(spec=BARE, status=status, nodes={"spot-a": node}), table=TABLE).status
    assert status.gang is not None
    record = status.gang.pods[0]
    assert (record.instance_type, record.price_per_node_hour) == ("small", Decimal("0.50"))
    assert status.cost.on_demand_price == Decimal("1.50")


def test_a_node_that_cannot_be_read_for_a_while_keeps_its_price() -> None:
    known = step(make_observation(spec=BARE, status=fresh(), nodes={"spot-a": told("1.00")}), table=TABLE)
    observation = make_observation(spec=BARE, status=known.status, nodes={"spot-a": UNKNOWN})
    assert step(observation, after=HOUR - 99, table=TABLE).status.cost.spent == Decimal("1.0000")


def test_time_on_a_node_that_was_never_read_waits_for_its_price() -> None:
    waiting = step(make_observation(spec=BARE, status=fresh(), nodes={"spot-a": UNKNOWN}), after=1800).status
    assert waiting.cost.spot_node_seconds == 0
    assert waiting.gang is not None
    assert waiting.gang.accounted_until is None
    cost = one_hour_on(told("2.00"), status=waiting)
    assert (cost.spent, cost.spot_node_seconds) == (Decimal("2.0000"), 3600)


def test_time_on_a_node_that_was_never_read_is_counted_at_the_end() -> None:
    ended = make_ended_pod(75, finished_at=NOW + seconds(HOUR - 99))
    for spec, spent, unpriced in (
        (BARE, None, 3600.0),
        (make_spec(), Decimal("0.9700"), 0.0),
        (make_spec(spot=Pool(node_selector={LABEL_INSTANCE_TYPE: "small"})), Decimal("0.5000"), 0.0),
    ):
        observation = make_observation(spec=spec, status=fresh(), nodes={"spot-a": UNKNOWN}, pods=(ended,))
        cost = step(observation, after=HOUR, table=TABLE).status.cost
        assert (cost.spot_node_seconds, cost.spent, cost.unpriced_spot_node_seconds) == (
            3600,
            spent,
            unpriced,
        )


def test_a_node_that_is_gone_costs_nothing_more_and_what_it_cost_is_known() -> None:
    known = step(make_observation(spec=BARE, status=fresh(), nodes={"spot-a": told("1.00")})).status
    gone = GoneNode(view=told("1.00"), gone_time=NOW + seconds(HOUR - 99), signal_time=None)
    observation = make_observation(
        spec=BARE, status=known, nodes={"spot-a": None}, gone_nodes={"node-uid-a": gone}
    )
    cost = step(observation, after=5 * HOUR).status.cost
    assert (cost.spent, cost.spot_node_seconds) == (Decimal("1.0000"), 3600)


def test_a_node_that_is_gone_costs_nothing_however_long_its_pod_is_waited_for() -> None:
    """A container that does not claim is waited for until its machine is surely off."""
    status, counted = make_status(claims=False), []
    for after in (5, 60, 90):
        observation = make_observation(status=status, nodes={"spot-a": None})
        status = step(observation, after=after).status
        assert status.gang is not None
        assert status.gang.incarnation == 1
        counted.append(status.cost.spot_node_seconds)
    assert counted == [5.0, 5.0, 5.0]


def test_a_node_that_went_unread_tells_its_price_from_the_journal() -> None:
    status = make_status(gang=make_gang(accounted_until=None))  # its UID was read by an earlier version
    gone = GoneNode(view=told("1.00"), gone_time=NOW + seconds(HOUR - 99), signal_time=None)
    observation = make_observation(
        spec=BARE, status=status, nodes={"spot-a": None}, gone_nodes={"node-uid-a": gone}
    )
    assert step(observation, after=HOUR).status.cost.spent == Decimal("1.0000")


def test_a_machine_that_is_registered_again_goes_on_to_cost() -> None:
    gang = make_gang(pods=(replace(make_gang().pods[0], node_gone_time=NOW),))
    observation = make_observation(status=make_status(gang=gang), nodes={"spot-a": make_node(uid="new")})
    assert step(observation, after=HOUR).status.cost.spot_node_seconds == 3600


@pytest.mark.parametrize("is_departed", [False, True])
def test_a_pod_that_ended_while_nobody_looked_costs_until_its_end(is_departed: bool) -> None:
    ended = make_ended_pod(1, finished_at=NOW + seconds(HOUR - 99))
    observation = make_observation(
        status=fresh(), pods=() if is_departed else (ended,), departed=(ended,) if is_departed else ()
    )
    cost = step(observation, after=9 * HOUR).status.cost
    assert (cost.spot_node_seconds, cost.spent) == (3600, Decimal("0.9700"))


def test_a_pod_that_was_never_bound_costs_nothing() -> None:
    record = PodRecord(name="digits-0c5e1-1-0", rank=0, uid=POD_UID)
    pending = make_pod(node_name=None, phase="Pending", conditions=(), trainer=ContainerView())
    status = make_status(gang=make_gang(pods=(record,), accounted_until=None))
    found = step(make_observation(status=status, pods=(pending,), nodes={}), after=HOUR).status
    assert found.gang is not None
    assert found.gang.pods[0].price_per_node_hour is None
    cost = found.cost
    assert (cost.spot_node_seconds, cost.spent, cost.unpriced_spot_node_seconds) == (0, Decimal("0.0000"), 0)


def test_a_price_that_the_job_names_later_counts_for_what_had_none() -> None:
    status = step(make_observation(spec=BARE, status=fresh()), after=HOUR - 99).status
    assert status.cost.spent is None
    half = replace(BARE, on_demand=Pool(price_per_node_hour=Decimal("3")))
    assert step(make_observation(spec=half, status=status), after=HOUR - 99).status.cost.spent is None
    status = step(make_observation(status=status), after=2 * HOUR - 99).status
    assert (status.cost.spent, status.cost.unpriced_spot_node_seconds) == (Decimal("1.9400"), 0.0)
    again = step(make_observation(status=status), after=2 * HOUR - 99).status
    assert again.cost == status.cost


def test_unpriced_time_on_on_demand_is_told_apart() -> None:
    gang = make_gang(ON_DEMAND, accounted_until=NOW)
    observation = make_observation(spec=BARE, status=make_status(gang=gang))
    status, _ = account(_draft(observation, NOW + seconds(HOUR)), gang, NOW + seconds(HOUR))
    cost = status.cost
    assert (cost.unpriced_on_demand_node_seconds, cost.unpriced_spot_node_seconds) == (3600, 0)
    assert sum_up(_draft(make_observation(spec=BARE, status=status), NOW)).spent is None
    priced = replace(BARE, on_demand=Pool(price_per_node_hour=Decimal("3")))
    cost = sum_up(_draft(make_observation(spec=priced, status=status), NOW))
    assert (cost.spent, cost.unpriced_on_demand_node_seconds) == (Decimal("3.0000"), 0)


@pytest.mark.parametrize(
    ("before", "spent"),
    [
        (Cost(spot_node_seconds=3600.0, spent=Decimal("0.4000")), Decimal("1.3700")),
        (Cost(spot_node_seconds=3600.0), Decimal("1.9400")),
    ],
    ids=["priced", "unpriced"],
)
def test_what_an_earlier_version_has_written_goes_on(before: Cost, spent: Decimal) -> None:
    observation = make_observation(status=make_status(cost=before))
    assert step(observation, after=HOUR).status.cost.spent == spent
    assert one_hour_on(make_node(), status=fresh(cost=replace(before, spent=None))).spent is None


def test_many_small_sums_do_not_drift() -> None:
    status = make_status()
    for number in range(1, 1001):
        gang = status.gang
        assert gang is not None
        until = NOW + seconds(10 * number)
        status, gang = account(_draft(make_observation(status=status), until), gang, until)
        status = replace(status_from_json(status_to_json(replace(status, gang=gang))))
    assert status.cost.spot_node_seconds == 10_000
    exact = Decimal("0.97") * 10_000 / 3600
    assert status.cost.accrued is not None
    assert abs(status.cost.accrued - exact) < Decimal("0.00001")


# --- what is known of prices before there is a node ----------------------------------------------


def pool(*terms: dict[str, Any], **selector: str) -> Pool:
    return Pool(node_selector=selector, node_affinity_terms=terms)


def term(*types: str, key: str = LABEL_INSTANCE_TYPE, operator: str = "In") -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(types)}]}


@pytest.mark.parametrize(
    ("spot", "price"),
    [
        (pool(**{LABEL_INSTANCE_TYPE: "small"}), "0.50"),
        (pool(term("small", "large")), "4"),
        (pool(term("small"), term("large")), "4"),
        (pool(term("small"), term("small", key="zone")), None),  # the second term lets in any
        (pool(term("small", "unheard-of")), None),
        (pool(term("small", operator="NotIn")), None),
        (pool({}), None),
        (pool(), None),
    ],
)
def test_instance_types_that_a_pool_names_have_a_price(spot: Pool, price: str | None) -> None:
    found = price_by_selector(SPOT, make_spec(spot=spot), TABLE)
    assert found == (None if price is None else Decimal(price))


def test_a_template_that_names_the_instance_type_names_it_for_both() -> None:
    template = {"spec": {"nodeSelector": {LABEL_INSTANCE_TYPE: "small"}}}
    spec = replace(BARE, template=template)
    assert [price_by_selector(each, spec, TABLE) for each in (SPOT, ON_DEMAND)] == [
        Decimal("0.50"), Decimal("1.50"),
    ]  # fmt: skip
    assert (
        price_by_selector(ON_DEMAND, replace(spec, on_demand=pool(**{LABEL_INSTANCE_TYPE: "odd"})), TABLE)
        is None
    )


def test_the_best_that_is_known_of_a_price() -> None:
    """In turn: the job; its nodes; what its pods ask for; what its nodes are; what was known last."""
    record = replace(make_gang().pods[0], instance_type="large")
    priced = replace(record, price_per_node_hour=Decimal("2"))
    memory = Cost(spot_price=Decimal("0.1"), on_demand_price=Decimal("0.3"))
    named = make_spec(spot=pool(term("small")), on_demand=pool(term("small")))

    def known(spec: JobSpec, *records: PodRecord, **changes: Any) -> tuple[Decimal | None, ...]:
        gang = make_gang(pods=records) if records else None
        status = make_status(**({"gang": gang, "cost": memory} | changes))
        return tuple(known_price(each, spec, status, TABLE) for each in CapacityType)

    assert known(make_spec(), priced) == (Decimal("0.97"), Decimal("3.06"))
    assert known(named, priced) == (Decimal("2"), Decimal("1.50"))
    assert known(named, record) == (Decimal("0.50"), Decimal("1.50"))
    assert known(BARE, record) == (Decimal("4"), Decimal("8"))
    assert known(BARE, priced, replace(priced, price_per_node_hour=Decimal("3"))) == (
        Decimal("3"),
        Decimal("8"),
    )
    assert known(BARE) == (Decimal("0.1"), Decimal("0.3"))
    assert known(BARE, cost=Cost()) == (None, None)
    before = make_gang(ON_DEMAND, pods=(replace(record, price_per_node_hour=Decimal("6")),))
    assert known(BARE, priced, predecessor=before) == (Decimal("2"), Decimal("6"))


def test_prices_that_nodes_told_are_remembered_when_they_are_gone() -> None:
    status = step(make_observation(spec=BARE, status=fresh(), nodes={"spot-a": told("1.25")})).status
    ended = make_ended_pod(75, outcome=make_outcome(OutcomeKind.STOPPED, "Asked", checkpoint=5))
    after = step(make_observation(spec=BARE, status=status, pods=(ended,)), after=60).status
    assert after.cost.spot_price == Decimal("1.25")
    assert status_from_json(status_to_json(after)).cost.spot_price == Decimal("1.25")


# --- what it will have cost -----------------------------------------------------------------------

WORK = Progress(step=3100, total_steps=10_000, durable_step=2800, steps_per_second=1.0, reported_time=NOW)
LEFT = Decimal(7200)


def running(capacity_type: CapacityType = SPOT, **changes: Any) -> JobStatus:
    gang = make_gang(capacity_type, **changes)
    gang = replace(gang, pods=tuple(replace(each, working_time=NOW) for each in gang.pods))
    return make_status(gang=gang, progress=WORK)


def projected(status: JobStatus, spec: JobSpec | None = None, **changes: Any) -> Decimal | None:
    observation = make_observation(status=status, spec=spec or make_spec(), **changes)
    return sum_up(_draft(observation, NOW, TABLE)).projected


def money(price: str, node_seconds: Decimal | int) -> Decimal:
    return (Decimal(price) * node_seconds / 3600).quantize(Decimal("0.0001"))


def test_what_runs_is_projected_by_the_work_that_is_left() -> None:
    assert projected(running()) == money("0.97", LEFT)
    assert projected(running(ON_DEMAND)) == money("3.06", LEFT)
    spent = replace(
        running(), cost=Cost(spot_node_seconds=3600.0, accrued=Decimal("0.5"), spent=Decimal("0.5"))
    )
    assert projected(spent) == money("0.97", LEFT) + Decimal("0.5")


def test_the_price_of_the_node_in_use_goes_before_that_of_others() -> None:
    record = replace(make_gang().pods[0], price_per_node_hour=Decimal("2"))
    assert projected(running(pods=(record,))) == money("2", LEFT)


def test_every_pod_of_the_gang_is_paid_for() -> None:
    one = make_gang().pods[0]
    two = replace(one, name="b", rank=1, price_per_node_hour=Decimal("2"))
    assert projected(running(pods=(one, two))) == money("2.97", LEFT)
    # Of a node that nothing is told of, the other says what one usually costs.
    assert projected(running(pods=(one, two)), BARE) == money("4", LEFT)
    assert projected(running(pods=(one, replace(one, name="b", rank=1))), BARE) is None


def test_what_starts_needs_the_rest_of_its_launch() -> None:
    starting = make_status(progress=WORK)  # created 100 s ago; a launch takes 180 s
    assert projected(starting) == money("0.97", LEFT + 80)
    bound = (replace(make_gang().pods[0], scheduled_time=NOW - seconds(900)),)
    late = make_status(progress=WORK, gang=make_gang(created_time=NOW - seconds(1000), pods=bound))
    assert projected(late) == money("0.97", LEFT)


@pytest.mark.parametrize(("waited", "left"), [(170, 10), (190, 180)])
def test_a_wait_for_spot_is_no_part_of_a_launch(waited: int, left: int) -> None:
    record = PodRecord(name="digits-0c5e1-1-0", rank=0, uid=POD_UID)
    gang = make_gang(created_time=NOW - seconds(waited), pods=(record,), accounted_until=None)
    assert projected(make_status(progress=WORK, gang=gang)) == money("0.97", LEFT + left)
    came = replace(record, node_name="spot-a", scheduled_time=NOW)
    assert projected(make_status(progress=WORK, gang=replace(gang, pods=(came,)))) == money(
        "0.97", LEFT + left
    )
    on_demand = make_status(progress=WORK, gang=replace(gang, capacity_type=ON_DEMAND))
    assert projected(on_demand) == money("3.06", LEFT + max(0, 180 - waited))


@pytest.mark.parametrize(
    "gang", [None, make_gang(stop=Stop(reason=StopReason.SUSPENDED, time=NOW, message="x"))]
)
def test_what_does_not_run_needs_a_whole_launch_on_the_chosen_capacity(gang: Any) -> None:
    status = make_status(gang=gang, progress=WORK)
    assert projected(status) == money("0.97", LEFT + 180)
    moved = replace(status, capacity=CapacityStatus(type=ON_DEMAND, since=NOW, reason=Reason.DEADLINE_NEAR))
    assert projected(moved) == money("3.06", LEFT + 180)
    assert projected(replace(status, capacity=None)) is None


def test_launches_are_as_long_as_they_were_here_and_elsewhere() -> None:
    own = Overheads(spot=Launches().and_one(400.0), on_demand=Launches().and_one(40.0))
    known = Overheads(spot=Launches().and_one(200.0))
    status = make_status(gang=None, progress=WORK, overheads=own)
    assert projected(status, known_overheads=known) == money("0.97", LEFT + 300)
    capacity = CapacityStatus(type=ON_DEMAND, since=NOW, reason=Reason.DEADLINE_NEAR)
    assert projected(replace(status, capacity=capacity)) == money("3.06", LEFT + 40)


def test_while_a_successor_asks_for_spot_on_demand_goes_on_to_cost() -> None:
    before = running(ON_DEMAND).gang
    assert before is not None
    beside = replace(running(), predecessor=before, gang=make_gang(incarnation=2, is_beside=True))
    assert projected(beside) == money("3.06", LEFT)


@pytest.mark.parametrize(
    "status",
    [
        replace(running(), progress=Progress()),
        replace(running(), progress=replace(WORK, steps_per_second=0.001, total_steps=10**15)),
        replace(running(), cost=Cost(accrued=Decimal(1), unpriced_on_demand_node_seconds=5.0)),
    ],
    ids=["work", "for ever", "spent"],
)
def test_what_is_not_known_is_not_projected(status: JobStatus) -> None:
    spec = replace(make_spec(), on_demand=Pool())
    assert projected(status, spec) is None


def test_when_it_is_over_it_has_cost_what_was_spent() -> None:
    ended = make_ended_pod(0, outcome=make_outcome(OutcomeKind.COMPLETE, "Done"))
    status = replace(running(accounted_until=NOW - seconds(80)), progress=WORK)
    decision = step(make_observation(status=status, pods=(ended,)))
    cost = decision.status.cost
    assert cost.projected == cost.spent == money("0.97", 79)
    assert cost.saved == (cost.on_demand_only or 0) - (cost.spent or 0)
    assert cost.saved > 0


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (make_spec(), "; cost 0.9700, 2.0900 (68%) less than on on-demand alone"),
        (replace(make_spec(), on_demand=Pool()), "; cost 0.9700"),
        (replace(make_spec(), on_demand=Pool(price_per_node_hour=Decimal("0.97"))), "; cost 0.9700"),
        (replace(make_spec(), on_demand=Pool(price_per_node_hour=Decimal("0.50"))), "; cost 0.9700"),
        (BARE, "; cost not known: 3600 s of node time have no price"),
    ],
)
def test_the_end_says_what_it_has_cost(spec: JobSpec, words: str) -> None:
    done = make_ended_pod(
        0, outcome=make_outcome(OutcomeKind.COMPLETE, "Done"), finished_at=NOW + seconds(HOUR - 99)
    )
    decision = step(make_observation(spec=spec, status=fresh(), pods=(done,)), after=HOUR)
    (event,) = [each for each in decision.events if each.reason == Reason.COMPLETED]
    assert event.message.startswith(f"completed after 1 incarnations, 0 interruptions{words} (")
    assert decision.status.message.endswith(words)


def test_money_and_rates_alone_are_not_worth_a_write() -> None:
    old = make_status(predecessor=make_gang(incarnation=0))
    assert old.gang is not None
    assert old.predecessor is not None
    new = replace(
        old,
        cost=Cost(
            spent=Decimal(1),
            projected=Decimal(2),
            saved=Decimal(3),
            accrued=Decimal(1),
            spot_price=Decimal(1),
        ),
        interruption_rate=InterruptionRate(zones=(ZoneInterruptions(zone="a", node_seconds=5.0),)),
        gang=replace(old.gang, accounted_until=NOW + seconds(5)),
        predecessor=replace(old.predecessor, accounted_until=NOW + seconds(5)),
    )
    assert compare(old, new) is Change.NOTHING
    priced = replace(old.gang, pods=(replace(old.gang.pods[0], price_per_node_hour=Decimal(1)),))
    assert compare(old, replace(old, gang=priced)) is Change.PROGRESS  # written, at a bounded rate


def test_a_look_that_finds_only_that_time_went_by_writes_nothing() -> None:
    before = step(make_observation(status=running())).status
    later = step(make_observation(status=before), after=30).status
    assert later.cost.projected != before.cost.projected
    assert compare(before, later) is Change.NOTHING


def test_a_termination_without_a_time_is_paid_for_until_it_is_seen() -> None:
    view = ContainerView(terminated=ContainerTermination(exit_code=1))
    ended = make_pod(phase="Failed", trainer=view)
    cost = step(make_observation(status=fresh(), pods=(ended,)), after=HOUR - 99).status.cost
    assert cost.spot_node_seconds == 3600


@pytest.mark.parametrize("kind", [OutcomeKind.COMPLETE, OutcomeKind.FAILED])
def test_the_time_of_the_other_gang_is_not_free_when_the_job_ends(kind: OutcomeKind) -> None:
    """The successor's node could never be read, so its time had waited for a price until then."""
    hour = NOW - seconds(HOUR)
    waits = PodRecord(
        name="digits-0c5e1-2-0", rank=0, uid="uid-2", node_name="n2", scheduled_time=hour, started_time=hour
    )
    successor = make_gang(
        incarnation=2, created_time=hour, pods=(waits,), hands_over_from=1, accounted_until=None
    )
    stop = Stop(reason=StopReason.NODE_SIGNAL, time=NOW - seconds(5), message="x")
    status = make_status(incarnation=2, predecessor=make_gang(stop=stop), gang=successor)
    code = 0 if kind is OutcomeKind.COMPLETE else 78
    first = make_ended_pod(code, outcome=make_outcome(kind, "Done"))
    second = make_pod(name=waits.name, uid="uid-2", incarnation=2, node_name="n2")
    bare = make_spec(spot=Pool(), on_demand=Pool())
    nodes = {"spot-a": make_node(), "n2": UNKNOWN}
    decision = step(make_observation(spec=bare, status=status, pods=(first, second), nodes=nodes))
    assert decision.status.phase in ("Complete", "Failed")
    assert decision.status.cost.unpriced_spot_node_seconds >= HOUR
