"""Messages of an editor become calls of the features. Alone knows pygls; a feature that fails answers nothing.

Everything runs on the loop's one thread, because a recipe is read in milliseconds; only plans have a thread of their own,
because they hash data files.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from omrlang import __version__
from omrlang.files import library_folder
from omrlang.hir import Recipe
from omrlang.lsp.completion import TRIGGERS, complete
from omrlang.lsp.definition import define
from omrlang.lsp.formatting import formatting
from omrlang.lsp.hover import hover
from omrlang.lsp.inlay import inlay_hints
from omrlang.lsp.lens import code_lenses
from omrlang.lsp.planner import Planner
from omrlang.lsp.positions import to_range
from omrlang.lsp.problems import fixes, problems
from omrlang.lsp.references import references
from omrlang.lsp.rename import Refused, rename, renameable
from omrlang.lsp.symbols import symbols
from omrlang.lsp.view import View
from omrlang.lsp.workspace import Workspace
from omrlang.plan import Plan
from omrlang.source import Span

QUIET_SECONDS = 0.15
"""How long nothing is typed before a recipe is checked."""

log = logging.getLogger("omr.lsp")
Answer = TypeVar("Answer")


class Server(LanguageServer):
    """``plans`` are the newest by file, ``planned`` the recipes that they are or will be made of, ``told`` the files in which
    something is wrong, ``waiting`` the check that comes once nothing is typed."""

    def __init__(self) -> None:
        # The whole text with each change: pygls counts lines as Python does, and an edit in a file with a form feed in it
        # would go astray.
        super().__init__("omr", __version__, text_document_sync_kind=lsp.TextDocumentSyncKind.Full)
        self.files = Workspace()
        self.told: set[Path] = set()
        self.plans: dict[Path, Plan] = {}
        self.planned: dict[Path, Recipe] = {}
        self.waiting: asyncio.Task[None] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.planner = Planner(self._plan_made)

    def _plan_made(self, path: Path, plan: Plan) -> None:
        """In the planner's thread; everything else happens in the loop's."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(guarded(_planned), self, path, plan)

    @property
    def encoding(self) -> str:
        return self.workspace.position_encoding or lsp.PositionEncodingKind.Utf16

    def view(self, uri: str) -> View | None:
        """None for what is no file on this machine."""
        path = _path(uri)
        return None if path is None else self.files.view(path)


def start() -> None:
    """Serve on standard input and output until the editor leaves. Nothing else can write there meanwhile."""
    sys.stdout.flush()
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as wire, redirect_stdout(sys.stderr):
        make_server().start_io(sys.stdin.buffer, wire)


def _path(uri: str) -> Path | None:
    name = to_fs_path(uri)
    return Path(name).resolve() if name else None


def guarded(feature: Callable[..., Answer]) -> Callable[..., Answer | None]:
    """A feature whose own mistakes are logged, here and in the editor, and answered with nothing."""

    @functools.wraps(feature)
    def safe(server: Server, *args: Any) -> Answer | None:
        try:
            return feature(server, *args)
        except Refused as reason:
            raise JsonRpcInvalidParams(str(reason)) from None
        except Exception:  # a boundary: the editor goes on without this one answer
            log.exception("%s failed", feature.__name__)
            told = f"{feature.__name__} failed\n{traceback.format_exc()}"
            server.window_log_message(lsp.LogMessageParams(lsp.MessageType.Error, told))
            return None

    return safe


def make_server() -> Server:
    """A server with all features."""
    server = Server()
    for method, options, feature in FEATURES:
        server.feature(method, options)(_bound(server, guarded(feature)))
    return server


