"""A true answer and a given one to a verdict, by rules alone: text, options, numbers with units, tuples, polynomials.

What these rules cannot decide comes back as pairs for math-verify. They are strict where a parser of mathematics is
easily fooled: prose, points read as intervals, mixed numbers, times of day.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

from omr_runtime.verify.polynomials import same_polynomial
from omr_runtime.verify.quantities import Number, number_of, numbers_agree

Pair: TypeAlias = tuple[str, str]
Decision: TypeAlias = bool | tuple[Pair, ...]
"""True or false, or the pairs (true, given) that must all be equal as mathematics."""

MAX_CHARACTERS = 2_000
"""A final answer longer than this is no answer; nothing longer is handed to a parser of mathematics."""

_WRAPPERS = (
    re.compile(r"\$\$([^$]*)\$\$"),
    re.compile(r"\$([^$]*)\$"),
    re.compile(r"\\\((.*)\\\)", re.DOTALL),
    re.compile(r"\\\[(.*)\\\]", re.DOTALL),
    re.compile(r"\*\*([^*]*)\*\*"),
    re.compile(r"`([^`]*)`"),
    re.compile(r'"([^"]*)"'),
    re.compile(r"'([^']*)'"),
)
_PREFIX = re.compile(r"(?:the )?(?:final |correct )?answer(?: is|:| =)(?:\s*:)?\s+", re.IGNORECASE)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{(.*)\}", re.DOTALL)
_STYLED = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_SWAPS = (
    ("\u2212", "-"),
    ("\u2013", "-"),
    ("\xa0", " "),
    ("\u2019", "'"),
    ("\u201c", '"'),
    ("\u201d", '"'),
    ("{,}", ","),
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\cfrac", "\\frac"),
    ("\\%", "%"),
    ("\\$", "$"),
    ("^{\\circ}", "\xb0"),
    ("^\\circ", "\xb0"),
    ("\\displaystyle", ""),
    ("\\left", ""),
    ("\\right", ""),
    ("\\!", ""),
    ("\\,", " "),
    ("\\;", " "),
    ("\\:", " "),
    ("\\ ", " "),
    ("~", " "),
)


REMEMBERED = 1 << 16
"""Answers repeat within the samples of a question: so many are not read again."""


@lru_cache(REMEMBERED)
def clean(text: str) -> str:
    r"""The answer without what is only notation: white space, wrappers, styles, a full stop at the end.

    >>> clean(" $\\boxed{\\text{Blue}}$. ")
    'Blue'
    """
    text = " ".join(text.split())
    for old, new in _SWAPS:
        text = text.replace(old, new)
    text = " ".join(_STYLED.sub(r"\1", text).split())
    while True:
        shorter = _unwrapped(text)
        if shorter == text:
            return text
        text = shorter


def _unwrapped(text: str) -> str:
    """One layer less, or the same text."""
    text = text.strip()
    bare = text.rstrip(".;,").rstrip()
    if bare:
        text = bare
    text = _PREFIX.sub("", text, count=1) if _PREFIX.match(text) else text
    for wrapper in _WRAPPERS:
        found = wrapper.fullmatch(text)
        if found:
            return found[1].strip()
    found = _BOXED.fullmatch(text)
    if found and _balanced(found[1]):
        return found[1].strip()
    return text


def _balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0


# ---- exact -----------------------------------------------------------------------------------------------------


def exact(truth: str, given: str, question: str = "") -> bool:
    """Equal as text, or as numbers in any notation; units and currency may be left out, not differ.

    >>> exact("4", "4.0"), exact("1,234", "1234"), exact("2", "2x+1"), exact("4", "4 apples", "How many apples?")
    (True, True, False, True)
    """
    if max(len(truth), len(given)) > MAX_CHARACTERS:
        return False
    truth, given = clean(truth), clean(given)
    return _same_text(truth, given) or _same_number(truth, given, question) is True


def _same_text(truth: str, given: str) -> bool:
    return bool(given) and _folded(truth) == _folded(given)


def _folded(text: str) -> str:
    text = re.sub(r"^(?:a|an|the) (?=[A-Za-z]{2})", "", text, flags=re.IGNORECASE).casefold()
    is_prose = re.fullmatch(r"[^\W\d_]+(?:[ '-][^\W\d_]+)*", text)
    return text if is_prose else text.replace(" ", "")


def _same_number(truth: str, given: str, question: str) -> bool | None:
    """None if one of them is no number."""
    left = number_of(_value_side(truth), question)
    right = number_of(_value_side(given), question) if left else None
    return numbers_agree(left, right) if left and right else None


def _value_side(text: str) -> str:
    """What a single letter is said to be equal to: ``4`` of ``x = 4``."""
    return re.sub(r"^[A-Za-z]\s*=\s*(?=[^=])", "", text)


# ---- options ---------------------------------------------------------------------------------------------------

_LETTER = re.compile(
    r"(?:option|choice|answer)?\s*[(\[]?\s*([A-Za-z])\s*[)\]]?\s*(?:[.:)]\s*|\s-\s|$)(.*)",
    re.DOTALL | re.IGNORECASE,
)
_BRACKETED = re.compile(
    r"(?:option|choice)?\s*[(\[]\s*([A-Za-z])\s*[)\]]\s+(.+)", re.DOTALL | re.IGNORECASE
)


def choice(options: Sequence[str], truth: str, given: str) -> bool | None:
    """Whether the answer names the right option, by letter, by whole text, or by both; False where these differ.

    None if it names no option at all: then it is no choice, but may still be equal to the true answer.

    >>> options = ["red", "blue", "green"]
    >>> choice(options, "blue", "(B)"), choice(options, "red", "Because of X"), choice(options, "blue", "C")
    (True, None, False)
    """
    if max(len(truth), len(given)) > MAX_CHARACTERS:
        return None
    chosen = chosen_option(options, given)
    if chosen is None:
        return False if _names_two(options, clean(given)) else None
    right = _place_of(options, clean(truth))
    if right is None:
        right = _letter_place(options, clean(truth))
    return right is not None and exact(options[right], options[chosen])


def chosen_option(options: Sequence[str], given: str) -> int | None:
    """The place of the option that an answer names. An option's text goes before a letter."""
    given = clean(given)
    place = _place_of(options, given)
    return place if place is not None else _letter_place(options, given)


