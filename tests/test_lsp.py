"""The language server answers as somebody types, driven by a real client over standard input and output."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from threading import Event
from typing import Any, cast

import pytest
from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcException

from omrlang.lsp.planner import Planner
from omrlang.lsp.server import guarded
from tests.editor import Editor, applied, editor, shown

ROOT = Path(__file__).parents[1]

RECIPE = """\
omr 1

use std.formats
use std.models

seed = 7

let length = 64

# Drawn puzzles.
source puzzles from synthetic("shapes", n = 300, seed = 11)

model teacher = scripted("shapes", right = 70%)

sample traces from puzzles with teacher {
  n           = 2
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = length
}

filter accepted from traces {
  keep = format_ok and len(answer) <= 50
}
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    with editor(tmp_path_factory.mktemp("recipes")) as made:
        yield made


@pytest.fixture
def ide(shared: Editor) -> Iterator[Editor]:
    """The one editor with nothing open and nothing on disk. Whatever a test asks, the server must not fail inside."""
    shared.client.log_messages.clear()
    yield shared
    shared.close()
    assert shared.complaints() == []
    for path in shared.folder.glob("*"):
        path.unlink()


# ---- completion --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "offered", "not_offered"),
    [
        pytest.param("sam|", "source sample eval model use let budget", "temperature", id="kinds"),
        pytest.param("filter x fr|", "from on", "with", id="clauses of the kind"),
        pytest.param("filter x from traces |", "on", "from with", id="clauses not given yet"),
        pytest.param("use std.|", "models gpus formats", "traces", id="modules of the library"),
        pytest.param("use |", "std.models", "traces", id="modules with their library"),
        pytest.param("allow W|", "W101 W104", "E101", id="codes of warnings"),
        pytest.param("filter x from |", "puzzles traces accepted", "teacher", id="rows"),
        pytest.param("sample x from puzzles with |", "teacher models.qwen2_5_1_5b", "traces", id="models"),
        pytest.param("sample x from puzzles with models.|", "qwen2_5_1_5b", "teacher", id="after a dot"),
        pytest.param("sft x from traces with models.q|", "qwen2_5_1_5b", "traces", id="typed name"),
        pytest.param("source x from |", "jsonl hf synthetic", "puzzles", id="places"),
        pytest.param("mix x from [|", "puzzles traces", "teacher all", id="parts of a mix"),
        pytest.param("mix x from [puzzles: |", "all up_to times", "puzzles", id="amounts"),
        pytest.param("model x = |", "hf folder fresh teacher", "puzzles", id="what a model is made of"),
        pytest.param("model x = fresh(\"qwen2\", |", "layers hidden family", "gpu", id="arguments"),
        pytest.param("model x = fresh(family = |", "qwen2 qwen2_5_vl", "layers", id="words of an argument"),
        pytest.param("sample x from puzzles {\n  te|", "temperature n prompt top_p", "keep", id="keys"),
        pytest.param(
            "sample x from puzzles {\n  n = 1\n  |\n  top_p = 1.0\n}", "temperature", "n top_p", id="keys not given, before and behind"
        ),
        pytest.param("sft x from traces {\n  steps = 9\n  |\n}", "pack", "steps epochs", id="exactly one of"),
        pytest.param("sft x from traces { checkpoint { |", "every keep", "pack", id="keys of a group"),
        pytest.param("sft x from traces { checkpoint.|", "every keep", "pack", id="dotted keys"),
        pytest.param("sft x from traces { precision = |", "bf16 fp32", "true", id="choices"),
        pytest.param("sft x from traces { recompute = |", "true false", "bf16", id="truths"),
        pytest.param("sft x from traces { lr = |", "cosine constant linear", "zero", id="calls"),
        pytest.param("sft x from traces { lr = cosine(1e-5, |", "warmup floor", "betas", id="arguments by name"),
        pytest.param("sft x from traces { lr = cosine(1e-5, warmup = 25 |", "steps", "tokens", id="units"),
        pytest.param("sft x from traces { batch = 1 |", "packs rows", "tokens", id="units of an amount"),
        pytest.param("sample x from puzzles { prompt = |", "formats.think_answer", "teacher", id="prompts"),
        pytest.param("rl x from puzzles { algorithm = g|", "gspo grpo dapo", "cosine", id="algorithms"),
        pytest.param("filter x from traces { keep = |", "response answer_matches judge len length", "teacher", id="row"),
        pytest.param("filter x from puzzles { keep = a|", "answer", "response", id="columns of this stage"),
        pytest.param("filter x from traces { keep = answer |", "and or matches", "answer", id="operators"),
        pytest.param("filter x from traces { keep = judge(|", "teacher question sees", "puzzles", id="judges"),
        pytest.param("filter x from traces { keep = judge(teacher, sees = |", "response", "teacher", id="a judge's words"),
        pytest.param("filter x from traces { keep = pass_rate(|", "accepted", "teacher traces", id="filters"),
        pytest.param("source x from synthetic(\"shapes\") { columns { |", "question answer", "id", id="mapped columns"),
        pytest.param("source x from synthetic(\"shapes\", n = 1, seed = 1) { columns { answer = |", "thinking", "response", id="raw columns"),
        pytest.param("let x = teacher.|", "precision vision", "traces", id="parts of a thing"),
        pytest.param("filter x from traces { unique = |", "near none", "exact", id="words and calls"),
        pytest.param("filter x from traces { unique = near(|", "question response at text", "teacher", id="columns of a call"),
        pytest.param("filter x from traces { unique = near(question, |", "images at across", "teacher", id="all of its columns"),
        pytest.param("filter x from traces { unique = near(question, text = |", "minhash teacher", "phash question", id="calls and models"),
        pytest.param("mix x from [puzzles: all] { unique = |", "exact near none", "teacher", id="words and calls of a mix"),
        pytest.param("budget { |", "p50 p90", "n", id="limits"),
        pytest.param("sample x from puzzles { n = |", "sweep unpublished", "default", id="instead of a value"),
        pytest.param("# sam|", "", "sample", id="nothing in a comment"),
        pytest.param("let x = \"sam|", "", "sample", id="nothing in a text"),
    ],
)  # fmt: skip
def test_completion(ide: Editor, typed: str, offered: str, not_offered: str) -> None:
    """In a file whose last statement is being typed, so that it cannot be read."""
    found = ide.completions(RECIPE + "\n" + typed)
    assert set(offered.split()) <= set(found)
    assert not set(not_offered.split()) & set(found)


