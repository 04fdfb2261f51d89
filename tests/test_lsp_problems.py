"""Diagnostics as one types, and their quick fixes. Driven by a real client over standard input and output."""

from __future__ import annotations

from lsprotocol import types as lsp

from tests.editor import RECIPE, Editor, applied


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


def test_quick_fix_of_a_module_that_is_not_used(ide: Editor) -> None:
    text = RECIPE.replace("use std.formats\n", "")
    ide.open(text)
    problem = ide.problems("E201")[0]
    params = lsp.CodeActionParams(
        ide.document(), problem.range, lsp.CodeActionContext(diagnostics=[problem])
    )
    (found,) = ide.ask(ide.client.text_document_code_action_async(params))
    assert found.title == "Add `use std.formats`"
    after = applied(text, found.edit.changes[ide.uri("recipe.omr")])
    assert after == text.replace("use std.models\n", "use std.models\nuse std.formats\n")
