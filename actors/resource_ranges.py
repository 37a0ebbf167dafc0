"""Sets of whole numbers as closed ranges: canonical ones are sorted, disjoint and not adjacent.

Source of the meaning: Mesos src/common/values.cpp (`Value::Ranges`, kept as an interval set). Every function but
`canonical` and `error` expects canonical ranges and returns canonical ones, in linear time.
"""

from __future__ import annotations

from collections.abc import Iterable

Range = tuple[int, int]
Ranges = tuple[Range, ...]

MAX_RANGE_END = (1 << 64) - 1
"""Mesos keeps range bounds in a uint64."""
MAX_RANGES = 10_000
"""The most ranges one resource or attribute from outside may have."""


def canonical(ranges: Iterable[Range]) -> Ranges:
    """The same numbers, sorted and joined. Inverted ranges hold no number and vanish."""
    joined: list[Range] = []
    for begin, end in sorted(ranges):
        if begin > end:
            continue
        if joined and begin <= joined[-1][1] + 1:
            last_begin, last_end = joined[-1]
            joined[-1] = (last_begin, end if end > last_end else last_end)
        else:
            joined.append((begin, end))
    return tuple(joined)


def union(left: Ranges, right: Ranges) -> Ranges:
    """The numbers in either."""
    if left == right or not right:
        return left
    if not left:
        return right
    if len(left) == len(right) == 1:
        # By far the commonest: one block of ports given back to the rest of them.
        (first, last), (begin, end) = (left[0], right[0]) if left[0] <= right[0] else (right[0], left[0])
        return ((first, max(last, end)),) if begin <= last + 1 else ((first, last), (begin, end))
    return canonical(left + right)


def contains(outer: Ranges, inner: Ranges) -> bool:
    """Whether every number of `inner` is in `outer`."""
    if outer == inner:
        return True
    candidates = iter(outer)
    outer_begin, outer_end = 0, -1
    for begin, end in inner:
        while outer_end < end:
            following = next(candidates, None)
            if following is None:
                return False
            outer_begin, outer_end = following
        if begin < outer_begin:
            return False
    return True


def subtract(left: Ranges, right: Ranges) -> Ranges:
    """The numbers of `left` that are not in `right`."""
    if left == right:
        return ()
    rest: list[Range] = []
    position, count = 0, len(right)
    for begin, end in left:
        while position < count and right[position][1] < begin:
            position += 1
        here = position
        while here < count and right[here][0] <= end:
            cut_begin, cut_end = right[here]
            if begin < cut_begin:
                rest.append((begin, cut_begin - 1))
            begin = cut_end + 1
            here += 1
        if begin <= end:
            rest.append((begin, end))
    return tuple(rest)


def intersect(left: Ranges, right: Ranges) -> Ranges:
    """The numbers in both."""
    return subtract(left, subtract(left, right))


def lowest(ranges: Ranges, count: int) -> Ranges | None:
    """The `count` lowest numbers, or None when there are not so many."""
    picked: list[Range] = []
    for begin, end in ranges:
        if count <= 0:
            break
        taken = min(count, end - begin + 1)
        picked.append((begin, begin + taken - 1))
        count -= taken
    return None if count > 0 else tuple(picked)


def size(ranges: Ranges) -> int:
    """How many numbers."""
    return sum(end - begin + 1 for begin, end in ranges)


def error(ranges: Ranges) -> str | None:
    """Why these, from outside, are not canonical ranges of 64-bit numbers, or None when they are."""
    if len(ranges) > MAX_RANGES:
        return f"has {len(ranges)} ranges; at most {MAX_RANGES} are accepted"
    previous_end = -2
    for begin, end in ranges:
        if begin < 0 or end > MAX_RANGE_END:
            return f"has the range [{begin}-{end}]; bounds lie between 0 and {MAX_RANGE_END}"
        if begin > end:
            return f"has the range [{begin}-{end}], which ends before it begins"
        if begin <= previous_end + 1:
            return f"has the range [{begin}-{end}] unsorted, overlapping or adjacent to the one before it"
        previous_end = end
    return None