def test_completion_of_paths(ide: Editor) -> None:
    (ide.folder / "base.omr").write_text(RECIPE)
    (ide.folder / "train.jsonl").write_text("{}")
    assert set(ide.completions('amend "|')) == {"base.omr"}
    assert set(ide.completions('use "ba|')) == {"base.omr"}
    found = ide.completions('source x from jsonl("./train.js|')
    assert "train.jsonl" in found
    written = applied('source x from jsonl("./train.js', [found["train.jsonl"].text_edit])
    assert written == 'source x from jsonl("./train.jsonl'
    assert ide.completions('let x = "|') == {}


def test_completion_in_an_amending_file(ide: Editor) -> None:
    (ide.folder / "base.omr").write_text(RECIPE)
    head = 'amend "base.omr"\nbecause "why"\n\n'
    assert {"traces", "accepted", "sample"} <= set(ide.completions(head + "tra|"))
    assert {"with", "on", "from"} <= set(ide.completions(head + "traces |"))
    keys = ide.completions(head + "traces {\n  n = 4\n  |\n}")
    assert "max_tokens" in keys
    assert not {"n", "keep"} & set(keys)
    assert "default" in ide.completions(head + "traces { top_p = |")
    assert "answer_matches" in ide.completions(head + "accepted { keep = |")
    assert "`tokens`" in ide.hover(head + "traces { max_tok|ens = 9 }")


def test_completion_of_keys_tells_what_they_are(ide: Editor) -> None:
    found = ide.completions("sample x from y {\n  |\n}")
    item = found["max_tokens"]
    assert item.detail == "whole number · tokens · at least 1 · required"
    assert "longest response" in item.documentation.value
    assert "class `rows`" in item.documentation.value
    assert found["top_p"].detail.endswith("default 1")
    required = [item.label for item in sorted(found.values(), key=lambda item: item.sort_text)]
    assert set(required[:4]) == {"temperature", "n", "prompt", "max_tokens"}


def test_completion_replaces_what_is_typed(ide: Editor) -> None:
    text = RECIPE + '\n# 😀 é\nfilter x from traces { keep = "😀" == answ|'
    item = ide.completions(text)["answer_matches"]
    written = applied(text.replace("|", ""), [item.text_edit])
    assert written.endswith('"😀" == answer_matches')


