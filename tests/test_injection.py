"""Nasty texts through every place of a recipe where a text may stand: none becomes code, each means itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from omr_runtime.store import State
from omr_runtime.verify.interpret import evaluate
from omr_runtime.work import ROW, InputRows, read_rows
from omrlang.cli import main
from omrlang.compiler import load
from omrlang.planning import make_plan
from omrlang.render import render
from omrlang.schema import Filter, Source
from omrlang.types import RowExpr

NASTY = [
    "'; DROP TABLE omr_rows; --",
    '"; DROP TABLE omr_rows; --',
    "' OR '1'='1",
    "x' UNION SELECT current_setting('temp_directory') --",
    "?",
    "$1",
    "{}",
    "%s %(x)s",
    "\\",
    "\\'",
    'a"b',
    "/* */ --",
    "read_csv('/etc/passwd')",
    "\x00",
    "\u2028\u200b\ufeff",
    "é" + "e\u0301",
    "İıΣς",
    "🤦🏼‍♂️",
    " \t\n",
    "${HOME}",
    "null",
    "true",
]

TEMPLATES = [
    "answer == {}",
    "answer != {}",
    "answer < {}",
    "{} in question",
    "question in [{}, answer, source]",
    "replace(question, {}, answer) == answer",
    "remove(question, {}) == before(question, {})",
    "after(question, {}) != answer",
    "strip(question, {}) == answer",
    "{} + answer == question",
    "letter_index({}) == letter_index(answer)",
    "choose(answer == {}, source, question) == source",
    "len({}) == len(answer)",
    "{} in options",
    "options[0] == {}",
    "text(number({})) == answer",
    "question matches {}",
]


def quoted(text: str) -> str:
    """A text as a recipe writes it."""
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t")):
        text = text.replace(plain, escaped)
    return f'"{text}"'


def compiled(tmp_path: Path, condition: str) -> RowExpr:
    path = tmp_path / "r.omr"
    path.write_text(
        f'omr 1\n\nsource a from jsonl("a.jsonl")\n\nfilter b from a {{ keep = {condition} }}\n',
        newline="",
    )
    recipe, found = load(path)
    assert recipe is not None, render(found)
    spec = recipe.stages[-1].spec
    assert isinstance(spec, Filter)
    return spec.keep


def in_duckdb(expr: RowExpr, rows: list[dict[str, Any]]) -> list[Any]:
    (rule,) = expr.rules
    assert rule.sql is not None
    full = [{name: row.get(name) for name in ROW.names} for row in rows]
    with duckdb.connect() as connection:
        connection.register("omr_rows", pa.Table.from_pylist(full, ROW))
        query = f"SELECT {rule.sql.text} FROM omr_rows"
        return [answer for (answer,) in connection.execute(query, list(rule.sql.params)).fetchall()]


ROWS: list[dict[str, Any]] = [
    {
        "id": str(place),
        "question": question,
        "answer": answer,
        "source": text,
        "options": [text, None],
    }
    for place, text in enumerate(NASTY)
    for question, answer in ((text, text), (f"a{text}b", "a"), (None, text), (text, None))
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_text_means_itself_in_sql_and_in_python(tmp_path: Path, template: str) -> None:
    for text in NASTY:
        if "matches" in template:
            text = re.escape(text).replace("\\\x00", "\\x00")
        expr = compiled(tmp_path, template.replace("{}", quoted(text)))
        if expr.rules[0].sql is None:
            continue
        assert "DROP" not in expr.rules[0].sql.text
        assert expr.rules[0].sql.text.count("?") == len(expr.rules[0].sql.params)
        expected = [evaluate(expr.tree, row) for row in ROWS]
        assert in_duckdb(expr, ROWS) == expected, text


any_text = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=12),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(st.sampled_from(TEMPLATES[:-1]), any_text, any_text, any_text)
def test_any_text_from_recipe_to_answer(
    tmp_path_factory: pytest.TempPathFactory,
    template: str,
    literal: str,
    question: str,
    answer: str,
) -> None:
    assume(not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", literal))
    expr = compiled(tmp_path_factory.mktemp("r"), template.replace("{}", quoted(literal)))
    assume(expr.rules[0].sql is not None)
    rows = [
        {"id": "r", "question": question, "answer": answer, "source": literal, "options": [answer]},
        {"id": "s", "question": literal, "answer": None, "source": answer, "options": None},
    ]
    assert in_duckdb(expr, rows) == [evaluate(expr.tree, row) for row in rows]


@pytest.mark.parametrize("name", [text for text in NASTY if text.strip()])
def test_names_of_raw_columns(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({name: "4", "q": "?"}))
    path = tmp_path / "r.omr"
    path.write_text(
        'omr 1\n\nsource a from jsonl("a.jsonl") {\n  columns {\n    question = q\n'
        f'    answer = raw[{quoted(name)}]\n    extra.x = raw[{quoted(name)}] + "!"\n  }}\n}}\n',
        newline="",
    )
    recipe, found = load(path)
    assert recipe is not None, render(found)
    spec = recipe.stages[0].spec
    assert isinstance(spec, Source)
    assert evaluate(spec.columns["answer"].tree, {name: "4"}) == "4"
    assert evaluate(spec.columns["extra.x"].tree, {name: "4"}) == "4!"


@pytest.mark.slow
def test_nasty_labels_columns_and_values_through_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    label = "'; DROP TABLE stage; -- \" ? {} %s"
    odd = "odd \" ' name"
    lines = [{"q": f"{text} {place}", odd: text} for place, text in enumerate(NASTY)]
    Path("a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("r.omr").write_text(
        'omr 1\n\nsource a from jsonl("a.jsonl") {\n  columns {\n    question = q\n'
        f"    answer = raw[{quoted(odd)}]\n  }}\n"
        f"  label = {quoted(label)}\n}}\n\n"
        f"filter b from a {{ keep = source == {quoted(label)} and answer != {quoted(NASTY[0])} and not answer in [{quoted(NASTY[1])}] }}\n\n"
        "mix c from [b: up_to(1_000)]\n"
    )
    assert main(["run", "r.omr"]) == 0, capsys.readouterr()
    recipe, _ = load(Path("r.omr"))
    assert recipe is not None
    mark = make_plan(recipe, Path(".omr"), Path("r.omr")).stage("c").fingerprint
    folder = State(Path(".omr")).artifact(mark)
    kept = list(read_rows([InputRows(name="c", fingerprint=mark, folder=str(folder))]))
    assert sorted(row["answer"] for row in kept) == sorted(NASTY[2:])
    assert {row["source"] for row in kept} == {label}
    capsys.readouterr()
    assert main(["funnel", "b"]) == 0
    assert label in capsys.readouterr().out
