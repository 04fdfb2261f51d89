"""Outline, formatting, inlay hints and code lenses of a recipe. Driven by a real client over standard input and output."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest
from lsprotocol import types as lsp

from omrlang.lsp.planner import Planner
from tests.editor import RECIPE, Editor, applied


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