def test_snippet_of_a_kind_has_what_it_needs(ide: Editor) -> None:
    item = ide.completions("sam|")["sample"]
    assert item.insert_text_format == lsp.InsertTextFormat.Snippet
    assert item.text_edit.new_text.startswith("sample ${1:name} from ${2} with ${3} {\n")
    assert "max_tokens = " in item.text_edit.new_text


def test_no_snippets_for_an_editor_without(tmp_path: Path) -> None:
    with editor(tmp_path, "neovim@v0.6.1") as ide:
        item = ide.completions("sam|")["sample"]
        plain = ide.client.capabilities.text_document.completion.completion_item.snippet_support
        assert not plain
        assert item.text_edit.new_text == "sample"


# ---- hover -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("max_tok|ens  = length", ["`tokens`", "required", "longest response", "class `rows`"]),
        ("tempera|ture = 1.0", ["at least 0", "0 is greedy"]),
        ("traces from puzzles wi|th teacher", ["the teacher", "class `rows`"]),
        ("from traces", ["sample traces from puzzles", "temperature = 1.0"]),
        ("formats.think_answer_short", ["prompt think_answer_short {}", "No system prompt"]),
        ("format_ok and", ["format_ok → bool", "reasoning format"]),
        ("len(answer)", ["len(any) → number", "characters of a text"]),
        ("answer) <=", ["the column `answer`, text"]),
        ("scripted(", ["```omr\nscripted(name, right)\n```", "a program, not a model"]),
        ("right = 70%", ["probability of a right trace"]),
        ("sample traces", ["reasoning traces, `n` for each input row", "settings:", "`max_tokens`"]),
        ("length\n}", ["let length = 64"]),
        ("puzzles with", ["source puzzles from", "Drawn puzzles."]),
    ],
)  # fmt: skip
def test_hover(ide: Editor, place: str, told: list[str]) -> None:
    plain = place.replace("|", "")
    # Without a cursor of its own a case means its first word; the last dotted part of it.
    word = (
        place if "|" in place else place.replace(".", ".|", 1) if "." in place[:9] else f"|{place}"
    )
    if plain.startswith("from "):
        word = "from |" + plain[5:]
    assert RECIPE.count(plain) >= 1
    at = RECIPE.rindex(plain) if plain == "from traces" else RECIPE.index(plain)
    found = ide.hover(RECIPE[:at] + word + RECIPE[at + len(plain) :])
    for part in told:
        assert part in found


def test_hover_of_nothing(ide: Editor) -> None:
    assert ide.hover("# sam|ple") == ""
    assert ide.hover("sample x from y { keep = not_th|ere }") == ""
    assert ide.hover("|") == ""


# ---- definition, references, rename ------------------------------------------------------------


def at(text: str, place: str) -> str:
    """The text with the cursor in the first ``place``, where its ``|`` is."""
    plain = place.replace("|", "")
    assert plain in text
    return text.replace(plain, place, 1)


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


# ---- diagnostics and fixes ---------------------------------------------------------------------


def test_diagnostics_as_one_types(ide: Editor) -> None:
    ide.open(RECIPE)
    assert ide.problems(None) == []
    broken = RECIPE.replace("temperature = 1.0", "temprature = 1.0")
    ide.open(broken)
    found = ide.problems("E203")
    line = broken[: broken.index("temprature")].count("\n")
    problem = next(item for item in found if item.code == "E203")
    assert problem.range == lsp.Range(lsp.Position(line, 2), lsp.Position(line, 12))
    assert problem.severity == lsp.DiagnosticSeverity.Error
    assert "temperature" in problem.message
    ide.open(RECIPE)
    assert ide.problems(None) == []


def test_diagnostics_over_unsaved_files(ide: Editor) -> None:
    text = 'use "lib.omr" as lib\n\nlet x = lib.n\nseed = x\n'
    (ide.folder / "lib.omr").write_text("let n = 1\n")
    ide.open(text)
    assert ide.problems(None) == []
    ide.open("let m = 1\n", "lib.omr")
    assert "`lib` has no `n`" in ide.problems("E201")[0].message
    ide.open("let n = 1\nlet k = = 2\n", "lib.omr")
    assert ide.problems("E101", "lib.omr")[0].range.start.line == 1
    ide.open("let n = 1\n", "lib.omr")
    assert ide.problems(None) == []
    assert ide.problems(None, "lib.omr") == []


def test_diagnostics_count_as_the_editor_does(ide: Editor) -> None:
    ide.open('let a = "😀𝒳é" + unknown_thing\nseed = a\n')
    place = ide.problems("E201")[0].range
    assert (place.start.character, place.end.character) == (18, 31)


