"""The packed training step on a GPU: right, how fast, how much memory, and what `omr plan` says of the same.

    python benchmarks/gpu.py FOLDER [PHASE ...]

Each phase runs in a process of its own under a limit of time, so that one that fails or hangs takes nothing from the
others. FOLDER gets `results.json`, `table.txt`, `rows.jsonl` (each row as soon as it is known), `log.txt`, and where the
time of a step goes (`profile.txt`). Without a GPU the same code runs on toys, to see that it runs: its figures then mean nothing.

Utilisation is that of the model's FLOPs (causal attention, nothing counted twice for recomputation) against 989 TFLOP/s.
Compared are: the plain loop of forward and backward passes (`sft_bare`); padded batches, with torch's own attention under a
mask and with ours (`rl`); the plan's seconds and GiB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LIMITS = {"correctness": 100, "sft_bare": 80, "sft_full": 130, "sft_part": 90, "rl": 110}
"""Seconds of each phase on a GPU; a CPU is given six times as many."""

COLUMNS = ("what", "tokens/s", "MFU", "s", "plan s", "GiB", "held", "plan GiB", "more")
SHOWN = {
    "phase",
    "what",
    "tokens",
    "seconds",
    "tokens_per_s",
    "mfu",
    "allocated_gib",
    "reserved_gib",
}
"""Fields with a column of their own."""


def run_phase(phase: str, folder: Path, limit: float) -> dict[str, Any]:
    """How a phase ended, and its rows."""
    paths = os.pathsep.join(
        [str(HERE.parent), str(HERE.parent / "runtime"), os.environ.get("PYTHONPATH", "")]
    )
    env = {**os.environ, "PYTHONPATH": paths, "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    command = [sys.executable, str(HERE / "gpu_phases.py"), phase, str(folder)]
    start = time.monotonic()
    with (folder / "log.txt").open("a") as log:
        try:
            ended = subprocess.run(
                command, stdout=log, stderr=log, env=env, timeout=limit, check=False
            )
            how = "done" if ended.returncode == 0 else f"failed ({ended.returncode}), see the log"
        except subprocess.TimeoutExpired:
            how = f"over its limit of {limit} s"
    lines = (folder / "rows.jsonl").read_text().splitlines()
    found = [made for line in lines if (made := json.loads(line))["phase"] == phase]
    return {"phase": phase, "ended": how, "seconds": time.monotonic() - start, "rows": found}


def machine() -> dict[str, Any]:
    """What the figures are of; asked of a process that ends, so that none of the device's memory stays in use."""
    code = (
        "import json, torch, transformers; on = torch.cuda.is_available();"
        "print(json.dumps({'gpu': torch.cuda.get_device_name() if on else None,"
        "'torch': torch.__version__, 'transformers': transformers.__version__}))"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(asked.stdout.splitlines()[-1])
    return found


def _cells(row: dict[str, Any]) -> list[str]:
    def number(name: str, form: str) -> str:
        return format(row[name], form) if name in row else ""

    def beside(name: str) -> str:
        if f"plan_{name}" not in row:
            return ""
        low, middle, high = (f"{end:.3g}" for end in row[f"plan_{name}"])
        return f"{middle} ({low}-{high}) x{row[f'{name}_over_plan']:.2f}"

    planned = {f"plan_{name}" for name in ("seconds", "gib")} | {
        "seconds_over_plan",
        "gib_over_plan",
    }
    rest = {name: value for name, value in row.items() if name not in SHOWN | planned}
    more = "  ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in rest.items()
    )
    return [
        row["what"], number("tokens_per_s", ",.0f"), number("mfu", ".1%"), number("seconds", ".3f"),
        beside("seconds"), number("allocated_gib", ".1f"), number("reserved_gib", ".1f"),
        beside("gib"), more,
    ]  # fmt: skip


def table(about: dict[str, Any], phases: Sequence[dict[str, Any]]) -> str:
    """All rows, a block for each phase."""
    lines = [
        f"{about['gpu'] or 'NO GPU: toy sizes on a CPU, not a measurement'}, torch {about['torch']}, transformers {about['transformers']}"
    ]
    for phase in phases:
        lines.append(f"\n{phase['phase']}: {phase['ended']}, {phase['seconds']:.0f} s")
        cells = [list(COLUMNS), *(_cells(row) for row in phase["rows"])]
        widths = [max(len(line[k]) for line in cells) for k in range(len(COLUMNS) - 1)]
        lines += [
            "  ".join([*(cell.ljust(n) for cell, n in zip(line, widths, strict=False)), line[-1]])
            for line in cells
        ]
    return "\n".join(lines)


def main(folder: str, *chosen: str) -> None:
    out = Path(folder).resolve()
    out.mkdir(parents=True, exist_ok=True)
    for name in ("rows.jsonl", "log.txt"):
        (out / name).write_text("")
    about = machine()
    found = []
    for phase in chosen or LIMITS:
        found.append(run_phase(phase, out, LIMITS[phase] * (1 if about["gpu"] else 6)))
        (out / "results.json").write_text(json.dumps({**about, "phases": found}, indent=1))
        (out / "table.txt").write_text(table(about, found) + "\n")
        print(table(about, found[-1:]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