def _place_of(options: Sequence[str], text: str) -> int | None:
    for place, option in enumerate(options):
        if _same_text(clean(option), text):
            return place
    for place, option in enumerate(options):
        if exact(option, text):
            return place
    return None


def _names_two(options: Sequence[str], text: str) -> bool:
    """A letter before the text of another option: ``C. blue`` where blue is B."""
    found = _LETTER.fullmatch(text) or _BRACKETED.fullmatch(text)
    return found is not None and _place_of(options, clean(found[2])) is not None


def _letter_place(options: Sequence[str], text: str) -> int | None:
    """``B``, ``(b)``, ``Option B``, ``B. blue``; the rest must be that option's text."""
    found = _LETTER.fullmatch(text) or _BRACKETED.fullmatch(text)
    if found is None:
        return None
    place = string.ascii_uppercase.index(found[1].upper())
    if place >= len(options):
        return None
    rest = clean(found[2])
    return place if not rest or exact(options[place], rest) else None


_LETTERS = re.compile(r"[A-J](?:\s*(?:,|;|&|and)\s*[A-J])*")


def same_letters(truth: str, given: str) -> bool | None:
    """Whether the answer names the same letters, where the truth is letters of options that only the question shows.

    Order counts as little as brackets; what stands after one letter is its option's text, which nobody can compare
    here. None where one of them names no letters.

    >>> same_letters("B", "(B)"), same_letters("B", "B. 35 cm"), same_letters("A, C", "C and A"), same_letters("B", "Blue")
    (True, True, True, None)
    """
    right, named = _letters(truth), _letters(given)
    if right is not None and named is None and (found := _LETTER.fullmatch(given)):
        named = frozenset(found[1].upper())
    return None if right is None or named is None else right == named


def _letters(text: str) -> frozenset[str] | None:
    bare = re.sub(r"[()\[\]]", "", text).strip()
    return frozenset(re.findall(r"[A-J]", bare)) if _LETTERS.fullmatch(bare) else None


# ---- mathematics -----------------------------------------------------------------------------------------------

