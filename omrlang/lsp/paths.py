"""A text that is being typed becomes the files that it may name: recipes to use or amend, data, models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lsprotocol.types import CompletionItem, CompletionItemKind

from omrlang.lsp.cursor import Cursor
from omrlang.lsp.standing import wanted
from omrlang.lsp.view import View
from omrlang.patterns import at_home

MAX_ENTRIES = 200


def typed_path(view: View, offset: int) -> tuple[str, str]:
    """What is typed of a text up to the cursor: the folders of a path, and the name that is begun."""
    line = view.source.text.rfind("\n", 0, offset) + 1
    typed = view.source.text[line:offset].rpartition('"')[2]
    folders, slash, name = typed.rpartition("/")
    return folders + slash, name


def path_items(view: View, cursor: Cursor, offset: int) -> Iterator[CompletionItem]:
    """Files and folders beside the recipe, or where the folders typed so far lead to."""
    first = cursor.words[0] if cursor.words else ""
    is_recipe = first in ("use", "amend")
    key = wanted(view, cursor).key
    if not is_recipe and (key is None or key.name != "path"):
        return
    folders, _ = typed_path(view, offset)
    for entry in _entries(view.path.parent / at_home(folders)):
        if entry.is_dir():
            yield CompletionItem(f"{entry.name}/", kind=CompletionItemKind.Folder)
        elif not is_recipe or (entry.suffix == ".omr" and entry.resolve() != view.path):
            yield CompletionItem(entry.name, kind=CompletionItemKind.File)


def _entries(folder: Path) -> list[Path]:
    try:
        found = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except (OSError, ValueError):
        return []
    return found[:MAX_ENTRIES]
