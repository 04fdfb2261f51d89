"""An editor for tests: drives ``omr lsp`` over standard input and output with a real client, one call at a time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lsprotocol import types as lsp
from pytest_lsp import LanguageClient, client_capabilities, make_test_lsp_client

SECONDS = 60

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


class Editor:
    """Files lie in ``folder``. A ``|`` in a text is where the cursor stands; it is not part of the text."""

    def __init__(self, runner: asyncio.Runner, client: LanguageClient, folder: Path) -> None:
        self.runner, self.client, self.folder = runner, client, folder
        self.texts: dict[str, str] = {}
        self.refreshed = 0
        client.feature(lsp.WORKSPACE_CODE_LENS_REFRESH)(lambda params: self._refresh())
        self.versions: dict[str, int] = {}

    def _refresh(self) -> None:
        self.refreshed += 1

    def complaints(self) -> list[str]:
        """What the server told of its own mistakes."""
        return [item.message for item in self.client.log_messages]

    # ---- files and cursors ---------------------------------------------------------------------

    def uri(self, name: str) -> str:
        return (self.folder / name).resolve().as_uri()

    def open(self, text: str, name: str = "recipe.omr") -> lsp.Position:
        """Show a text as a file, or type until the file has it; where the cursor is then."""
        text, at = text.replace("|", "", 1), text.find("|")
        if name in self.texts:
            self._change(name, text)
        else:
            document = lsp.TextDocumentItem(self.uri(name), "omr", 1, text)
            self.client.text_document_did_open(lsp.DidOpenTextDocumentParams(document))
            self.versions[name] = 1
        self.texts[name] = text
        before = text[: max(at, 0)]
        units = len(before.rpartition("\n")[2].encode("utf-16-le")) // 2
        return lsp.Position(before.count("\n"), units)

    def _change(self, name: str, text: str) -> None:
        self.versions[name] += 1
        document = lsp.VersionedTextDocumentIdentifier(self.versions[name], self.uri(name))
        change = lsp.TextDocumentContentChangeWholeDocument(text)
        self.client.text_document_did_change(lsp.DidChangeTextDocumentParams(document, [change]))

    def close(self) -> None:
        for name in self.texts:
            document = lsp.TextDocumentIdentifier(self.uri(name))
            self.client.text_document_did_close(lsp.DidCloseTextDocumentParams(document))
        self.texts.clear()

    # ---- questions -----------------------------------------------------------------------------

    def ask(self, question: Any) -> Any:
        return self.runner.run(asyncio.wait_for(question, SECONDS))

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        """Wait for something that the server does by itself."""

        async def wait() -> Any:
            while not (found := holds()):
                await asyncio.sleep(0.02)
            return found

        try:
            return self.ask(wait())
        except TimeoutError:
            raise AssertionError(f"never seen: {what}") from None

    def document(self, name: str = "recipe.omr") -> lsp.TextDocumentIdentifier:
        return lsp.TextDocumentIdentifier(self.uri(name))

    def completions(self, text: str, name: str = "recipe.omr") -> dict[str, lsp.CompletionItem]:
        params = lsp.CompletionParams(self.document(name), self.open(text, name))
        found = self.ask(self.client.text_document_completion_async(params))
        return {item.label: item for item in found.items}

    def hover(self, text: str, name: str = "recipe.omr") -> str:
        params = lsp.HoverParams(self.document(name), self.open(text, name))
        found = self.ask(self.client.text_document_hover_async(params))
        return "" if found is None else found.contents.value

    def definition(self, text: str, name: str = "recipe.omr") -> lsp.Location | None:
        params = lsp.DefinitionParams(self.document(name), self.open(text, name))
        return self.ask(self.client.text_document_definition_async(params))

    def references(self, text: str, name: str = "recipe.omr") -> list[str]:
        """As ``file:line:column``, from 1."""
        context = lsp.ReferenceContext(include_declaration=True)
        params = lsp.ReferenceParams(context, self.document(name), self.open(text, name))
        found = self.ask(self.client.text_document_references_async(params))
        return sorted(shown(item) for item in found)

    def rename(self, text: str, new: str, name: str = "recipe.omr") -> dict[str, str]:
        """The changed files as they are then."""
        params = lsp.RenameParams(self.document(name), self.open(text, name), new)
        found = self.ask(self.client.text_document_rename_async(params))
        return {Path(uri).name: self.edited(uri, edits) for uri, edits in found.changes.items()}

    def edited(self, uri: str, edits: list[lsp.TextEdit]) -> str:
        name = Path(uri).name
        text = self.texts.get(name)
        return applied((self.folder / name).read_text() if text is None else text, edits)

    def problems(self, code: str | None, name: str = "recipe.omr") -> list[lsp.Diagnostic]:
        """What is wrong with a file, once ``code`` is among it, or once nothing is."""

        def seen() -> list[lsp.Diagnostic] | None:
            found = self.client.diagnostics.get(self.uri(name))
            codes = {item.code for item in found or ()}
            right = found is not None and (not codes if code is None else code in codes)
            return (
                [lsp.Diagnostic] if right and not found else (list(found or ()) if right else None)
            )

        found = self.until(seen, f"{code} in {name}")
        return [] if code is None else found


def at(text: str, place: str) -> str:
    """The text with the cursor in the first ``place``, where its ``|`` is."""
    plain = place.replace("|", "")
    assert plain in text
    return text.replace(plain, place, 1)


def shown(location: lsp.Location) -> str:
    start = location.range.start
    return f"{Path(location.uri).name}:{start.line + 1}:{start.character + 1}"


def applied(text: str, edits: list[lsp.TextEdit]) -> str:
    """Edits of one file, none of which overlap."""

    def offset(position: lsp.Position) -> int:
        lines = text.split("\n")
        line = lines[position.line].encode("utf-16-le")[: 2 * position.character]
        return sum(len(one) + 1 for one in lines[: position.line]) + len(line.decode("utf-16-le"))

    for edit in sorted(edits, key=lambda edit: offset(edit.range.start), reverse=True):
        text = text[: offset(edit.range.start)] + edit.new_text + text[offset(edit.range.end) :]
    return text


@contextmanager
def editor(folder: Path, like: str = "visual_studio_code") -> Iterator[Editor]:
    """A server with a client that can do what the editor ``like`` can."""
    with asyncio.Runner() as runner:
        client = make_test_lsp_client()
        runner.run(client.start_io(sys.executable, "-m", "omrlang", "lsp"))
        workspace = lsp.WorkspaceFolder(folder.resolve().as_uri(), folder.name)
        params = lsp.InitializeParams(
            capabilities=client_capabilities(like),
            root_uri=workspace.uri,
            workspace_folders=[workspace],
        )
        runner.run(client.initialize_session(params))
        try:
            yield Editor(runner, client, folder)
        finally:
            runner.run(client.shutdown_session())
            runner.run(client.stop())
