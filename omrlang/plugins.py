"""The entry of a Python verifier to the code that it runs: every file of it below the recipe's folder, read, never run.

What is imported from that folder, by an ``import`` statement anywhere in a file that counts, counts too. Installed
packages do not: their versions belong to the environment.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MAX_BYTES = 1 << 20


class Unreadable(ValueError):
    """Code that is not there, is not Python or lies outside of the recipe's folder. ``str`` says which and why."""


@dataclass(frozen=True, slots=True)
class Code:
    """``files`` are below the folder, the entry's own first; ``defines`` the top-level names of that one, None where
    an ``import *`` leaves them open."""

    files: tuple[PurePosixPath, ...]
    digest: str
    defines: frozenset[str] | None


def split_entry(entry: str) -> tuple[str, str]:
    """``"my_pkg.rewards:score"`` to module and function. Raises Unreadable.

    >>> split_entry("my_pkg.rewards:score")
    ('my_pkg.rewards', 'score')
    """
    module, colon, function = entry.partition(":")
    if not (colon and function.isidentifier() and all(p.isidentifier() for p in module.split("."))):
        raise Unreadable(f"{entry!r} is not of the form module:function")
    return module, function


def read_code(folder: Path, entry: str) -> Code:
    """All code of an entry. Raises Unreadable."""
    module, _ = split_entry(entry)
    root = folder.resolve()
    found = _files_of(root, module)
    if not found or found[-1].stem not in (module.rpartition(".")[2], "__init__"):
        raise Unreadable(f"{module.replace('.', '/')}.py is not in the recipe's folder")
    own = found[-1]
    trees: dict[Path, ast.Module] = {}
    todo = [own, *found]
    while todo:
        file = todo.pop(0)
        if file not in trees:
            trees[file] = _parsed(root, file)
            todo += [
                more for name in _imports(root, file, trees[file]) for more in _files_of(root, name)
            ]
    names = tuple(PurePosixPath(file.relative_to(root).as_posix()) for file in trees)
    return Code(names, _digest(root, trees), _defined(trees[own]))


def _files_of(root: Path, module: str) -> list[Path]:
    """The files that importing a dotted name runs, outermost package first; those that are not below ``root`` are not
    among them, nor is the name's last part where it is no module."""
    found, folder = [], root
    for part in module.split("."):
        package, file = folder / part / "__init__.py", folder / f"{part}.py"
        if package.is_file():
            found.append(package)
        elif file.is_file():
            return [*found, file]
        elif not (folder / part).is_dir():
            break
        folder = folder / part
    return found


def _parsed(root: Path, file: Path) -> ast.Module:
    shown = file.relative_to(root)
    if not file.resolve().is_relative_to(root):
        raise Unreadable(f"{shown} leads out of the recipe's folder")
    try:
        text = file.read_bytes()
        if len(text) > MAX_BYTES:
            raise Unreadable(f"{shown} is over 1 MiB")
        return ast.parse(text)
    except OSError as error:
        raise Unreadable(f"{shown} cannot be read: {error.strerror}") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise Unreadable(f"{shown}{line} is no Python") from error


def _imports(root: Path, file: Path, tree: ast.Module) -> Iterator[str]:
    """Dotted names that a file may import, relative ones made whole."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = file.parent.relative_to(root).parts
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base:
                yield base
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)


def _defined(tree: ast.Module) -> frozenset[str] | None:
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names |= {alias.asname or alias.name for alias in node.names}
            case ast.Assign() | ast.AnnAssign():
                names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            case ast.If() | ast.Try() | ast.With():
                return None
            case _:
                pass
    return None if "*" in names else frozenset(names)


def _digest(root: Path, files: dict[Path, ast.Module]) -> str:
    """Of names and contents; the order in which they were found does not count."""
    whole = hashlib.sha256()
    for file in sorted(files):
        name = file.relative_to(root).as_posix().encode()
        whole.update(b"%d %b %d " % (len(name), name, file.stat().st_size) + file.read_bytes())
    return whole.hexdigest()
