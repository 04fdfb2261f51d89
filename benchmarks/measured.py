"""A recipe to what its run measured: the shared part of the benchmarks that run recipes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run(recipe: str, *settings: str) -> tuple[dict[str, dict[str, Any]], float]:
    """Run ``pipelines/RECIPE.omr`` in a new state folder: the metrics of each stage by name, and the seconds it took."""
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "omrlang", "run", f"pipelines/{recipe}.omr"]
        assignments = [word for setting in settings for word in ("--set", setting)]
        start = time.monotonic()
        subprocess.run([*command, *assignments, "--state", state], check=True, cwd=ROOT)
        seconds = time.monotonic() - start
        index = json.loads((Path(state) / "index.json").read_text())
    stages = index["stages"].values()
    return {entry["name"]: entry.get("metrics", {}) for entry in stages}, seconds
