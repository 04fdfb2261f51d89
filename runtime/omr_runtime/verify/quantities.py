"""A text to a number with its unit, in the notations that answers are written in. Exact: fractions, not floats."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_EXPONENT = 300

_ALIASES: dict[str, str] = {
    **dict.fromkeys(("centimeter", "centimetre"), "cm"),
    **dict.fromkeys(("millimeter", "millimetre"), "mm"),
    **dict.fromkeys(("kilometer", "kilometre"), "km"),
    **dict.fromkeys(("meter", "metre"), "m"),
    **dict.fromkeys(("inche", "inch", "inches"), "in"),
    **dict.fromkeys(("foot", "feet"), "ft"),
    **dict.fromkeys(("second", "sec"), "s"),
    **dict.fromkeys(("minute",), "min"),
    **dict.fromkeys(("hour", "hr"), "h"),
    **dict.fromkeys(("gram",), "g"),
    **dict.fromkeys(("kilogram",), "kg"),
    **dict.fromkeys(("pound", "lb"), "lb"),
    **dict.fromkeys(("ounce",), "oz"),
    **dict.fromkeys(("liter", "litre"), "l"),
    **dict.fromkeys(("milliliter", "millilitre"), "ml"),
    **dict.fromkeys(("degree", "\xb0", "deg"), "degree"),
    **dict.fromkeys(("percent", "per cent", "pct", "percentage", "%"), "%"),
    **dict.fromkeys(("dollar", "usd", "$"), "$"),
    **dict.fromkeys(("euro", "eur", "\u20ac"), "\u20ac"),
    "\xa3": "\xa3",
}
_UNITS = frozenset(_ALIASES.values()) | frozenset(
    [
        "yd",
        "yard",
        "mile",
        "mi",
        "ton",
        "tonne",
        "mg",
        "day",
        "week",
        "month",
        "year",
        "cent",
        "mph",
        "km/h",
        "m/s",
        "unit",
        "piece",
        "point",
        "am",
        "pm",
    ]
)
_NO_UNITS = frozenset(
    [
        "hundred",
        "thousand",
        "million",
        "billion",
        "trillion",
        "dozen",
        "half",
        "third",
        "quarter",
        "pi",
        "times",
        "plus",
        "minus",
        "over",
        "divided",
        "and",
        "or",
        "not",
        "to",
        "squared",
        "cubed",
        "factorial",
        "less",
        "more",
        "than",
        "pair",
        "percent",
    ]
)
"""Words that change a number's value or say that another one follows."""

