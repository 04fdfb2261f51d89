"""What is planned is what runs, for random edits, over an empty state folder and over a full one.

``benchmarks/parity.py`` does five hundred of them, and some with real training.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import random_edits


@pytest.mark.parametrize("seed", range(4))
def test_the_executed_stages_are_the_planned_ones(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = list(random_edits.walk(tmp_path, Random(seed), edits=14))
    for number, run in enumerate(found):
        assert run.code in (0, 64), (number, run)
        assert run.done == run.planned, (number, run)
    assert found[0].cold
    assert len(found[0].done) == 6
    assert sum(not run.done for run in found) < len(found) / 2, "most edits change something"
