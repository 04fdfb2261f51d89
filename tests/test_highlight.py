"""Every recipe is coloured without a mistake, by Pygments and by the grammar that editors use; both know the language's words."""

from __future__ import annotations

import json
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from pygments.token import Comment, Error, Keyword, Name, Number, Operator, String

from omrlang.highlight import OmrLexer
from omrlang.parse import RESERVED
from omrlang.types import UNITS
from omrlang.words import CALLED, CLAUSES, CONSTANTS, JOINING, KINDS, OPERATORS, STATEMENTS

ROOT = Path(__file__).parents[1]
RECIPES = sorted([*(ROOT / "stdlib").rglob("*.omr"), *(ROOT / "pipelines").rglob("*.omr")])
FENCE = re.compile(r"^```omr\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_have_no_unknown_tokens(path: Path) -> None:
    text = path.read_text()
    tokens = list(OmrLexer(stripnl=False, ensurenl=False).get_tokens(text))
    assert not [value for kind, value in tokens if kind in Error]
    assert "".join(value for _, value in tokens) == text


def test_documentation_has_no_unknown_tokens() -> None:
    """But for the pages of errors, which show what is wrong."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    texts = [text for page in pages for text in FENCE.findall(page.read_text())]
    for text in texts:
        assert not [value for kind, value in OmrLexer().get_tokens(text) if kind in Error], text


def test_kinds_of_tokens() -> None:
    text = (
        "# note\nmodel teacher = hf(\"x\")\n"
        "filter kept from traces {\n  keep = format_ok and len(answer) <= 50\n  at_most = 1 per parent\n}\n"
    )  # fmt: skip
    tokens = {value: kind for kind, value in OmrLexer().get_tokens(text)}
    want = {
        "# note": Comment.Single,
        "model": Keyword.Declaration,
        "teacher": Name.Class,
        "hf": Name.Function,
        '"x"': String,
        "from": Keyword,
        "keep": Name.Attribute,
        "format_ok": Name.Builtin,
        "and": Operator.Word,
        "50": Number,
    }
    assert {word: tokens[word] for word in want} == want


def test_found_by_name() -> None:
    names = [point.value for point in entry_points(group="pygments.lexers") if point.name == "omr"]
    assert names in ([], ["omrlang.highlight:OmrLexer"]), "an older installation has none"
    declared = (ROOT / "pyproject.toml").read_text()
    assert 'omr = "omrlang.highlight:OmrLexer"' in declared


def test_words_are_those_of_the_parser() -> None:
    known = {*CLAUSES, *OPERATORS, *CONSTANTS, *JOINING, *STATEMENTS}
    assert known >= RESERVED
    assert known - RESERVED == {"seed", "budget", "allow"}


WORDS = {
    "declaration": KINDS,
    "statement": tuple(word for word in STATEMENTS if word != "let"),
    "clause": (*CLAUSES, *JOINING),
    "operator": OPERATORS,
    "constant": CONSTANTS,
    "function": CALLED,
    "number": tuple(sorted(UNITS, key=lambda unit: (-len(unit), unit))),
}
"""By rule of the grammar: the words in the one group of its first pattern that lists some."""


def test_the_editors_grammar_has_the_same_words(update: bool) -> None:
    """The grammar is data for programs that cannot ask the language, so it is kept in step here."""
    path = ROOT / "editors" / "vscode" / "syntaxes" / "omr.tmLanguage.json"
    before = path.read_text()
    grammar = json.loads(before)
    for rule, words in WORDS.items():
        pattern = grammar["repository"][rule]["patterns"][0]
        listed = f"({'|'.join(words)})"
        pattern["match"] = re.sub(r"\(\w+(?:\|\w+)+\)", listed, pattern["match"], count=1)
    after = json.dumps(grammar, indent=2, ensure_ascii=False) + "\n"
    if update:
        path.write_text(after)
    assert update or after == before, "pytest tests/test_highlight.py --update writes the words"
