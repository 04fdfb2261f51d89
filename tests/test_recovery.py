"""One broken statement hides no mistake of another: a token is deleted here, an unknown key planted there, and it is told."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

from omrlang import syntax as s
from omrlang.compiler import load_all
from omrlang.diagnostics import Reporter
from omrlang.parse import parse
from omrlang.source import SourceFile

ROOT = Path(__file__).parents[1]
SHIPPED = sorted([*(ROOT / "pipelines").rglob("*.omr"), *(ROOT / "stdlib").rglob("*.omr")])
ROUNDS = 40
PLANTED = "qqzzy"
_TOKEN = re.compile(r'(?:"""[\s\S]*?"""|"(?:\\.|[^"\\\n])*"|\#[^\n]*|\w+|[^\w\s])[ \t]*')
_CONTINUES = re.compile(r"(?:from|with|on|and|or)\b")


def damaged(text: str, rng: Random) -> tuple[str, int] | None:
    """The text without one token of a statement and with a word in another's block, and where the word stands."""
    file = parse(SourceFile(Path("-"), text), Reporter())
    # What may stand in a block that re-opens something is for the amended file to say: so `amend` stays whole.
    broken = rng.choice([item for item in file.statements if not isinstance(item, s.Amend)])
    a, b = rng.choice(
        [token.span() for token in _TOKEN.finditer(text, broken.span.start, broken.span.end)]
    )
    blocks = [
        block.span.start + 1
        for item in file.statements
        if item is not broken and (block := _block(item))
    ]
    # A statement that begins with `from` is one with the statement above it.
    if not blocks or (a == broken.span.start and _CONTINUES.match(text, b)):
        return None
    at = rng.choice(blocks)
    planted = f" {PLANTED} = 1, "
    if b <= at:
        return text[:a] + text[b:at] + planted + text[at:], at + 1 - (b - a)
    return text[:at] + planted + text[at:a] + text[b:], at + 1


def _block(statement: s.Statement) -> s.Block | None:
    return statement.block if isinstance(statement, s.Declaration | s.Reopen) else None


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_broken_statement_hides_no_other_mistake(path: Path, copied: Path) -> None:
    text = path.read_text()
    beside = copied / path.relative_to(ROOT)
    rng = Random(7)
    for made in filter(None, (damaged(text, rng) for _ in range(ROUNDS))):
        beside.write_text(made[0])
        found = load_all(beside)[1]
        places = [item.span.start for item in found if item.span.text == PLANTED]
        assert places == [made[1]], (made[0], [(item.message, item.span.text) for item in found])
    beside.write_text(text)


def test_what_amends_nothing_that_can_be_read_is_looked_at_itself(tmp_path: Path) -> None:
    """Names may come from the file that is not there, so only what stands in this one is wrong."""
    path = tmp_path / "x.omr"
    for amend in ('amend "none.omr"', 'amend "none.omr" oops'):
        path.write_text(
            f"{amend}\n\ndistil {{ n = 4 }}\n\nfilter f from distil {{ kep = len(question) > least }}\n"
        )
        found = [(item.code, item.span.text) for item in load_all(path)[1]]
        assert [what for code, what in found if code == "E203"] == ["kep"]
        assert "distil" not in {what for _, what in found}