def _bound(server: Server, feature: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda params: feature(server, params)


# ---- files -------------------------------------------------------------------------------------


def _initialized(server: Server, params: lsp.InitializedParams) -> None:
    folders = [_path(folder.uri) for folder in server.workspace.folders.values()]
    root = _path(server.workspace.root_uri) if server.workspace.root_uri else None
    server.files.folders = [folder for folder in folders or [root] if folder is not None]


def _did_open(server: Server, params: lsp.DidOpenTextDocumentParams) -> None:
    document = params.text_document
    path = _path(document.uri)
    if path is not None:
        server.files.put(path, document.uri, document.text)
        _soon(server, 0)


def _did_change(server: Server, params: lsp.DidChangeTextDocumentParams) -> None:
    uri = params.text_document.uri
    path = _path(uri)
    if path is not None:
        server.files.put(path, uri, server.workspace.get_text_document(uri).source)
        _soon(server, QUIET_SECONDS)


def _did_close(server: Server, params: lsp.DidCloseTextDocumentParams) -> None:
    path = _path(params.text_document.uri)
    if path is not None:
        server.files.drop(path)
        server.plans.pop(path, None)
        server.planned.pop(path, None)
        _soon(server, 0)


def _did_save(server: Server, params: object) -> None:
    _soon(server, 0)


def _folders_changed(server: Server, params: lsp.DidChangeWorkspaceFoldersParams) -> None:
    _initialized(server, lsp.InitializedParams())


# ---- what is told without being asked ----------------------------------------------------------


def _soon(server: Server, seconds: float) -> None:
    """Check what is open once nothing was typed for so long."""
    if server.waiting is not None:
        server.waiting.cancel()
    server.loop = asyncio.get_running_loop()
    server.waiting = server.loop.create_task(_after(server, seconds))


async def _after(server: Server, seconds: float) -> None:
    await asyncio.sleep(seconds)
    guarded(_tell)(server)
    for path in list(server.files.texts):
        guarded(_plan)(server, path)


def _tell(server: Server) -> None:
    """What is wrong, in every file that has or had something wrong with it."""
    found = problems(server.files.open_views(), server.files.uri, server.encoding)
    for path in {*found, *server.told}:
        server.text_document_publish_diagnostics(
            lsp.PublishDiagnosticsParams(server.files.uri(path), found.get(path, []))
        )
    server.told = {path for path, items in found.items() if items}


def _plan(server: Server, path: Path) -> None:
    """Plan a recipe that is right and has changed, beside everything else."""
    recipes, _ = server.files.view(path).checked
    if recipes and server.planned.get(path) != recipes[0]:
        server.planned[path] = recipes[0]
        server.planner.wish(path, recipes[0], _state(server, path))


def _planned(server: Server, path: Path, plan: Plan) -> None:
    server.plans[path] = plan
    if _can_refresh(server):
        server.workspace_code_lens_refresh(None)


def _can_refresh(server: Server) -> bool:
    capabilities = server.client_capabilities.workspace
    return bool(capabilities and capabilities.code_lens and capabilities.code_lens.refresh_support)


def _state(server: Server, path: Path) -> Path:
    """The folder of earlier runs: in the workspace, where ``omr`` is mostly called, else beside the recipe."""
    found = [folder / ".omr" for folder in (*server.files.folders, path.parent)]
    return next((state for state in found if state.is_dir()), found[-1])


# ---- what is asked -----------------------------------------------------------------------------


def _complete(server: Server, params: lsp.CompletionParams) -> lsp.CompletionList | None:
    view = server.view(params.text_document.uri)
    if view is None:
        return None
    items = complete(view, params.position, server.encoding, snippets=_takes_snippets(server))
    return lsp.CompletionList(is_incomplete=False, items=items)


def _takes_snippets(server: Server) -> bool:
    known = server.client_capabilities.text_document
    item = known.completion.completion_item if known and known.completion else None
    return bool(item and item.snippet_support)


def _hover(server: Server, params: lsp.HoverParams) -> lsp.Hover | None:
    view = server.view(params.text_document.uri)
    return None if view is None else hover(view, params.position, server.encoding)


def _definition(server: Server, params: lsp.DefinitionParams) -> lsp.Location | None:
    view = server.view(params.text_document.uri)
    found = None if view is None else define(view, params.position, server.encoding)
    return None if found is None else _location(server, *found)


def _location(server: Server, path: Path, span: Span) -> lsp.Location:
    return lsp.Location(server.files.uri(path), to_range(span, server.encoding))


def _references(server: Server, params: lsp.ReferenceParams) -> list[lsp.Location] | None:
    view = server.view(params.text_document.uri)
    if view is None:
        return None
    declaration = params.context.include_declaration
    views = _everywhere(server, view)
    found = references(view, params.position, server.encoding, views, declaration=declaration)
    return [_location(server, item.path, item.mention.span) for item in found]


def _everywhere(server: Server, view: View) -> list[View]:
    """The workspace's files, and those that this one reads, in and outside of it."""
    views = {item.path: item for item in server.files.views()}
    others = {path for path in view.real.values() if path not in views and path.is_file()}
    return [*views.values(), *map(server.files.view, sorted(others))]


def _prepare_rename(server: Server, params: lsp.PrepareRenameParams) -> lsp.Range | None:
    view = server.view(params.text_document.uri)
    if view is None:
        return None
    return renameable(view, params.position, server.encoding, library_folder())


def _rename(server: Server, params: lsp.RenameParams) -> lsp.WorkspaceEdit | None:
    view = server.view(params.text_document.uri)
    if view is None:
        return None
    views = _everywhere(server, view)
    edits = rename(view, params.position, server.encoding, params.new_name, views, library_folder())
    changes = {
        server.files.uri(path): [
            lsp.TextEdit(to_range(edit.span, server.encoding), edit.text) for edit in items
        ]
        for path, items in edits.items()
    }
    return lsp.WorkspaceEdit(changes=changes)


def _symbols(server: Server, params: lsp.DocumentSymbolParams) -> list[lsp.DocumentSymbol] | None:
    view = server.view(params.text_document.uri)
    return None if view is None else symbols(view, server.encoding)


def _formatting(server: Server, params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit] | None:
    view = server.view(params.text_document.uri)
    return None if view is None else formatting(view, server.encoding)


def _fixes(server: Server, params: lsp.CodeActionParams) -> list[lsp.CodeAction] | None:
    view = server.view(params.text_document.uri)
    if view is None:
        return None
    return [*fixes(view, params.range, server.files.uri, server.encoding)]


def _inlay(server: Server, params: lsp.InlayHintParams) -> list[lsp.InlayHint] | None:
    view = server.view(params.text_document.uri)
    return None if view is None else [*inlay_hints(view, params.range, server.encoding)]


def _lenses(server: Server, params: lsp.CodeLensParams) -> list[lsp.CodeLens] | None:
    view = server.view(params.text_document.uri)
    if view is None:
        return None
    plan = server.plans.get(view.path)
    return None if plan is None else [*code_lenses(view, plan, server.encoding)]


FEATURES: tuple[tuple[str, Any, Callable[..., Any]], ...] = (
    (lsp.INITIALIZED, None, _initialized),
    (lsp.TEXT_DOCUMENT_DID_OPEN, None, _did_open),
    (lsp.TEXT_DOCUMENT_DID_CHANGE, None, _did_change),
    (lsp.TEXT_DOCUMENT_DID_CLOSE, None, _did_close),
    (lsp.TEXT_DOCUMENT_DID_SAVE, None, _did_save),
    (lsp.WORKSPACE_DID_CHANGE_WATCHED_FILES, None, _did_save),
    (lsp.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS, None, _folders_changed),
    (lsp.TEXT_DOCUMENT_COMPLETION, lsp.CompletionOptions(TRIGGERS), _complete),
    (lsp.TEXT_DOCUMENT_HOVER, None, _hover),
    (lsp.TEXT_DOCUMENT_DEFINITION, None, _definition),
    (lsp.TEXT_DOCUMENT_REFERENCES, None, _references),
    (lsp.TEXT_DOCUMENT_PREPARE_RENAME, None, _prepare_rename),
    (lsp.TEXT_DOCUMENT_RENAME, lsp.RenameOptions(prepare_provider=True), _rename),
    (lsp.TEXT_DOCUMENT_DOCUMENT_SYMBOL, None, _symbols),
    (lsp.TEXT_DOCUMENT_FORMATTING, None, _formatting),
    (
        lsp.TEXT_DOCUMENT_CODE_ACTION,
        lsp.CodeActionOptions([lsp.CodeActionKind.QuickFix]),
        _fixes,
    ),
    (lsp.TEXT_DOCUMENT_INLAY_HINT, None, _inlay),
    (lsp.TEXT_DOCUMENT_CODE_LENS, lsp.CodeLensOptions(resolve_provider=False), _lenses),
)