def test_quick_fix(ide: Editor) -> None:
    text = RECIPE.replace("temperature = 1.0", "temprature = 1.0")
    ide.open(text)
    problem = next(item for item in ide.problems("E203") if item.code == "E203")
    params = lsp.CodeActionParams(
        ide.document(), problem.range, lsp.CodeActionContext(diagnostics=[problem])
    )
    found = ide.ask(ide.client.text_document_code_action_async(params))
    changes = found[0].edit.changes
    assert applied(text, changes[ide.uri("recipe.omr")]) == RECIPE
    assert found[0].kind == lsp.CodeActionKind.QuickFix
    elsewhere = lsp.Range(lsp.Position(0, 0), lsp.Position(0, 0))
    params = lsp.CodeActionParams(ide.document(), elsewhere, params.context)
    assert not ide.ask(ide.client.text_document_code_action_async(params))


# ---- outline, format, hints, lenses ------------------------------------------------------------


def test_symbols(ide: Editor) -> None:
    ide.open(RECIPE + "\nfilter broken from (")
    params = lsp.DocumentSymbolParams(ide.document())
    found = ide.ask(ide.client.text_document_document_symbol_async(params))
    assert [item.name for item in found] == [
        *("std.formats", "std.models", "seed", "length", "puzzles", "teacher", "traces", "accepted")
    ]
    traces = found[-2]
    assert traces.detail == "sample"
    assert [item.name for item in traces.children] == ["n", "prompt", "temperature", "max_tokens"]
    assert traces.range.start.line < traces.children[0].range.start.line <= traces.range.end.line


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("let  a=1\n\n\n\nlet b   = 2", "let a = 1\n\nlet b = 2\n"),
        ("let a = 1\r\nlet b = 2\r\n", "let a = 1\r\nlet b = 2\r\n"),
        ("# 😀\nmix  m from [ a:all ]  # 😀\n", None),
        ("let a = = 1\nlet  b = 2\n", "let a = = 1\nlet  b = 2\n"),
    ],
)
def test_formatting(ide: Editor, text: str, want: str | None) -> None:
    from omrlang.format import format_text

    ide.open(text)
    options = lsp.FormattingOptions(tab_size=2, insert_spaces=True)
    params = lsp.DocumentFormattingParams(ide.document(), options)
    edits = ide.ask(ide.client.text_document_formatting_async(params))
    assert applied(text, edits) == (format_text(text) if want is None else want)


def test_formatting_touches_only_what_changes(ide: Editor) -> None:
    text = RECIPE.replace("seed = 7", "seed   = 7")
    ide.open(text)
    options = lsp.FormattingOptions(tab_size=2, insert_spaces=True)
    params = lsp.DocumentFormattingParams(ide.document(), options)
    edits = ide.ask(ide.client.text_document_formatting_async(params))
    assert len(edits) == 1
    assert edits[0].new_text == "seed = 7\n"
    assert applied(text, edits) == RECIPE


def test_inlay_hints_say_what_is_not_written(ide: Editor) -> None:
    ide.open(RECIPE)
    everything = lsp.Range(lsp.Position(0, 0), lsp.Position(99, 0))
    params = lsp.InlayHintParams(ide.document(), everything)
    hints = ide.ask(ide.client.text_document_inlay_hint_async(params))
    labels = ["".join(part.value for part in hint.label) for hint in hints]
    assert labels == ["top_p = 1"]
    assert hints[0].position.line == RECIPE[: RECIPE.index("sample traces")].count("\n")
    written = RECIPE.replace("n           = 2", "n           = 2\n  top_p = 0.9")
    ide.open(written)
    assert not ide.ask(ide.client.text_document_inlay_hint_async(params))


def test_code_lenses_come_with_the_plan(ide: Editor) -> None:
    before = ide.refreshed
    ide.open(RECIPE)
    params = lsp.CodeLensParams(ide.document())

    def lenses() -> list[lsp.CodeLens]:
        return list(ide.runner.run(ide.client.text_document_code_lens_async(params)) or ())

    ide.until(lambda: ide.refreshed > before, "a plan")
    found = lenses()
    titles = [item.command.title for item in found]
    assert len(titles) == 3
    assert titles[0].startswith("new · 300 rows")
    assert titles[1].startswith("new · 300 → 600 rows")
    ide.open(RECIPE + "\nfilter broken from (")
    assert len(lenses()) == 3, "the last plan stays while something is being typed"


