"""Ranges with an origin, and arithmetic on them that keeps the weakest origin and what a number was made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Literal, TypeAlias

from omrlang.plan import Estimate, Input, Made, Money, Origin

End: TypeAlias = Literal["lo", "mid", "hi"]
Number: TypeAlias = Estimate | Money

STRENGTH: tuple[Origin, ...] = (
    "measured",
    "calibrated",
    "formula",
    "declared",
    "assumed",
    "unknown",
)
"""Strongest first: a number is as good as the worst that it was made of."""

CENT = Decimal("0.01")


def exact(value: float, unit: str, origin: Origin, formula: str = "") -> Estimate:
    """A number without a range."""
    return Estimate(lo=value, mid=value, hi=value, unit=unit, origin=origin, formula=formula)


def setting(value: float, unit: str, name: str) -> Estimate:
    """A setting of the recipe, as an input of a formula: what will be, so it is as good as a formula."""
    return exact(value, unit, "formula", f"`{name}` of the recipe")


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
    lo, mid, hi = _three_ends(rule, inputs, falling)
    missing = next((item.formula for item in inputs.values() if item.mid is None), None)
    made = Estimate(
        lo=lo,
        mid=mid,
        hi=hi,
        unit=unit,
        origin=_combined([item.origin for item in inputs.values()]),
        formula=formula if missing is None else missing,
        inputs=listed(inputs),
    )
    return made.made_by(Made(rule, inputs, falling))


def _three_ends(
    rule: Callable[..., float], inputs: Mapping[str, Estimate], falling: frozenset[str]
) -> tuple[float, float, float] | tuple[None, None, None]:
    """The rule at the low end, the middle and the high end; nothing where an input is unknown. Of a rule that goes up and
    down (tiles of an image) the range holds all three."""
    lows, mids, highs = {}, {}, {}
    for name, item in inputs.items():
        if item.lo is None or item.mid is None or item.hi is None:
            return None, None, None
        mids[name] = item.mid
        lows[name], highs[name] = (item.hi, item.lo) if name in falling else (item.lo, item.hi)
    lo, mid, hi = rule(**lows), rule(**mids), rule(**highs)
    return min(lo, mid, hi), mid, max(lo, mid, hi)


def listed(inputs: Mapping[str, Number]) -> tuple[Input, ...]:
    """What a number was made of, one level deep."""
    return tuple(
        Input(
            name=name,
            lo=_plain(item.lo),
            mid=_plain(item.mid),
            hi=_plain(item.hi),
            unit=item.unit,
            origin=item.origin,
            formula=item.formula,
        )
        for name, item in inputs.items()
    )


def _plain(end: float | Decimal | None) -> float | None:
    return float(end) if isinstance(end, Decimal) else end


def _combined(origins: list[Origin]) -> Origin:
    """As good as the worst input; a formula that a measured neighbour scales is calibrated."""
    worst = weakest(["formula", *origins])
    return "calibrated" if worst == "formula" and "calibrated" in origins else worst


def total(unit: str, formula: str, items: Mapping[str, Estimate]) -> Estimate:
    """The sum of those that are known, end by end; zero of nothing."""
    known = {name: item for name, item in items.items() if item.mid is not None}
    if items and not known:
        return unknown(unit, "no part of it is known")
    summed = added(unit, formula, known)
    origin: Origin = weakest(item.origin for item in known.values()) if known else "formula"
    return summed.model_copy(update={"origin": origin})


def added(unit: str, formula: str, inputs: Mapping[str, Estimate]) -> Estimate:
    """The sum, unknown if any part is."""
    return derive_from(unit, formula, _sum, inputs)


def _sum(**values: float) -> float:
    return sum(values.values())


def product(**values: float) -> float:
    """The rule of ``a x b x …``."""
    result = 1.0
    for value in values.values():
        result *= value
    return result


def ratio(unit: str, formula: str, part: Estimate, whole: Estimate) -> Estimate:
    """One number over another; zero over zero is zero."""

    def over(part: float, whole: float) -> float:
        return part / whole if whole else 0.0

    return derive(unit, formula, over, falling=["whole"], part=part, whole=whole)


def scaled(item: Estimate, share: float) -> Estimate:
    """A part of a number, by a known share."""
    part = exact(share, "", "formula", "share that counts")
    return derive(item.unit, f"{share:.0%} of it", product, whole=item, share=part)


# ---- dollars ---------------------------------------------------------------------------------------------------------


def dollars(item: Estimate) -> Money:
    """A number in USD as money: to the cent, with the inputs that it had."""
    lo, mid, hi = (
        None if end is None else Decimal(str(end)).quantize(CENT)
        for end in (item.lo, item.mid, item.hi)
    )
    found = Money(
        lo=lo, mid=mid, hi=hi, origin=item.origin, formula=item.formula, inputs=item.inputs
    )
    return found.made_by(item.made)


def as_estimate(item: Money) -> Estimate:
    """The same money as a number that can be counted with."""
    lo, mid, hi = (None if end is None else float(end) for end in (item.lo, item.mid, item.hi))
    found = Estimate(
        lo=lo, mid=mid, hi=hi, unit="USD", origin=item.origin, formula=item.formula, inputs=item.inputs
    )  # fmt: skip
    return found.made_by(item.made)


def scaled_money(item: Money, share: float) -> Money:
    """A part of a price, by a known share."""
    return dollars(scaled(as_estimate(item), share))


def free(why: str) -> Money:
    """Nothing is rented."""
    return dollars(exact(0.0, "USD", "formula", why))


def total_money(items: Mapping[str, Money]) -> Money:
    """The sum of those that are known, end by end; zero of nothing."""
    known = {name: as_estimate(item) for name, item in items.items()}
    return dollars(total("USD", "sum over stages", known))