_FUNCTIONS = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "log",
        "ln",
        "exp",
        "sqrt",
        "cbrt",
        "pi",
        "mod",
        "gcd",
        "lcm",
        "min",
        "max",
        "det",
    ]
)
_SMALL_WORDS = frozenset(["not", "is", "are", "if", "but", "the", "no", "yes"])
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_TIME = re.compile(r"\d\s*:\s*\d")
MAX_ELEMENTS = 12
_OPEN = {"(": ")", "[": "]", "\\{": "\\}"}


@lru_cache(REMEMBERED)
def decide(truth: str, given: str, question: str = "") -> Decision:
    """True or false where rules can tell, else what math-verify has to find equal.

    >>> decide("4", "(3, 4)"), decide("(x+1)^2", "x^2+2x+1"), decide("5!", "120")
    (False, True, (('5!', '120'),))
    """
    if max(len(truth), len(given)) > MAX_CHARACTERS:
        return False
    truth, given = clean(truth), clean(given)
    if not truth or not given:
        return False
    if _same_text(truth, given):
        return True
    if (named := same_letters(truth, given)) is not None:
        return named
    same = _same_number(truth, given, question)
    if same is not None:
        return same
    if _TIME.search(truth) or _TIME.search(given):
        return False
    items = _items(truth), _items(given)
    if items[0] is not None and items[1] is not None:
        return _each(items[0], items[1])
    if (items[0] is not None and _plain(given)) or (items[1] is not None and _plain(truth)):
        return False
    if is_prose(truth) or is_prose(given):
        return False
    if (equal := _same_set(truth, given)) is not None:
        return equal
    if (equal := same_polynomial(truth, given)) is not None:
        return equal
    return ((truth, given),)


def _plain(text: str) -> Number | None:
    return number_of(_value_side(text))


def is_prose(text: str) -> bool:
    """Words rather than mathematics: letters alone, or a word of four letters that is no function.

    A parser of mathematics reads a word as a product of its letters, so that ``no`` would equal ``on``.
    """
    if re.fullmatch(r"[A-Za-z][A-Za-z\s'-]+", text) and text.casefold() not in _FUNCTIONS:
        return True
    words = [word.casefold() for word in _WORD.findall(text)]
    return any(word in _SMALL_WORDS or (len(word) > 3 and word not in _FUNCTIONS) for word in words)


def _items(text: str) -> tuple[str, tuple[str, ...]] | None:
    """Brackets and items of a tuple or list; None if the text is none."""
    ends = text[:1] + text[-1:]
    if ends not in ("()", "[]", "(]", "[)"):
        return None
    items = _split(text[1:-1])
    return (ends, items) if items is not None and len(items) > 1 else None


_SET = re.compile(r"\\\{(.*)\\\}", re.DOTALL)


def _same_set(truth: str, given: str) -> bool | None:
    r"""Whether two sets have the same elements; None where one is none or an element is left to math-verify.

    >>> _same_set("\\{1, 2\\}", "\\{2, 1.0\\}"), _same_set("\\{1, 2\\}", "\\{1, 3\\}"), _same_set("1", "\\{1\\}")
    (True, False, None)
    """
    found = _SET.fullmatch(truth), _SET.fullmatch(given)
    sides = [_split(side[1]) if side else None for side in found]
    if sides[0] is None or sides[1] is None or max(map(len, sides)) > MAX_ELEMENTS:  # type: ignore[arg-type]
        return None
    equal = [[decide(left, right) for right in sides[1]] for left in sides[0]]
    if not all(isinstance(one, bool) for row in equal for one in row):
        return None
    return all(map(any, equal)) and all(map(any, zip(*equal, strict=True)))


def _split(text: str) -> tuple[str, ...] | None:
    """At the commas outside all brackets; None if a bracket is closed that was not opened."""
    depth, start, items = 0, 0, []
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return None
        if character == "," and depth == 0:
            items.append(text[start:place])
            start = place + 1
    return (*items, text[start:])


def _each(truth: tuple[str, tuple[str, ...]], given: tuple[str, tuple[str, ...]]) -> Decision:
    """Item by item, with the same brackets."""
    if truth[0] != given[0] or len(truth[1]) != len(given[1]):
        return False
    pairs: list[Pair] = []
    for left, right in zip(truth[1], given[1], strict=True):
        decision = decide(left, right)
        if decision is False:
            return False
        if decision is not True:
            pairs.extend(decision)
    return tuple(pairs) if pairs else True
