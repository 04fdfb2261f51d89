"""Selectors become the stages that they mean: ``+accepted``, ``state:modified+``, ``source:words & kind:filter``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import get_args

from omrlang.decisions import Decision
from omrlang.diagnostics import UsageError, did_you_mean, listed
from omrlang.lower import Lowered
from omrlang.plan import Reason
from omrlang.schema import KINDS
from omrlang.types import SettingClass

REASONS: tuple[str, ...] = get_args(Reason)
CLASSES: tuple[str, ...] = get_args(SettingClass)
MODIFIED = frozenset(
    {
        "new",
        "param_changed",
        "source_revision_changed",
        "model_revision_changed",
        "code_version_changed",
    }
)
"""Reasons that lie in the stage itself and not in its parents or in what a run left."""

STATES: dict[str, Callable[[Decision], bool]] = {
    "new": lambda decision: "new" in decision.reasons,
    "modified": lambda decision: bool(MODIFIED & set(decision.reasons)),
    "cached": lambda decision: decision.action == "cached",
    "partial": lambda decision: decision.action == "partial",
    "due": lambda decision: decision.action != "cached",
}


class Unselectable(UsageError):
    """A selector that means nothing, or a selection that cannot be run."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a command asks of a plan: ``select`` some stages (none given: all), ``force`` some to be made again."""

    select: tuple[str, ...] = ()
    force: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Graph:
    """The stages with what is decided for them, and who stands on whom."""

    stages: Mapping[str, Lowered]
    decisions: Mapping[str, Decision]

    def above(self, names: Iterable[str]) -> set[str]:
        """The stages and all that they stand on."""
        found = set(names)
        for name in reversed(tuple(self.stages)):
            if name in found:
                found.update(self.stages[name].parents)
        return found

    def below(self, names: Iterable[str]) -> set[str]:
        """The stages and all that stands on them."""
        found = set(names)
        for name, stage in self.stages.items():
            if found.intersection(stage.parents):
                found.add(name)
        return found


def select(
    stages: Sequence[Lowered], decisions: Mapping[str, Decision], selectors: Sequence[str]
) -> frozenset[str]:
    """Names of the stages that any of the selectors means; all of them where there is none. Raises ``Unselectable``.

    What a selected stage stands on must be there or be selected too.
    """
    graph = _Graph({stage.name: stage for stage in stages}, decisions)
    if not selectors:
        return frozenset(graph.stages)
    named: set[str] = set()
    for selector in selectors:
        terms = [_term(part.strip(), graph) for part in selector.split("&")]
        named |= set.intersection(*terms)
    marks = {graph.stages[name].fingerprint for name in named}
    chosen = frozenset(stage.name for stage in stages if stage.fingerprint in marks)
    _check_whole(graph, chosen, marks)
    return chosen


def check_names(stages: Sequence[Lowered], names: Sequence[str], option: str) -> None:
    """Raises ``Unselectable`` for the first name that no stage has."""
    known = [stage.name for stage in stages]
    for name in names:
        if name not in known:
            raise Unselectable(_unknown(f"{option} {name}", "stage", name, known))


def _term(text: str, graph: _Graph) -> set[str]:
    core = text.removeprefix("+").removesuffix("+")
    found = _named(core, graph)
    up = graph.above(found) if text.startswith("+") else set()
    down = graph.below(found) if text.endswith("+") and len(text) > 1 else set()
    return found | up | down


def _named(core: str, graph: _Graph) -> set[str]:
    method, colon, word = core.partition(":")
    if not core:
        raise Unselectable("an empty selector; such as `accepted`, `+accepted`, `state:modified+`")
    if not colon:
        return _globbed(core, graph, core)
    match method:
        case "state":
            return _in_state(core, word, graph)
        case "source":
            sources = {n: s for n, s in graph.stages.items() if s.spec.kind == "source"}
            found = [name for name in sources if fnmatchcase(name, word)]
            if not found:
                raise Unselectable(_unknown(core, "source", word, sources))
            return graph.below(found)
        case "kind":
            _check_word(core, "kind", word, KINDS)
            return {name for name, stage in graph.stages.items() if stage.spec.kind == word}
        case "reason":
            _check_word(core, "reason", word, REASONS)
            return {name for name, made in graph.decisions.items() if word in made.reasons}
        case _:
            raise Unselectable(
                _unknown(core, "selector", method, ("state", "source", "kind", "reason"))
            )


def _globbed(pattern: str, graph: _Graph, core: str) -> set[str]:
    found = {name for name in graph.stages if fnmatchcase(name, pattern)}
    if not found:
        raise Unselectable(_unknown(core, "stage", pattern, graph.stages))
    return found


def _in_state(core: str, word: str, graph: _Graph) -> set[str]:
    """``state:modified.rows`` are those of the modified stages in which a setting of that class moved."""
    state, dot, cls = word.partition(".")
    _check_word(core, "state", state, STATES)
    if dot:
        _check_word(core, "class of settings", cls, CLASSES)
    return {
        name
        for name, made in graph.decisions.items()
        if STATES[state](made) and (not dot or any(change.cls == cls for change in made.changes))
    }


def _check_word(core: str, what: str, word: str, known: Iterable[str]) -> None:
    if word not in known:
        raise Unselectable(_unknown(core, what, word, known))


def _unknown(core: str, what: str, word: str, known: Iterable[str]) -> str:
    hint = did_you_mean(word, known, "there are")
    return f"`{core}`: no {what} is called `{word}`{f'; {hint}' if hint else ''}"


def _check_whole(graph: _Graph, chosen: frozenset[str], marks: set[str]) -> None:
    """A stage cannot run without the artifacts of those that it stands on."""
    first: dict[str, Decision] = {}
    for name, stage in graph.stages.items():
        first.setdefault(stage.fingerprint, graph.decisions[name])
    for name in graph.stages:
        if name not in chosen or graph.decisions[name].action == "cached":
            continue
        missing = [
            parent
            for parent in graph.stages[name].parents
            if (mark := graph.stages[parent].fingerprint) not in marks
            and first[mark].action != "cached"
        ]
        if missing:
            names = listed([f"`{item}`" for item in missing], "and")
            raise Unselectable(
                f"`{name}` is selected and stands on {names}, which must run first; "
                f"`--select +{name}` selects it too"
            )
