"""``omr run FILE --emit slurm``: the shell script that submits a recipe to Slurm, printed or written; nothing is run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from omrlang.cli.files import is_saved
from omrlang.cli.plans import held_to_lock, load_plan, refusal, wanted
from omrlang.diagnostics import UsageError


def emit(args: argparse.Namespace) -> int:
    """The plan as it is now, as jobs; refused where a run of it would be."""
    from omr_runtime.errors import RunError
    from omr_runtime.slurm import Call, script

    if is_saved(args.file) or args.force:
        raise UsageError(
            "--emit takes a recipe, and no --force: a job that Slurm starts again would make it all again"
        )
    plan = load_plan(args.file, args.state, args.set, wanted(args))
    plan = held_to_lock(plan, locked=args.locked) if plan else None
    if plan is None:
        return 1
    if (refused := refusal(plan, args)) is not None:
        return refused
    try:
        logs = str((args.state / "logs").resolve())
        text = script(plan, Call(_command(args), str(args.file), str(Path.cwd()), logs))
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return _put(text, args.out)


def _command(args: argparse.Namespace) -> tuple[str, ...]:
    """This ``omr`` with the same options, but for what asks for the script and the stages, which each job has of its own."""
    given = [sys.executable, "-m", "omrlang", "run", f"--state={args.state}"]
    given += [f"--set={value}" for value in args.set]
    given += [word for word, on in (("--locked", args.locked), ("--accept-limits", args.accept_limits)) if on]  # fmt: skip
    if args.on is not None:
        given.append(f"--on={args.on.address}")
    return (*given, "--wait")


def _put(text: str, out: Path | None) -> int:
    from omr_runtime.slurm import quoted

    if out is None:
        print(text, end="")
        return 0
    try:
        out.write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        print(f"error: {out}: {error.strerror or error}", file=sys.stderr)
        return 1
    print(f"written: {out}; `bash {quoted(str(out))}` submits it")
    return 0
