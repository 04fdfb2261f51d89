"""Laws of formatting and of fingerprints, over recipes drawn from the schema and over all that are shipped."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from written_recipes import Statement, declared, recipes, setting_text, written

from omrlang.compiler import load_all
from omrlang.diagnostics import Reporter
from omrlang.fingerprint import deciding_classes
from omrlang.format import format_text
from omrlang.lower import Lowered, lower
from omrlang.parse import parse
from omrlang.pins import Pins
from omrlang.render import render
from omrlang.settle import settle
from omrlang.source import SourceFile

ROOT = Path(__file__).parents[1]
SHIPPED = sorted([*(ROOT / "pipelines").rglob("*.omr"), *(ROOT / "stdlib").rglob("*.omr")])
_SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
# Failing texts are shown as drawn: shrinking one takes minutes and says little more.
_PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
LAW = settings(max_examples=40, deadline=None, suppress_health_check=_SLOW, phases=_PHASES)
FEW = settings(max_examples=6, deadline=None, suppress_health_check=_SLOW, phases=_PHASES)


@pytest.fixture(scope="session")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped recipes where they can be changed: amending files lie beside what they amend."""
    folder = tmp_path_factory.mktemp("copied")
    for name in ("pipelines", "stdlib"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def lowered(path: Path) -> dict[str, Lowered] | None:
    """The stages of every variant by name, None where the file is refused."""
    found, _ = load_all(path)
    pins = Pins.open(path.parent, path.parent / "state")
    return {
        f"{recipe.variant} {stage.name}".strip(): stage
        for recipe in found
        for stage in lower(recipe, pins)
    } or None


def marks(path: Path, text: str) -> dict[str, str]:
    """The fingerprints of the stages of this text, written to ``path``."""
    path.write_bytes(text.encode())
    stages = lowered(path)
    assert stages is not None, render(load_all(path)[1])
    return {name: stage.fingerprint for name, stage in stages.items()}


# ---- trivia wherever it may stand --------------------------------------------------------------

_TOKENS = re.compile(
    r'(?P<text>"""[\s\S]*?"""|"(?:\\.|[^"\\\n])*")|(?P<comment>\#[^\n]*)|(?P<newline>\n)|(?P<space>[ \t]+)'
    r"|(?P<number>\$?\d[\w.]*(?:(?<=[eE])[+-]\d+)?%?(?:[ \t]+(?!and\b|or\b|in\b|from\b|with\b|on\b)(?:per[ \t]+)?[A-Za-z]\w*)?(?:[ \t]*/[ \t]*[a-z]\w*)?)"
    r"|(?P<other>\w+|\.\.|[<>=!]=|.)"
)


@st.composite
def decorated(draw: st.DrawFn, text: str) -> str:
    """The same recipe with comments, spaces and line ends put wherever they mean nothing."""
    rng = Random(draw(st.integers(0, 2**32)))
    density = draw(st.sampled_from([0.02, 0.1, 0.4]))
    comments = 0
    out: list[str] = []
    stack: list[str] = []
    for match in _TOKENS.finditer(text):
        kind, token = match.lastgroup, match[0]
        inside = bool(stack) and stack[-1] in "(["
        follows = out[-1] if out else "\n"
        if rng.random() < density and not follows.startswith("#"):
            comments += 1
            note = f"# c{comments}"
            closes = token == "}" and bool(stack)
            goes_on = token in ("with", "on", "and", "or") and not inside and follows.isspace()
            if kind == "newline":
                out.append(rng.choice([f"  {note}", "   ", f"\n{note}\n \n" if not stack else ""]))
            elif inside or closes or goes_on or (stack and follows in "{,"):
                out.append(rng.choice([f" {note}\n  ", f"\n\n   {note}\n\n ", "\n ", " "]))
        if token in ("(", "[", "{") and kind == "other":
            stack.append(token)
        elif token in (")", "]", "}") and kind == "other" and stack:
            stack.pop()
        out.append(token)
    return "".join(out)


def comments(text: str) -> list[str]:
    """What a reader was told, in order."""
    reporter = Reporter()
    file = parse(SourceFile(Path("-"), text), reporter)
    assert not reporter.items, render(reporter.items)
    return [comment.text for comment in file.comments]


@given(st.data())
@LAW
def test_formatting_of_any_recipe(tmp_path: Path, data: st.DataObject) -> None:
    text = data.draw(decorated(written(data.draw(recipes()))))
    check_formatting(text, tmp_path / "x.omr")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
@given(data=st.data())
@FEW
def test_formatting_of_shipped_recipes(path: Path, data: st.DataObject, copied: Path) -> None:
    check_formatting(data.draw(decorated(path.read_text())), copied / path.relative_to(ROOT))


def check_formatting(text: str, path: Path) -> None:
    """Twice is once, every comment stays in its order, line ends and formatting change no result."""
    once, crlf = format_text(text), text.replace("\n", "\r\n")
    assert format_text(once) == format_text(crlf) == once
    assert comments(once) == comments(crlf) == comments(text)
    path.write_text(text)
    if lowered(path) is not None:
        assert marks(path, once) == marks(path, crlf) == marks(path, text)


# ---- what moves a fingerprint ------------------------------------------------------------------


@given(st.data())
@LAW
def test_names_order_comments_and_speed_move_nothing(tmp_path: Path, data: st.DataObject) -> None:
    statements = data.draw(recipes())
    path = tmp_path / "x.omr"
    path.write_text(written(statements))
    assume(lowered(path) is not None)
    before = marks(path, written(statements))
    names = ["own", *(statement.name for statement in statements)]
    new = dict(
        zip(names, data.draw(st.permutations([f"n{i}" for i in range(len(names))])), strict=True)
    )
    other = tuple(
        data.draw(same_result(statement)) for statement in data.draw(st.permutations(statements))
    )
    text = data.draw(decorated(written(other, new)))
    path.write_text(text)
    assume(lowered(path) is not None)
    assert marks(path, text) == {new[name]: mark for name, mark in before.items()}


@st.composite
def same_result(draw: st.DrawFn, statement: Statement) -> Statement:
    """The statement with its settings in another order and other values where they decide nothing."""
    for key, info, setting in declared(statement.kind):
        idle = setting.cls in ("speed", "meta") and not info.is_required()
        if idle and draw(st.booleans()):
            statement = statement.setting(key, draw(setting_text(statement.kind, key)))
    return replace(statement, settings=tuple(draw(st.permutations(statement.settings))))


@given(st.data())
@LAW
def test_a_setting_that_decides_moves_its_stage_and_all_after_it(
    tmp_path: Path, data: st.DataObject
) -> None:
    statements = data.draw(recipes())
    path = tmp_path / "x.omr"
    path.write_text(written(statements))
    before = lowered(path)
    assume(before is not None)
    assert before is not None, "assumed"
    at = data.draw(st.integers(0, len(statements) - 1))
    statement = statements[at]
    decides = deciding_classes(before[statement.name].spec)
    keys = [key for key, _, setting in declared(statement.kind) if setting.cls in decides]
    key = data.draw(st.sampled_from(keys))
    edited = statement.setting(key, data.draw(setting_text(statement.kind, key)))
    path.write_text(written((*statements[:at], edited, *statements[at + 1 :])))
    after = lowered(path)
    assume(after is not None)
    assert after is not None, "assumed"
    moved = {name for name in before if before[name].fingerprint != after[name].fingerprint}
    is_other = meaning(before[statement.name]) != meaning(after[statement.name])
    assert moved == (followers(statement.name, before.values()) if is_other else set())


def meaning(stage: Lowered) -> object:
    """What a stage was told, derived values filled in; a fused loss has the same result."""
    said = settle(stage.spec).model_dump()
    said.get("loss", {}).pop("fused", None)
    return said


def followers(name: str, stages: Iterable[Lowered]) -> set[str]:
    """A stage and all that stand on it."""
    found = {name}
    for stage in stages:
        if found & {*stage.parents}:
            found.add(stage.name)
    return found
