"""Fitting tasks into what is offered: pure, shared by the built-in frameworks and anybody else's."""

from __future__ import annotations

from collections.abc import Sequence

from mesos_actor.actors.resources import Resource, Resources


def fill(
    available: Resources, wanted: Resources, ports: int, limit: int, fixed: Sequence[int] = ()
) -> tuple[list[Resources], Resources]:
    """The resources of as many tasks as fit, at most `limit`, and what is left of `available`.

    `wanted` holds scalars without a role; each task's own bundle names the roles its share is reserved for, as the
    offer does. `ports` so many port numbers are added to each, whichever they are, beside those that are `fixed`.
    Tasks without ports in an offer without reservations, the common case, all share one object.
    """
    if limit <= 0 or not wanted:
        return [], available
    if ports == 0 and not fixed and all(entry.role == "*" for entry in available.entries):
        count = min(limit, *(available.scalar(entry.name) // entry.scalar for entry in wanted.entries))
        if count <= 0:
            return [], available
        return [wanted] * count, available - times(wanted, count)
    bundles: list[Resources] = []
    while len(bundles) < limit:
        bundle = available.take(wanted)
        rest = available
        if bundle is not None and fixed:
            named = named_ports(available, fixed)
            bundle = bundle + named if named is not None else None
            rest = available - named if named is not None else rest
        if bundle is not None and ports:
            chosen = lowest_ports(rest, ports)
            bundle = bundle + chosen if chosen is not None else None
        if bundle is None:
            break
        bundles.append(bundle)
        available = available - bundle
    return bundles, available


def times(scalars: Resources, count: int) -> Resources:
    """`count` times a bundle of scalars."""
    return Resources(tuple(Resource(name=e.name, scalar=e.scalar * count, role=e.role) for e in scalars.entries))


def named_ports(available: Resources, numbers: Sequence[int]) -> Resources | None:
    """These port numbers, with their roles, or None when one of them is not on offer."""
    chosen: list[Resource] = []
    for number in numbers:
        holder = next(
            (
                entry
                for entry in available.entries
                if entry.name == "ports" and any(first <= number <= last for first, last in entry.ranges)
            ),
            None,
        )
        if holder is None:
            return None
        chosen.append(Resource(name="ports", ranges=((number, number),), role=holder.role))
    return Resources(tuple(chosen)).normalized()


def lowest_ports(available: Resources, count: int) -> Resources | None:
    """The `count` lowest port numbers on offer, with their roles, or None when there are fewer."""
    chosen: list[Resource] = []
    missing = count
    for entry in available.entries:
        if entry.name != "ports" or missing == 0:
            continue
        taken: list[tuple[int, int]] = []
        for first, last in entry.ranges:
            if missing == 0:
                break
            end = min(last, first + missing - 1)
            taken.append((first, end))
            missing -= end - first + 1
        chosen.append(Resource(name="ports", ranges=tuple(taken), role=entry.role))
    return Resources(tuple(chosen)) if missing == 0 else None


def port_numbers(resources: Resources) -> list[int]:
    """Every port number in the bundle, ascending."""
    return sorted(
        number
        for entry in resources.entries
        if entry.name == "ports"
        for first, last in entry.ranges
        for number in range(first, last + 1)
    )