def test_a_plan_that_takes_long_holds_up_nothing(tmp_path: Path) -> None:
    going, go_on = Event(), Event()
    made: list[str] = []

    class Slow(Planner):
        def plan(self, path: Path, recipe: Any, state: Path) -> Any:
            going.set()
            assert go_on.wait(60)
            return recipe

    planner = Slow(lambda path, plan: made.append(str(plan)))
    planner.wish(tmp_path, cast(Any, "first"), tmp_path)
    assert going.wait(60)
    for recipe in ("second", "third"):
        planner.wish(tmp_path, cast(Any, recipe), tmp_path)
    assert not made
    go_on.set()
    while made != ["first", "third"]:
        time.sleep(0.01)


def test_code_lens_of_a_sweep_says_which_variant(ide: Editor) -> None:
    before = ide.refreshed
    ide.open(RECIPE.replace("n           = 2", "n           = sweep(2, 4)"))
    ide.until(lambda: ide.refreshed > before, "a plan")
    params = lsp.CodeLensParams(ide.document())
    found = ide.ask(ide.client.text_document_code_lens_async(params))
    assert all(item.command.title.endswith(" · traces.n=2") for item in found)


# ---- what must not break it --------------------------------------------------------------------


def test_every_prefix_of_a_recipe_is_answered(ide: Editor) -> None:
    """As if it were typed from the first letter to the last."""
    for end in range(0, len(RECIPE), 7):
        typed = RECIPE[:end]
        ide.completions(typed + "|")
        ide.hover(typed[: end // 2] + "|" + typed[end // 2 :])
        ide.definition(typed[: end // 2] + "|" + typed[end // 2 :])
        assert ide.complaints() == [], typed


@pytest.mark.parametrize(
    "text",
    ["\x00\x01|", 'amend "\x00|"', 'use "\x00" as n|', '"""|', "{{{{[[[((|", "a" * 5000 + "|", "😀|😀", "\r\r\n|\u2028x", ")|]}}", "amend |\"", 'amend "gone.omr"\nx { n|'],
)  # fmt: skip
def test_any_text_is_answered(ide: Editor, text: str) -> None:
    ide.completions(text)
    ide.hover(text)
    ide.definition(text)
    ide.references(text)
    params = lsp.DocumentSymbolParams(ide.document())
    assert ide.ask(ide.client.text_document_document_symbol_async(params)) is not None


def test_edits_at_random_are_answered(ide: Editor) -> None:
    """Pieces cut out of, and put into, recipes of every kind."""
    random = Random(7)
    recipes = [path.read_text() for path in sorted((ROOT / "pipelines").glob("*.omr"))]
    pieces = [*'{}()[]".=,:#\n', '"""', " from ", " with ", "sweep(", "judge(", "😀", "..", "5%", "let x = "]  # fmt: skip
    for _ in range(80):
        text = random.choice(recipes)
        for _ in range(random.choice([1, 2, 5])):
            at = random.randrange(len(text))
            cut = at + random.choice([0, 1, 40])
            text = text[:at] + random.choice([*pieces, ""]) + text[cut:]
        at = random.randrange(len(text))
        text = text[:at] + "|" + text[at:]
        ide.completions(text)
        ide.hover(text)
        ide.definition(text)
        ide.references(text)
        assert ide.complaints() == [], text


def test_a_mistake_of_the_server_is_told_and_answered_with_nothing() -> None:
    told: list[str] = []

    class Quiet:
        def window_log_message(self, params: lsp.LogMessageParams) -> None:
            told.append(params.message)

    def feature(server: Any, params: int) -> float:
        return 1 / params

    assert guarded(feature)(cast(Any, Quiet()), 2) == 0.5
    assert guarded(feature)(cast(Any, Quiet()), 0) is None
    assert "ZeroDivisionError" in told[0]


def test_without_its_packages_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['pygls'] = None; from omrlang.cli import main; sys.exit(main(['lsp']))"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == 'omr: the language server needs `pip install "omrlang[lsp]"`\n'


def test_what_is_no_file_is_answered_with_nothing(ide: Editor) -> None:
    uri = "untitled:Untitled-1"
    document = lsp.TextDocumentItem(uri, "omr", 1, "sam")
    ide.client.text_document_did_open(lsp.DidOpenTextDocumentParams(document))
    params = lsp.HoverParams(lsp.TextDocumentIdentifier(uri), lsp.Position(0, 1))
    assert ide.ask(ide.client.text_document_hover_async(params)) is None
