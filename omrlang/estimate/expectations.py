"""What a stage must come out as, held against its estimates: limits that hold, may break, or break."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from omrlang.estimate.ranges import derive, exact, unknown
from omrlang.plan import Costs, Estimate
from omrlang.types import Expect, Limit

Verdict: TypeAlias = Literal["holds", "may break", "breaks", "unknown"]


def verdicts(expect: Expect | None, costs: Costs) -> Iterator[tuple[Limit, Estimate, Verdict]]:
    """Each limit with the number that it is about."""
    for limit in expect.limits if expect is not None else ():
        number = metric(limit, costs)
        yield limit, number, _verdict(limit, number)


def shown(number: Estimate) -> str:
    """``58.2% .. 61%`` of a share, ``1,000 .. 1,200 rows`` of a count."""
    known = [end for end in (number.lo, number.hi) if end is not None]
    scale, unit = (100.0, "%") if not number.unit else (1.0, f" {number.unit}")
    ends = dict.fromkeys(f"{end * scale:,.4g}" for end in known)
    return " .. ".join(ends) + unit


def metric(limit: Limit, costs: Costs) -> Estimate:
    """The number that a limit is about."""
    match limit.metric:
        case "rows":
            return costs.rows_out
        case "kept":
            return _ratio(costs.rows_out, costs.rows_in)
        case "share":
            part = costs.extra.get(f"from {limit.of}", unknown("rows", "no such part"))
            return _ratio(part, costs.rows_out)
        case "tokens":
            return costs.tokens
        case "seconds":
            return costs.seconds
        case "gpu_hours":
            return costs.gpu_hours
        case "usd":
            return _dollars(costs)
        case "steps" | "epochs" as name:
            return costs.extra.get(name, unknown("", f"this kind of stage has no {name}"))
        case "accuracy":
            return unknown("", "known when it has run")


def _ratio(part: Estimate, whole: Estimate) -> Estimate:
    return derive(
        "",
        "part / whole",
        lambda part, whole: part / whole if whole else 0.0,
        part=part,
        whole=whole,
    )


def _dollars(costs: Costs) -> Estimate:
    usd = costs.usd
    if usd.lo is None or usd.mid is None or usd.hi is None:
        return unknown("USD", usd.formula)
    middle = exact(float(usd.mid), "USD", usd.origin)
    return middle.model_copy(update={"lo": float(usd.lo), "hi": float(usd.hi)})


def _verdict(limit: Limit, number: Estimate) -> Verdict:
    """A range that lies outside whole breaks the limit; one that sticks out may."""
    if number.lo is None or number.hi is None:
        return "unknown"
    if limit.holds(number.lo) and limit.holds(number.hi):
        return "holds"
    below = limit.lo is not None and number.hi < limit.lo
    above = limit.hi is not None and number.lo > limit.hi
    at_edge = limit.strict and number.lo == number.hi
    return "breaks" if below or above or at_edge else "may break"
