"""Whatever is typed is answered, and a mistake of the server is told. Driven by a real client over standard input and output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from lsprotocol import types as lsp

from omrlang.lsp.server import guarded
from tests.editor import RECIPE, Editor

ROOT = Path(__file__).parents[1]


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
