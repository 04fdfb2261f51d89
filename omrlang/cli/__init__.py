"""Arguments to a command's exit code. Each command is a module of its own, imported only when it is asked for."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from gc import set_threshold
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from omrlang import __version__
from omrlang.cli.exits import EXIT_CODES
from omrlang.diagnostics import InputError, UsageError

COMMANDS: dict[str, str] = {
    "check": "find what is wrong with a recipe, without running anything",
    "fmt": "format recipes",
    "fix": "mend mistakes that only one thing can be meant by",
    "explain": "say what a code means, with an example and why",
    "plan": "show what a run would do and what it takes",
    "lock": "write down what a recipe reads from outside, so that a change is noticed",
    "diff": "compare recipes as an ablation",
    "ablate": "run every variant of a recipe and compare them",
    "run": "run a recipe: only what is not there yet",
    "probe": "measure a small slice of a stage, so that the plan of it stands on this machine",
    "show": "list runs, stages or rows",
    "why": "tell a row's whole life",
    "why-not": "tell where a row was dropped, and by which rule",
    "why-rerun": "tell why a stage runs again, setting by setting",
    "funnel": "count what a stage kept and dropped, by reason",
    "trace": "tell where a file went, or where it came from",
    "sql": "ask the lineage and the rows in SQL",
    "gc": "delete what no recipe and no plan needs any more",
    "export": "write a stage as a dataset with its card, or a run as OpenLineage events",
    "report": "write what ran as one HTML page",
    "schema": "print the settings of the stage kinds as JSON Schema",
    "lsp": "serve an editor: diagnostics, completion, hover, rename and more",
}
USAGE = 64
INTERRUPTED = 5


class _Parser(argparse.ArgumentParser):
    """argparse with this project's exit code for wrong usage."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"omr: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; never a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # What a command makes it mostly keeps: looking for garbage would be a tenth of a check.
    set_threshold(500_000)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("omr: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`omr plan … | head`); nothing is left to say, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UsageError as error:
        print(f"omr: {error}", file=sys.stderr)
        return USAGE
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except Exception as error:  # noqa: BLE001 - the last boundary: a person gets a message and a file
        return _internal_error(error, arguments)


def _run(arguments: list[str]) -> int:
    parser = _Parser(
        prog="omr",
        description="Post-training recipes: check, plan, compare, run.",
        epilog="exit codes: " + " · ".join(f"{code} {text}" for code, text in EXIT_CODES.items()),
    )
    parser.add_argument("--version", action="version", version=f"omr {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    asked = next((word for word in arguments if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        # Only the command that is asked for is imported; of the others the help needs a line each.
        if name == asked:
            import_module(f"omrlang.cli.{name.replace('-', '_')}").add(subparsers)
        else:
            subparsers.add_parser(name, help=summary, add_help=False)
    if asked is None or asked not in COMMANDS:
        _no_command(parser, arguments, asked)
    args = parser.parse_args(arguments)
    code: int = args.run(args)
    sys.stdout.flush()
    return code


def _no_command(parser: _Parser, arguments: list[str], asked: str | None) -> None:
    """Help and version still work; anything else is wrong usage."""
    if asked is None:
        parser.parse_args(arguments)
        parser.print_help(sys.stderr)
        parser.exit(USAGE)
    from omrlang.diagnostics import nearest

    near = nearest(asked, COMMANDS)
    hint = f"; `{near}` is one" if near else f"; there are {', '.join(COMMANDS)}"
    parser.error(f"`{asked}` is no command{hint}")


def _internal_error(error: Exception, arguments: list[str]) -> int:
    """Keep the traceback in a file, where a bug report finds it."""
    text = "".join(traceback.format_exception(error))
    shown = f"omr {__version__}\nPython {sys.version}\narguments: {arguments}\n\n{text}"
    try:
        handle, name = tempfile.mkstemp(prefix="omr-error-", suffix=".log")
        with os.fdopen(handle, "w") as file:
            file.write(shown)
        place = f"; the details are in {Path(name)}"
    except OSError:
        place = ""
    print(f"omr: internal error: {type(error).__name__}: {error}{place}", file=sys.stderr)
    return 1
