"""Definitions, references and renames, over all files that share a name. Driven by a real client over standard input and output."""

from __future__ import annotations

from pathlib import Path

import pytest
from pygls.exceptions import JsonRpcException

from tests.editor import RECIPE, Editor, at, shown

ROOT = Path(__file__).parents[1]


def test_definition_in_the_file(ide: Editor) -> None:
    found = ide.definition(at(RECIPE, "with teac|her"))
    assert found is not None
    assert (
        shown(found) == f"recipe.omr:{1 + RECIPE[: RECIPE.index('model teacher')].count(chr(10))}:7"
    )


def test_definition_into_the_library(ide: Editor) -> None:
    found = ide.definition(at(RECIPE, "formats.think_answer_|short"))
    assert found is not None
    path = Path(found.uri.removeprefix("file://"))
    assert path == ROOT / "stdlib" / "formats.omr"
    line = path.read_text().splitlines()[found.range.start.line]
    assert line.startswith("prompt think_answer_short")
    module = ide.definition(at(RECIPE, "for|mats.think_answer_short"))
    assert module is not None
    assert shown(module) == "formats.omr:1:1"
    assert ide.definition(at(RECIPE, "std.form|ats")) == module


def test_definition_across_files(ide: Editor) -> None:
    ide.open('omr 1\n\nmodel small = hf("x")\n', "lib.omr")
    text = 'use "lib.omr" as lib\n\nsample s from q with lib.small { }\n'
    found = ide.definition(at(text, "lib.sm|all"))
    assert found is not None
    assert shown(found) == "lib.omr:3:7"
    file = ide.definition(at(text, '"lib|.omr"'))
    assert file is not None
    assert shown(file) == "lib.omr:1:1"


def test_definition_in_a_statement_that_cannot_be_read(ide: Editor) -> None:
    found = ide.definition(RECIPE + "\nfilter x from tra|ces { keep = (")
    assert found is not None
    assert shown(found).endswith(":8")


def test_references(ide: Editor) -> None:
    lines = RECIPE.splitlines()
    found = ide.references(at(RECIPE, "sample tra|ces"))
    want = [i + 1 for i, line in enumerate(lines) if "traces" in line]
    assert [int(item.split(":")[1]) for item in found] == want


def test_a_column_or_choice_of_the_same_name_is_no_reference(ide: Editor) -> None:
    text = (
        'model shapes = fresh("qwen2", layers = 1, hidden = 8, heads = 1, vocabulary = shapes)\n'
        'source prompt_text from synthetic("shapes", n = 2, seed = 1) {\n  columns { question = thinking }\n}\n'
        "sft s from prompt_text with shapes { pack = 64 }\n"
    )
    found = ide.references(at(text, "model sha|pes"))
    assert found == ["recipe.omr:1:7", "recipe.omr:5:29"]


def test_rename_in_the_file(ide: Editor) -> None:
    found = ide.rename(at(RECIPE, "sample tra|ces"), "answers")
    assert found == {"recipe.omr": RECIPE.replace("traces", "answers")}
    found = ide.rename(at(RECIPE, "max_tokens  = len|gth"), "longest")
    assert "let longest = 64" in found["recipe.omr"]
    assert "= longest\n" in found["recipe.omr"]
    assert "len(answer)" in found["recipe.omr"]


def test_rename_across_files(ide: Editor) -> None:
    (ide.folder / "base.omr").write_text(RECIPE)
    change = 'amend "base.omr"\nbecause "four samples"\n\ntraces { n = 4 }\n'
    (ide.folder / "four.omr").write_text(change)
    (ide.folder / "other.omr").write_text("# traces\nlet traces = 1\n")
    found = ide.rename(at(RECIPE, "sample tra|ces"), "answers", "base.omr")
    assert found == {
        "base.omr": RECIPE.replace("traces", "answers"),
        "four.omr": change.replace("traces", "answers"),
    }
    assert ide.rename(at(change, "tra|ces {"), "answers", "four.omr") == found


def test_rename_of_a_module_gives_it_a_name_of_its_own(ide: Editor) -> None:
    found = ide.rename(at(RECIPE, "for|mats.think"), "prompts")["recipe.omr"]
    assert "use std.formats as prompts\n" in found
    assert "prompts.think_answer_short" in found


@pytest.mark.parametrize(
    ("place", "new", "reason"),
    [
        ("sample tra|ces", "puzzles", "has a `puzzles` already"),
        ("sample tra|ces", "from", "is a word of the language"),
        ("sample tra|ces", "9th", "is no name"),
        ("sample tra|ces", "answer", "is the name of a column"),
        ("sample tra|ces", "format_ok", "is the name of a function"),
        ("formats.think_answer_|short", "mine", "belongs to the standard library"),
        ("tempera|ture", "heat", "no name that a recipe gives"),
    ],
)
def test_rename_is_refused(ide: Editor, place: str, new: str, reason: str) -> None:
    with pytest.raises(JsonRpcException, match=reason):
        ide.rename(at(RECIPE, place), new)


def test_rename_is_refused_where_an_amending_file_has_the_name(ide: Editor) -> None:
    (ide.folder / "base.omr").write_text(RECIPE)
    more = 'amend "base.omr"\nbecause "more"\n\nmix answers from [puzzles: all]\n'
    (ide.folder / "more.omr").write_text(more)
    with pytest.raises(JsonRpcException, match=r"more\.omr has a `answers` already"):
        ide.rename(at(RECIPE, "sample tra|ces"), "answers", "base.omr")


def test_rename_is_refused_where_the_name_would_be_a_column(ide: Editor) -> None:
    (ide.folder / "rows.jsonl").write_text('{"q": "a", "level": "b"}\n')
    text = (
        'let mark = "x"\n\nsource s from jsonl("rows.jsonl") {\n'
        "  columns { question = q + mark }\n}\n"
    )
    assert "let sign" in ide.rename(at(text, "let ma|rk"), "sign")["recipe.omr"]
    with pytest.raises(JsonRpcException, match=r"`level` means something else in recipe\.omr"):
        ide.rename(at(text, "let ma|rk"), "level")


def test_rename_is_refused_beside_a_statement_that_cannot_be_read(ide: Editor) -> None:
    text = RECIPE + "\nfilter x from traces { keep = (\n"
    with pytest.raises(JsonRpcException, match="cannot be read and says `traces`"):
        ide.rename(at(text, "sample tra|ces"), "answers")