_DIGITS = r"(?:\d{1,3}(?:(?:,\d{3})+|(?:\ \d{3})+)(?:\.\d+)?|\d+\.?\d*|\.\d+)"
_NUMBER = re.compile(
    rf"""(?P<sign>[+-]?)\s*(?P<currency>[$\u20ac\xa3])?\s*(?P<late_sign>-?)(?:
        (?P<whole>\d+)(?:\s+|(?=\\frac))(?:(?P<mn>\d+)\s*/\s*(?P<md>\d+)|\\frac\{{(?P<mln>\d+)\}}\{{(?P<mld>\d+)\}})
      | (?P<n>{_DIGITS})\s*/\s*(?P<d>{_DIGITS})
      | \\frac\{{\s*(?P<ln>[+-]?{_DIGITS})\s*\}}\{{\s*(?P<ld>{_DIGITS})\s*\}}
      | \\frac(?P<sn>\d)(?P<sd>\d)
      | (?P<mantissa>{_DIGITS})(?:[eE](?P<e>[+-]?\d+)
          |\s*(?:\\times|\\cdot|\xd7|\*)\s*10\s*\^\s*(?:\{{\s*(?P<bracedpower>[+-]?\d+)\s*\}}|(?P<power>[+-]?\d+)))?
    )(?P<rest>.*)""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_POWER = re.compile(r"\s*(?:\^\s*\{?\s*([23])\s*\}?|([\xb2\xb3]))$")
_SQUARE = re.compile(r"^(square|sq\.?|cubic|cu\.?)\s+")


@dataclass(frozen=True, slots=True)
class Number:
    """``places`` is how many decimals were written, None for a fraction; ``unit`` is canonical, empty without one."""

    value: Fraction
    places: int | None
    unit: str = ""


def number_of(text: str, question: str = "") -> Number | None:
    """The number that the text is, whole. A unit is a known one or words of the question.

    >>> number_of("3 1/2").value, number_of("$1,234.50").value, number_of("2x+1"), number_of("12 cm^2").unit
    (Fraction(7, 2), Fraction(2469, 2), None, 'cm^2')
    """
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        return None
    unit = _unit(found["rest"], question)
    value = _value(found)
    if unit is None or value is None:
        return None
    if found["currency"]:
        if unit not in ("", _ALIASES[found["currency"]]):
            return None
        unit = _ALIASES[found["currency"]]
    sign = -1 if "-" in (found["sign"], found["late_sign"]) else 1
    return Number(sign * value, _places(found), unit)


def _value(found: re.Match[str]) -> Fraction | None:
    """The number without its sign; None for a zero below a line or an exponent that is no answer."""
    part = found.groupdict()
    exponent = int(part["e"] or part["bracedpower"] or part["power"] or 0)
    if abs(exponent) > MAX_EXPONENT:
        return None
    whole = Fraction(int(part["whole"])) if part["whole"] else Fraction(0)
    for above, below in (("mn", "md"), ("mln", "mld"), ("n", "d"), ("ln", "ld"), ("sn", "sd")):
        if part[above] is not None:
            bottom = _decimal(part[below])
            return whole + _decimal(part[above]) / bottom if bottom else None
    return _decimal(part["mantissa"]) * Fraction(10) ** exponent


def _decimal(digits: str) -> Fraction:
    return Fraction(digits.replace(",", "").replace(" ", "").rstrip(".") or "0")


def _places(found: re.Match[str]) -> int | None:
    mantissa = found["mantissa"]
    if mantissa is None:
        return None
    return len(mantissa.partition(".")[2])


def _unit(rest: str, question: str) -> str | None:
    """The canonical unit, empty for none; None if what follows the number is not a unit."""
    words = rest.strip().casefold()
    if not words:
        return ""
    power = _POWER.search(words)
    shape = _SQUARE.match(words)
    name = _POWER.sub("", _SQUARE.sub("", words)).strip()
    canonical = _ALIASES.get(name) or _ALIASES.get(_singular(name)) or _singular(name)
    if canonical in _UNITS and (rest[0].isspace() or len(name) > 1 or not name.isalpha()):
        return canonical + _exponent(power, shape)
    if power is None and rest[0].isspace():
        return _words_of(name, question)
    return None


def _exponent(power: re.Match[str] | None, shape: re.Match[str] | None) -> str:
    if power:
        return "^" + {"\xb2": "2", "\xb3": "3"}.get(power[2], power[1] or "")
    if shape:
        return "^2" if shape[1].startswith("sq") else "^3"
    return ""


def _words_of(name: str, question: str) -> str | None:
    """One or two words that the question uses too: ``4 red apples``. The last one is the unit."""
    words = name.split()
    known = {_singular(word) for word in re.findall(r"[^\W\d_]+", question.casefold())}
    if not 1 <= len(words) <= 2:
        return None
    for word in words:
        if len(word) < 3 or _singular(word) not in known or _singular(word) in _NO_UNITS:
            return None
    return _singular(words[-1])


def _singular(word: str) -> str:
    for ending, new in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 1 and not word.endswith("ss"):
            return word[: -len(ending)] + new
    return word


def numbers_agree(truth: Number, given: Number) -> bool:
    """Equal in value, and in unit where both have one. ``10%`` agrees with ``10`` and with ``0.1``.

    >>> numbers_agree(number_of("1/3"), number_of("0.3333")), numbers_agree(number_of("5 km"), number_of("5 m"))
    (True, False)
    """
    if truth.unit and given.unit:
        return truth.unit == given.unit and _close(truth, given)
    if "%" in (truth.unit, given.unit):
        return _close(truth, given) or _close(_share(truth), _share(given))
    return _close(truth, given)


def _share(number: Number) -> Number:
    """A percentage as a fraction of one; any other number as it is."""
    if number.unit != "%":
        return number
    places = None if number.places is None else number.places + 2
    return Number(number.value / 100, places, number.unit)


def _close(left: Number, right: Number) -> bool:
    """Equal up to the noise of floats, or one is the other rounded to the four or more decimals written."""
    gap = abs(left.value - right.value)
    if gap <= max(abs(left.value), abs(right.value)) / 10**9:
        return True
    places = [n.places for n in (left, right) if n.places is not None]
    if len(places) != 1 or places[0] < 4:
        return False
    return gap <= Fraction(1, 2 * 10 ** places[0])
