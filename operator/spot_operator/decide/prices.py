"""What nodes cost: by the job, else by the node's annotation, else by the chart's table.

The price of a node is kept in its pod's record, so that its time can be paid for when the node is gone.
Invariants: a price that was known is never forgotten for want of a newer one; what is not written as a
price is no price.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from decimal import Decimal

from spot_operator.decide.fates import node_of
from spot_operator.model import Gang, JobSpec, JobStatus, NodeView, Observation, PodRecord, Pool
from spot_operator.names import ANNOTATION_PRICE_PER_NODE_HOUR, LABEL_INSTANCE_TYPE, CapacityType
from spot_operator.prices import EXPECTED, PriceTable, parse_price


def with_prices(gang: Gang, spec: JobSpec, observation: Observation, table: PriceTable) -> Gang:
    """The gang with what the node of each of its pods costs now."""
    return replace(
        gang,
        pods=tuple(_priced(each, gang.capacity_type, spec, observation, table) for each in gang.pods),
    )


def with_first_prices(gang: Gang, priced: Gang) -> Gang:
    """`gang` with those prices of `priced` that it has not yet: what time until now is paid for by."""
    pods = zip(gang.pods, priced.pods, strict=True)
    return replace(gang, pods=tuple(old if old.price_per_node_hour is not None else new for old, new in pods))


def known_price(
    capacity_type: CapacityType,
    spec: JobSpec,
    status: JobStatus,
    table: PriceTable,
    *,
    is_memory_asked: bool = True,
) -> Decimal | None:
    """What a node of this capacity costs for an hour, as far as can be told before there is one.

    By the job; else by its nodes there now; else by the table, for the instance types that its pods ask
    for, else for those that it runs on now; else, if memory is asked, as it was known last. Of several the
    dearest.
    """
    is_spot = capacity_type is CapacityType.SPOT
    sources: tuple[Iterable[Decimal | None], ...] = (
        (pool_of(spec, capacity_type).price_per_node_hour,),
        _prices_now(status, capacity_type),
        (price_by_selector(capacity_type, spec, table),),
        _prices_of_types(status, capacity_type, table),
        ((status.cost.spot_price if is_spot else status.cost.on_demand_price) if is_memory_asked else None,),
    )
    for source in sources:
        if known := [price for price in source if price is not None]:
            return max(known)
    return None


def with_known_prices(status: JobStatus, spec: JobSpec, table: PriceTable) -> JobStatus:
    """Status that remembers what is known of prices, for when the nodes that told it are gone."""
    spot, on_demand = (known_price(each, spec, status, table) for each in CapacityType)
    return replace(status, cost=replace(status.cost, spot_price=spot, on_demand_price=on_demand))


def price_by_selector(capacity_type: CapacityType, spec: JobSpec, table: PriceTable) -> Decimal | None:
    """The dearest of the instance types that a pod may only go to; None: any of them has no price."""
    types = _selected_types(spec, pool_of(spec, capacity_type))
    prices = [_in_table(each, capacity_type, table) for each in types]
    known = [price for price in prices if price is not None]
    return max(known) if known and len(known) == len(prices) else None


def pool_of(spec: JobSpec, capacity_type: CapacityType) -> Pool:
    return spec.spot if capacity_type is CapacityType.SPOT else spec.on_demand


def price_complaint(node: NodeView) -> str:
    """What is wrong with the node's annotation; empty: nothing, or there is none."""
    text = node.price_annotation
    if not text or parse_price(text) is not None:
        return ""
    return (
        f"node {node.name}: annotation {ANNOTATION_PRICE_PER_NODE_HOUR}={text!r} is ignored; "
        f"expected {EXPECTED}"
    )


def _priced(
    record: PodRecord,
    capacity_type: CapacityType,
    spec: JobSpec,
    observation: Observation,
    table: PriceTable,
) -> PodRecord:
    if record.node_name is None:
        return record
    node = _seen(record, observation)
    if node is not None:
        record = replace(
            record, instance_type=record.instance_type or node.labels.get(LABEL_INSTANCE_TYPE) or None
        )
    price = pool_of(spec, capacity_type).price_per_node_hour
    if price is None and node is not None:
        price = parse_price(node.price_annotation)
        if price is None:
            price = _in_table(record.instance_type, capacity_type, table)
    return record if price is None else replace(record, price_per_node_hour=price)


def _in_table(instance_type: str | None, capacity_type: CapacityType, table: PriceTable) -> Decimal | None:
    entry = table.get(instance_type or "")
    return None if entry is None else entry.on(capacity_type)


def _seen(record: PodRecord, observation: Observation) -> NodeView | None:
    """The pod's node as it is, or as it was last seen."""
    node = node_of(record, None, observation)
    if isinstance(node, NodeView):
        return node
    gone = observation.gone_nodes.get(record.node_uid or "")
    return None if gone is None else gone.view


def _gangs(status: JobStatus) -> Iterator[Gang]:
    for gang in (status.gang, status.predecessor):
        if gang is not None:
            yield gang


def _prices_now(status: JobStatus, capacity_type: CapacityType) -> Iterator[Decimal | None]:
    for gang in _gangs(status):
        if gang.capacity_type is capacity_type:
            yield from (record.price_per_node_hour for record in gang.pods)


def _prices_of_types(
    status: JobStatus, capacity_type: CapacityType, table: PriceTable
) -> Iterator[Decimal | None]:
    for gang in _gangs(status):
        for record in gang.pods:
            yield _in_table(record.instance_type, capacity_type, table)


def _selected_types(spec: JobSpec, pool: Pool) -> frozenset[str]:
    """Instance types that the job or its pool names; empty: any."""
    template = (spec.template.get("spec") or {}).get("nodeSelector") or {}
    one = pool.node_selector.get(LABEL_INSTANCE_TYPE) or template.get(LABEL_INSTANCE_TYPE)
    if one:
        return frozenset({str(one)})
    found: set[str] = set()
    for term in pool.node_affinity_terms:
        named = [
            each.get("values") or ()
            for each in term.get("matchExpressions") or ()
            if each.get("key") == LABEL_INSTANCE_TYPE and each.get("operator") == "In"
        ]
        if not named:
            return frozenset()  # this term lets in any
        found.update(*named)
    return frozenset(found)
