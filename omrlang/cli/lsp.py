"""``omr lsp``: the language server for editors, on standard input and output."""

from __future__ import annotations

import argparse
import sys


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("lsp", help="serve an editor on standard input and output")
    parser.add_argument(
        "--stdio", action="store_true", help="what editors say; the only way there is"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until the editor leaves; 1 where the server's packages are not installed."""
    import logging

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    try:
        import pygls  # noqa: F401
    except ImportError:
        print('omr: the language server needs `pip install "omrlang[lsp]"`', file=sys.stderr)
        return 1
    from omrlang.lsp.server import start

    start()
    return 0
