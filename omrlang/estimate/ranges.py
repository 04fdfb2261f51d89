"""Ranges with an origin, and arithmetic on them that keeps the weakest origin and what a number was made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Literal, TypeAlias

from omrlang.plan import Estimate, Money, Origin

End: TypeAlias = Literal["lo", "mid", "hi"]

STRENGTH: tuple[Origin, ...] = (
    "measured",
    "calibrated",
    "formula",
    "declared",
    "assumed",
    "unknown",
)
"""Strongest first: a number is as good as the worst that it was made of."""


def exact(value: float, unit: str, origin: Origin, formula: str = "") -> Estimate:
    """A number without a range."""
    return Estimate(lo=value, mid=value, hi=value, unit=unit, origin=origin, formula=formula)


def between(
    lo: float, mid: float, hi: float, unit: str, origin: Origin, formula: str = ""
) -> Estimate:
    return Estimate(lo=lo, mid=mid, hi=hi, unit=unit, origin=origin, formula=formula)


def unknown(unit: str, why: str) -> Estimate:
    """Unknown is not zero; ``why`` stands where a formula would."""
    return Estimate(lo=None, mid=None, hi=None, unit=unit, origin="unknown", formula=why)


def weakest(origins: Iterable[Origin]) -> Origin:
    """
    >>> weakest(["measured", "assumed", "formula"])
    'assumed'
    """
    return max(origins, key=STRENGTH.index)


def derive(
    unit: str,
    formula: str,
    rule: Callable[..., float],
    *,
    falling: Iterable[str] = (),
    **inputs: Estimate,
) -> Estimate:
    """``rule`` of the inputs, end by end. ``falling`` names inputs that make the result smaller as they grow."""
    return derive_from(unit, formula, rule, inputs, frozenset(falling))


def derive_from(
    unit: str,
    formula: str,
    rule: Callable[..., float],
    inputs: Mapping[str, Estimate],
    falling: frozenset[str] = frozenset(),
) -> Estimate:
    """As ``derive``, with the inputs in a mapping."""
    listed = tuple((name, amount(item), item.origin) for name, item in inputs.items())
    missing = [item for item in inputs.values() if item.mid is None]
    if missing:
        return Estimate(
            lo=None,
            mid=None,
            hi=None,
            unit=unit,
            origin="unknown",
            formula=missing[0].formula,
            inputs=listed,
        )
    ends = [
        rule(
            **{
                name: _end(item, OTHER_END[end] if name in falling else end)
                for name, item in inputs.items()
            }
        )
        for end in ENDS
    ]
    origin = _combined([item.origin for item in inputs.values()])
    return Estimate(
        lo=ends[0],
        mid=ends[1],
        hi=ends[2],
        unit=unit,
        origin=origin,
        formula=formula,
        inputs=listed,
    )


def _combined(origins: list[Origin]) -> Origin:
    """As good as the worst input; a formula that a measured neighbour scales is calibrated."""
    worst = weakest(["formula", *origins])
    return "calibrated" if worst == "formula" and "calibrated" in origins else worst


ENDS: tuple[End, ...] = ("lo", "mid", "hi")
OTHER_END: dict[End, End] = {"lo": "hi", "mid": "mid", "hi": "lo"}


def _end(item: Estimate, end: End) -> float:
    value = item.lo if end == "lo" else item.mid if end == "mid" else item.hi
    assert value is not None, "a known number has all three ends"
    return value


def total(unit: str, formula: str, items: Iterable[Estimate]) -> Estimate:
    """The sum of those that are known, end by end; zero of nothing."""
    listed = list(items)
    known = [item for item in listed if item.mid is not None]
    if listed and not known:
        return unknown(unit, "no part of it is known")
    lo, mid, hi = (sum(_end(item, end) for item in known) for end in ENDS)
    origin: Origin = weakest(item.origin for item in known) if known else "formula"
    return between(lo, mid, hi, unit, origin, formula)


def added(unit: str, formula: str, inputs: Mapping[str, Estimate]) -> Estimate:
    """The sum, unknown if any part is."""
    return derive_from(unit, formula, lambda **values: sum(values.values()), inputs)


def money(hours: Estimate, usd_per_hour: float | None, price: str) -> Money:
    """Hours times a price. ``price`` says whose and of when."""
    if hours.mid is None or hours.lo is None or hours.hi is None or usd_per_hour is None:
        why = hours.formula if hours.mid is None else "no price is declared"
        return Money(lo=None, mid=None, hi=None, origin="unknown", formula=why)
    cents = [
        (Decimal(str(end)) * Decimal(str(usd_per_hour))).quantize(Decimal("0.01"))
        for end in (hours.lo, hours.mid, hours.hi)
    ]
    inputs = (("gpu_hours", amount(hours), hours.origin), ("price", price, "declared"))
    origin = weakest([hours.origin, "declared"])
    return Money(
        lo=cents[0],
        mid=cents[1],
        hi=cents[2],
        origin=origin,
        formula="GPU-hours x price",
        inputs=inputs,
    )


def scaled(item: Estimate, share: float) -> Estimate:
    """A part of a number, by a known share."""
    return derive(item.unit, f"{share:.0%} of it", lambda item: item * share, item=item)


def scaled_money(item: Money, share: float) -> Money:
    """A part of a price, by a known share."""
    part = Decimal(str(round(share, 9)))
    cut: dict[str, Decimal | None] = {
        end: None
        if (value := getattr(item, end)) is None
        else (value * part).quantize(Decimal("0.01"))
        for end in ENDS
    }
    return item.model_copy(update={**cut, "formula": f"{share:.0%} of {item.formula}"})


def free(why: str) -> Money:
    """Nothing is rented."""
    zero = Decimal("0.00")
    return Money(lo=zero, mid=zero, hi=zero, origin="formula", formula=why)


def total_money(items: Iterable[Money]) -> Money:
    """The sum of those that are known, end by end; zero of nothing."""
    listed = list(items)
    known = [item for item in listed if item.mid is not None]
    if listed and not known:
        return Money(lo=None, mid=None, hi=None, origin="unknown", formula="no part of it is known")
    lo, mid, hi = (sum((getattr(item, end) for item in known), Decimal("0.00")) for end in ENDS)
    origin = weakest(item.origin for item in known) if known else "formula"
    return Money(lo=lo, mid=mid, hi=hi, origin=origin, formula="sum over stages")


def amount(item: Estimate) -> str:
    """A number with its unit, for a list of inputs."""
    if item.mid is None:
        return "unknown"
    return f"{item.mid:,.6g} {item.unit}".strip()
