"""``omr export dataset STAGE DIR``, ``card STAGE FILE`` and ``lineage FILE``: what was made, in the forms that others read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from omrlang import __version__
from omrlang.cli.arguments import add_state


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its arguments."""
    parser = subparsers.add_parser("export", help="write what was made in forms that others read")
    what = parser.add_subparsers(dest="what", metavar="dataset | card | lineage", required=True)
    dataset = what.add_parser(
        "dataset", help="a stage's rows as a Hugging Face dataset folder with card and Croissant"
    )
    dataset.add_argument("stage", help="the stage's name or the start of its fingerprint")
    dataset.add_argument("out", type=Path, metavar="DIR", help="the folder to make")
    dataset.add_argument("--title", help="what the dataset is called (default the stage's name)")
    dataset.add_argument("--url", help="where it will be published, for its Croissant description")
    card = what.add_parser("card", help="the card of a trained model, with what it scored")
    card.add_argument("stage", help="the sft or rl stage's name or the start of its fingerprint")
    card.add_argument("out", type=Path, metavar="FILE", help="the file to write, such as README.md")
    card.add_argument("--title", help="what the model is called (default the stage's name)")
    lineage = what.add_parser("lineage", help="a run as OpenLineage events, one a line")
    lineage.add_argument("out", type=Path, metavar="FILE", help="the file to write")
    lineage.add_argument("--run", dest="run_id", metavar="RUN", help="which run (default the last)")
    for one in (dataset, card, lineage):
        add_state(one)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write; what is there already is left alone."""
    from omr_runtime.errors import RunError

    try:
        print(WRITERS[args.what](args))
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename or args.out}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _dataset(args: argparse.Namespace) -> str:
    from omr_runtime.export.dataset import export_dataset

    facts = export_dataset(args.state, args.stage, args.out, __version__, args.title, args.url)
    files = len(facts.files)
    return f"{facts.num_rows:,} rows in {files} file{'' if files == 1 else 's'}: {args.out}"


def _card(args: argparse.Namespace) -> str:
    from omr_runtime.export.model_card import model_card
    from omr_runtime.store import State

    text = model_card(State(args.state), args.stage, __version__, args.title)
    with args.out.open("x", encoding="utf-8") as file:
        file.write(text)
    return f"{len(text.encode()) / 1000:,.0f} kB: {args.out}"


def _lineage(args: argparse.Namespace) -> str:
    from omr_runtime.export.openlineage import export_events

    return f"{export_events(args.state, args.out, args.run_id):,} events: {args.out}"


WRITERS = {"dataset": _dataset, "card": _card, "lineage": _lineage}
