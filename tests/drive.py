"""A driver in a process of its own, as ``omr run`` is one, but over specs instead of a recipe:
``python drive.py SPECS.json STATE FOLDER``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).parent
ROOTS = [str(TESTS), str(TESTS.parent), str(TESTS.parent / "runtime")]


def start(
    specs: Sequence[object], state: Path, folder: Path, limit_bytes: int | None = None
) -> subprocess.Popen[str]:
    """Start a driver; ``limit_bytes`` is the longest file that it and its workers may write."""
    from pydantic import TypeAdapter

    from omrlang.schema import Spec

    path = folder / "specs.json"
    path.write_bytes(TypeAdapter(list[Spec]).dump_json(list(specs)))  # type: ignore[arg-type]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS), "OMP_NUM_THREADS": "1"}
    if limit_bytes is not None:
        env["LIMIT_BYTES"] = str(limit_bytes)
    return subprocess.Popen(
        [sys.executable, str(Path(__file__)), str(path), str(state), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and all that was printed."""
    out, _ = process.communicate(timeout=300)
    return process.returncode, out


def main(path: str, state: str, folder: str) -> int:
    import resource

    import plans
    from pydantic import TypeAdapter

    from omr_runtime.errors import RunError
    from omr_runtime.executor import execute, prepare
    from omr_runtime.lock import hold
    from omr_runtime.store import State
    from omrlang.schema import Spec

    if limit := os.environ.get("LIMIT_BYTES"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    specs = TypeAdapter(list[Spec]).validate_json(Path(path).read_bytes())
    try:
        with hold(State(state)) as lock:
            prepare(State(state), lock)
            code, executed = execute(
                plans.plan(specs, Path(state), Path(folder)), Path(state), lock=lock
            )
    except RunError as error:
        print(f"error: {error}")
        return error.exit_code
    print("executed:", *executed)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
