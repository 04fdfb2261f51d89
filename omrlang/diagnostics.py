"""What can be wrong with a recipe: every code with its slug, and the list that passes report into."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from omrlang.source import Span

Severity: TypeAlias = Literal["error", "warning", "note"]
MAX_ERRORS = 20


@dataclass(frozen=True, slots=True)
class Code:
    """A code as people see it, the slug that is its page's name, and what it means in one line."""

    code: str
    slug: str
    summary: str

    @property
    def page(self) -> str:
        """The name of its page in ``docs/errors``."""
        return f"{self.code}-{self.slug}"


_ALL = (
    Code("E101", "syntax", "a statement does not have the shape that the language knows"),
    Code("E102", "unterminated-text", "a text has no closing quotation mark"),
    Code("E103", "unclosed-bracket", "a bracket or brace is opened and never closed"),
    Code("E104", "bad-number", "a number is not written as the language writes numbers"),
    Code("E105", "too-deep", "brackets or operators are nested over 64 deep"),
    Code("E106", "unreadable-file", "a file is missing, too big or no UTF-8 text"),
    Code("E107", "number-too-big", "a number is over 1e30"),
    Code("E108", "stray-text", "text stands in front of the first statement"),
    Code("E109", "bad-version", "the file is written for another version of the language"),
    Code("E110", "bad-escape", "a backslash stands before a character that it does nothing to"),
    Code("E201", "unknown-name", "a name is used that nothing defines"),
    Code("E202", "unknown-kind", "a statement starts with a kind that does not exist"),
    Code("E203", "unknown-key", "a setting does not exist on what it is written on"),
    Code("E204", "unknown-clause", "a kind does not take this clause"),
    Code("E205", "duplicate-name", "two things have one name"),
    Code("E206", "duplicate-setting", "a setting or clause is given twice"),
    Code("E207", "unknown-module", "a `use` names a module that is not there"),
    Code("E208", "unknown-function", "a row expression calls a function that does not exist"),
    Code("E209", "unknown-column", "a row expression names a column that does not exist there"),
    Code("E210", "unknown-unit", "a number has a unit that is not in the table"),
    Code("E211", "unknown-choice", "a value is none of the choices that the setting has"),
    Code("E212", "cycle", "something depends on itself"),
    Code("E213", "shadowed-name", "a name hides a column or a verifier"),
    Code("E301", "wrong-type", "a value is of another type than its place takes"),
    Code("E302", "missing-setting", "a required setting is not given"),
    Code("E303", "missing-clause", "a required clause is not given"),
    Code("E304", "wrong-unit", "a number has a unit that its place does not take, or lacks one"),
    Code("E305", "out-of-range", "a number lies outside its range"),
    Code("E306", "one-of", "of several settings exactly one is needed"),
    Code("E307", "shares", "the amounts of a mix do not fit together"),
    Code("E308", "wrong-arguments", "a call has too many, too few or wrong arguments"),
    Code("E309", "wrong-reference", "a name stands for something else than its place takes"),
    Code("E310", "env-not-here", "`env` stands where a value decides the result"),
    Code("E311", "unreadable-code", "the code of a verifier is not there or cannot be read"),
    Code("E312", "bad-pattern", "a regular expression is not one that RE2 reads"),
    Code("E313", "trains-on-benchmark", "rows of a benchmark reach the training of a model"),
    Code("E314", "blind-model", "rows with images are given to a model of text alone"),
    Code("E315", "product", "a count is no whole number of times another that it is made of"),
    Code("E316", "trained-part", "`freeze` or `adapter` names what cannot be trained or kept so"),
    Code("E402", "bad-override", "a `--set` does not fit the recipe"),
    Code("E403", "choose-variant", "a file has several variants and one is wanted"),
    Code("E404", "misplaced-statement", "a statement stands where it does nothing"),
    Code("W101", "clip-never-acts", "a clip range cannot act: there is one update per rollout batch"),
    Code("W102", "clip-scale", "a clip range has the scale of another algorithm"),
    Code("W103", "prompt-mismatch", "rows sampled under one prompt are trained under another"),
    Code("W104", "trained-on-test", "an evaluation set is among the training rows"),
    Code("W105", "judges-itself", "a model judges what it wrote itself"),
    Code("W106", "shared-items", "a training source and an evaluation set hold items of one published set"),
    Code("W107", "order-decides", "which part of a mix loses shared rows hangs on the order of the parts"),
    Code("W108", "image-over-prompt", "one image within the budget is longer than the longest prompt"),
    Code("W109", "image-budgets", "a model is shown images of another size than it was trained on"),
    Code("W110", "checkpoints-fill-disk", "the checkpoints that stay take a terabyte or more"),
    Code("W111", "cap-below-lengths", "a length limit lies below the lengths that are learned"),
    Code("W112", "judge-without-question", "a judge does not see what was asked"),
    Code("W113", "unequal-algorithms", "algorithms are compared and more than the algorithm differs"),
    Code("W114", "many-passes", "a training passes over its rows fifteen times or more"),
    Code("W115", "unknown-licence", "published data or weights are used and their licence is not known"),
    Code("W116", "unequal-evals", "models are compared on the same rows under unequal decoding"),
    Code("W117", "few-rollouts", "a group has too few rollouts to compare"),
    Code("W118", "warmup-over-run", "the warm-up is as long as the run, or longer"),
    Code("W119", "identical-samples", "several samples of one question are drawn without chance"),
    Code("W120", "reward-without-spread", "all rollouts of a prompt get the same reward"),
    Code("W121", "dapo-in-name", "DAPO is set without what makes it DAPO"),
    Code("W122", "eval-too-small", "an evaluation has so few answers that chance moves it by ten points"),
    Code("W123", "penalty-everywhere", "the soft penalty for long responses begins with the first token"),
    Code("W124", "unread-rows", "rows are made and nothing reads them"),
    Code("W125", "other-models-pass-rate", "prompts are chosen by the pass rate of another model"),
    Code("W126", "truncated-traces", "a cold start learns from traces that were cut off"),
    Code("W127", "judge-first", "a judge is asked before a rule that costs nothing"),
    Code("W128", "idle-allow", "an `allow` stops no warning"),
    Code("W129", "refill-never-acts", "a `refill` has no prompt to spare"),
    Code("W130", "watched-training-rows", "validation looks at data that is trained on"),
    Code("W131", "apart-without-training", "an engine is apart where nothing is trained"),
    Code("W132", "drops-long-answers", "a step drops what ends late, so that short answers are preferred"),
    Code("W201", "unpinned", "what a stage reads could not be pinned when the plan was made"),
    Code("W203", "may-be-unexpected", "an expected number may come out otherwise"),
    Code("W204", "unexpected", "an expected number comes out otherwise"),
    Code("W202", "unreadable-state", "the index of earlier runs could not be read"),
)  # fmt: skip

