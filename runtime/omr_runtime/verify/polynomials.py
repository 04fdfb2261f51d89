r"""Two texts to whether they are the same polynomial, exactly: sums and products of numbers, letters, roots and π.

Square roots of different squarefree numbers are linearly independent over the rationals (Besicovitch 1940), and π is
transcendental; so a sum of such terms has one form, and comparing forms decides. What is not plainly a polynomial is none
here and left to math-verify: functions, several letters in a row, mixed numbers, ``1/2x``, ``x^10`` without braces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, isqrt
from typing import TypeAlias

MAX_CHARACTERS = 200
MAX_EXPONENT = 20
MAX_TERMS = 200
MAX_RADICAND = 1_000_000

Monomial: TypeAlias = tuple[int, tuple[tuple[str, int], ...]]
"""The squarefree number under the root, and the letters with their exponents, in order."""
Polynomial: TypeAlias = dict[Monomial, Fraction]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<command>\\[a-zA-Z]+)|(?P<letters>[a-zA-Z]+)|(?P<mark>[-+*/^(){}π·×]))",
    re.ASCII,
)
_TIMES = ("*", "·", "×", "\\cdot", "\\times")
_NO_VARIABLES = frozenset("eidEI")
"""Letters that are mostly constants or signs of something else."""
_FUNCTION_NAMES = frozenset("fghFGH")


class NoPolynomial(Exception):
    """The text is something else, or too large to be worth it."""


def same_polynomial(truth: str, given: str) -> bool | None:
    """None where one of them is no polynomial, or where a decimal may stand for a root or π that it only approaches.

    >>> same_polynomial("x^2+3x+2", "(x+1)(x+2)"), same_polynomial("2\\\\sqrt{2}", "\\\\sqrt{8}"), same_polynomial("2", "2x+1")
    (True, True, False)
    """
    if max(len(truth), len(given)) > MAX_CHARACTERS:
        return None
    try:
        left, right = _read(truth), _read(given)
    except NoPolynomial:
        return None
    if left == right:
        return True
    rounded = "." in truth or "." in given
    return None if rounded and any(map(_is_irrational, (*left, *right))) else False


def _is_irrational(monomial: Monomial) -> bool:
    root, letters = monomial
    return root != 1 or any(letter == "π" for letter, _ in letters)


# ---- arithmetic ------------------------------------------------------------------------------------------------


def _constant(value: Fraction) -> Polynomial:
    return {(1, ()): value} if value else {}


def _sum(left: Polynomial, right: Polynomial, sign: int = 1) -> Polynomial:
    found = dict(left)
    for monomial, value in right.items():
        found[monomial] = found.get(monomial, Fraction(0)) + sign * value
    return _bounded(found)


def _bounded(found: Polynomial) -> Polynomial:
    if len(found) > MAX_TERMS:
        raise NoPolynomial
    return {monomial: value for monomial, value in found.items() if value}


def _product(left: Polynomial, right: Polynomial) -> Polynomial:
    if len(left) * len(right) > MAX_TERMS:
        raise NoPolynomial
    found: Polynomial = {}
    for (root, letters), value in left.items():
        for (other_root, other_letters), other in right.items():
            common = gcd(root, other_root)
            powers = dict(letters)
            for letter, exponent in other_letters:
                powers[letter] = powers.get(letter, 0) + exponent
            key = (root * other_root // common**2, tuple(sorted(powers.items())))
            found[key] = found.get(key, Fraction(0)) + value * other * common
    return _bounded(found)


def _power(base: Polynomial, exponent: int) -> Polynomial:
    found = _constant(Fraction(1))
    for _ in range(exponent):
        found = _product(found, base)
    return found


def _quotient(left: Polynomial, right: Polynomial) -> Polynomial:
    """By a number, or a number times a root."""
    if len(right) != 1:
        raise NoPolynomial
    ((root, letters), value) = next(iter(right.items()))
    if letters:
        raise NoPolynomial
    return _product(left, {(root, ()): 1 / (value * root)})


def _root(radicand: Polynomial) -> Polynomial:
    r"""``\sqrt`` of a rational: its square part before the root, what is left under it."""
    value = radicand.get((1, ()), Fraction(0))
    if radicand != _constant(value) or value < 0:
        raise NoPolynomial
    under = value.numerator * value.denominator
    if under > MAX_RADICAND:
        raise NoPolynomial
    square = max((k for k in range(1, isqrt(under) + 1) if under % (k * k) == 0), default=0)
    return {(under // square**2, ()): Fraction(square, value.denominator)} if square else {}


# ---- reading ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


def _read(text: str) -> Polynomial:
    reader = _Reader(_tokens(text))
    found = reader.sum()
    if reader.peek() is not None:
        raise NoPolynomial
    return found


def _tokens(text: str) -> list[_Token]:
    found, at, text = [], 0, text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise NoPolynomial
        found.append(_Token(match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens, self.at = tokens, 0

    def peek(self) -> str | None:
        return self.tokens[self.at].text if self.at < len(self.tokens) else None

    def kind(self) -> str | None:
        return self.tokens[self.at].kind if self.at < len(self.tokens) else None

    def take(self, wanted: str | None = None) -> str:
        text = self.peek()
        if text is None or (wanted is not None and text != wanted):
            raise NoPolynomial
        self.at += 1
        return text

    def sum(self) -> Polynomial:
        found: Polynomial = {}
        sign = self._sign()
        while True:
            found = _sum(found, self._term(), sign)
            if self.peek() not in ("+", "-"):
                return found
            sign = self._sign()

    def _sign(self) -> int:
        if self.peek() in ("+", "-"):
            return -1 if self.take() == "-" else 1
        return 1

    def _term(self) -> Polynomial:
        found, was_number = self._factor()
        while (text := self.peek()) is not None:
            if text in _TIMES:
                self.take()
                factor, was_number = self._factor()
                found = _product(found, factor)
            elif text == "/":
                self.take()
                found = _quotient(found, self._factor()[0])
                if self._goes_on():  # 1/2x: half of x, or one over 2x?
                    raise NoPolynomial
            elif self._goes_on():
                if self.kind() == "number" or (was_number and text == "\\frac"):  # 3 1/2, x2
                    raise NoPolynomial
                factor, was_number = self._factor()
                found = _product(found, factor)
            else:
                return found
        return found

    def _goes_on(self) -> bool:
        """Whether another factor follows without a sign."""
        text, kind = self.peek(), self.kind()
        starts = text in ("(", "π", "\\sqrt", "\\frac", "\\pi")
        return starts or kind in ("number", "letters")

    def _factor(self) -> tuple[Polynomial, bool]:
        """A factor with its exponent, and whether it is a bare number."""
        is_number = self.kind() == "number"
        base = self._base()
        if self.peek() != "^":
            return base, is_number
        self.take()
        return _power(base, self._exponent()), False

    def _exponent(self) -> int:
        if self.peek() == "{":
            self.take()
            text = self.take()
            self.take("}")
        else:
            text = self.take()
            if len(text) > 1:  # x^10: LaTeX reads x^1 0
                raise NoPolynomial
        if not text.isdecimal() or len(text) > 3 or int(text) > MAX_EXPONENT:
            raise NoPolynomial
        return int(text)

    def _base(self) -> Polynomial:
        kind, text = self.kind(), self.take()
        if kind == "number":
            return _constant(Fraction(text))
        if kind == "letters":
            return self._letter(text)
        match text:
            case "(" | "{":
                found = self.sum()
                self.take(")" if text == "(" else "}")
                return found
            case "π" | "\\pi":
                return {(1, (("π", 1),)): Fraction(1)}
            case "\\sqrt":
                return _root(self._argument())
            case "\\frac":
                over = self._argument()
                return _quotient(over, self._argument())
            case _:
                raise NoPolynomial

    def _letter(self, text: str) -> Polynomial:
        is_call = text in _FUNCTION_NAMES and self.peek() == "("
        if len(text) > 1 or text in _NO_VARIABLES or is_call:
            raise NoPolynomial
        return {(1, ((text, 1),)): Fraction(1)}

    def _argument(self) -> Polynomial:
        self.take("{")
        found = self.sum()
        self.take("}")
        return found
