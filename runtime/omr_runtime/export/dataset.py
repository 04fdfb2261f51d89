"""A finished stage -> a folder that `datasets` loads: Parquet files, a card, a Croissant description."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from omr_runtime.errors import RunError
from omr_runtime.export.ancestry import ancestry
from omr_runtime.export.card import Facts, card
from omr_runtime.export.croissant import croissant
from omr_runtime.export.rows import write_rows
from omr_runtime.store import ImageStore, State
from omr_runtime.work import Shards

FOR_WANT_OF_A_URL = "https://example.org/not-published"


def export_dataset(
    folder: Path,
    stage: str,
    out: Path,
    version: str,
    title: str | None = None,
    url: str | None = None,
) -> Facts:
    """Write beside and rename, so that the folder is whole or not there. RunError where it is there already."""
    state = State(folder)
    if out.exists():
        raise RunError(f"{out} is there already; name a folder that is not")
    made = ancestry(state, stage)
    last = made[-1]
    if last.entry["kind"] not in ("source", "mix", "sample", "filter", "eval"):
        raise RunError(f"{last.address} has no rows; a source, mix, sample, filter or eval has")
    beside = out.resolve().with_name(f".{out.name}.{os.getpid()}")
    try:
        files, columns = write_rows(
            Shards(state.artifact(last.fingerprint)), ImageStore(folder), beside
        )
        facts = Facts(title or last.name, made, files, columns, version)
        (beside / "README.md").write_text(card(facts))
        described = croissant(facts, url or FOR_WANT_OF_A_URL, time.strftime("%Y-%m-%d"))
        (beside / "croissant.json").write_text(json.dumps(described, indent=1, ensure_ascii=False))
        os.replace(beside, out)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return facts