CODES: dict[str, Code] = {code.code: code for code in _ALL}


@dataclass(frozen=True, slots=True)
class Edit:
    """Characters of a file and what stands in their place afterwards; an empty span is an insertion."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Fix:
    """What mends a mistake, where only one thing can be meant: edits of one file, made together or not at all."""

    message: str
    edits: tuple[Edit, ...]


class Hint(str):
    """A hint that knows which ``word`` is wrong and what to write ``instead``: a diagnostic of that word has a fix."""

    word: str
    instead: str

    def __new__(cls, text: str, word: str, instead: str) -> Hint:
        hint = super().__new__(cls, text)
        hint.word, hint.instead = word, instead
        return hint


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing to say. ``message`` stands alone; ``related`` are further places with what they have to do with it."""

    code: str
    message: str
    span: Span
    severity: Severity = "error"
    hint: str | None = None
    related: tuple[tuple[Span, str], ...] = ()
    fix: Fix | None = None

    def __post_init__(self) -> None:
        assert self.code in CODES, f"diagnostic code {self.code} is not registered"

    @property
    def sort_key(self) -> tuple[str, int, int, str, str]:
        return (str(self.span.file.path), self.span.start, self.span.end, self.code, self.message)


class UsageError(Exception):
    """A command line that asks for what there is not. ``str(error)`` is the whole message; the exit code is 64."""


class InputError(Exception):
    """A file or service that a command needs is not as it must be. ``str(error)`` is the whole message; the exit code is 1."""


@dataclass(slots=True)
class Reporter:
    """Collects diagnostics; the same one at the same place is kept once."""

    items: list[Diagnostic] = field(default_factory=list)
    _seen: set[tuple[str, int, int, str, str]] = field(default_factory=set)

    def report(self, diagnostic: Diagnostic) -> None:
        if diagnostic.sort_key not in self._seen:
            self._seen.add(diagnostic.sort_key)
            self.items.append(diagnostic)

    def error(
        self,
        code: str,
        message: str,
        span: Span,
        hint: str | None = None,
        related: tuple[tuple[Span, str], ...] = (),
        fix: Fix | None = None,
    ) -> None:
        """A ``Hint`` about what stands at ``span`` fixes it, unless another fix is given."""
        if fix is None and isinstance(hint, Hint):
            fix = _instead(span, hint)
        self.report(Diagnostic(code, message, span, "error", hint, related, fix))

    @property
    def has_errors(self) -> bool:
        return any(item.severity == "error" for item in self.items)

    def sorted(self) -> list[Diagnostic]:
        """By file and place; at most ``MAX_ERRORS`` errors, the first ones."""
        ordered = sorted(self.items, key=lambda item: item.sort_key)
        errors = [item for item in ordered if item.severity == "error"][:MAX_ERRORS]
        return [item for item in ordered if item.severity != "error" or item in errors]


def _instead(span: Span, hint: Hint) -> Fix | None:
    """None where the span is of more than the wrong word: then a person has to look."""
    written = {hint.word: hint.instead, f'"{hint.word}"': f'"{hint.instead}"'}
    text = written.get(span.text)
    return None if text is None else Fix(f"write `{text}`", (Edit(span, text),))


_CUTOFF, _SHORT_CUTOFF = 0.72, 0.6
_MARGIN = 0.1
"""How much nearer than the next word one must be to be written without asking."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, if one is near enough."""
    return next(iter(_near(word, known)), None)


def _near(word: str, known: Iterable[str]) -> list[str]:
    """The nearest known words: one if only one can be meant, else two, the nearer first.

    >>> _near("tak", ["take", "total"]), _near("qwen_7", ["qwen_7b", "qwen_72b"]), _near("x", ["seed"])
    (['take'], ['qwen_7b', 'qwen_72b'], [])
    """
    choices = sorted(set(known))
    by_folded = {choice.lower(): choice for choice in reversed(choices)}
    if word.lower() in by_folded:
        return [by_folded[word.lower()]]
    longer = [choice for choice in choices if choice.startswith(word)]
    if len(word) > 2 and len(longer) == 1:
        return longer
    word = word[:80]
    cutoff = _CUTOFF if len(word) > 3 else _SHORT_CUTOFF
    found = difflib.get_close_matches(word, choices, n=2, cutoff=cutoff)
    clear = len(found) == 2 and _likeness(word, found[0]) - _likeness(word, found[1]) >= _MARGIN
    return found[:1] if clear else found


def _likeness(word: str, other: str) -> float:
    # The order of the two is that of difflib.get_close_matches; the ratio is not symmetric.
    return difflib.SequenceMatcher(None, other, word).ratio()


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str | None:
    """The near word, a ``Hint`` where only that one can be meant; or ``otherwise`` with the list where it is short."""
    choices = list(dict.fromkeys(known))
    near = _near(word, choices)
    if near:
        text = f"`{near[0]}` exists; it might be meant here"
        return Hint(text, word, near[0]) if len(near) == 1 else text
    if otherwise and 0 < len(choices) <= 24:
        return f"{otherwise}: {', '.join(choices)}"
    return None


def listed(words: list[str], last: str) -> str:
    """``a, b or c`` with ``last`` before the last.

    >>> listed(["a", "b", "c"], "or")
    'a, b or c'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
