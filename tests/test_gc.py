"""``omr gc``: what nothing needs goes, to the byte that was said; what anything needs stays, whatever kills the call."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from omr_runtime import garbage
from omr_runtime.lock import hold
from omr_runtime.store import State, read_index
from omrlang.cli import main

RECIPE = """omr 1

seed = 3

use std.formats

model teacher = scripted("shapes", right = 70%)

source puzzles from synthetic("shapes", n = {n}, seed = 11)

sample traces from puzzles with teacher {{
  n           = {samples}
  prompt      = formats.think_answer_short
  temperature = {temperature}
  max_tokens  = 64
}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(n: int = 20, samples: int = 1, temperature: str = "1.0") -> None:
    Path("x.omr").write_text(RECIPE.format(n=n, samples=samples, temperature=temperature))


def run(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["run", "x.omr"]) == 0
    return capsys.readouterr().out


def collect(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["gc", *arguments]) == 0
    return capsys.readouterr().out


def files() -> dict[Path, int]:
    return {path: path.stat().st_size for path in Path(".omr/store").rglob("*") if path.is_file()}


def test_what_an_earlier_version_of_the_recipe_made_goes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(n=20)
    run(capsys)
    first = set(files())
    write(n=25)
    run(capsys)
    before = files()
    dry = collect(capsys, "--dry-run")
    assert files() == before, "a dry run deletes nothing"
    said = collect(capsys)
    assert said == dry.replace("would be deleted", "deleted")
    assert "source.puzzles" in said
    assert "sample.traces" in said
    gone = set(before) - set(files())
    assert gone < first
    told = int(re.findall(r"([\d,]+) bytes  deleted", said)[0].replace(",", ""))
    assert told >= sum(before[path] for path in gone)
    assert "nothing to do" in run(capsys)
    assert collect(capsys) == "nothing deleted\n"
    assert main(["show", "rows", "traces", "-n", "1"]) == 0


def test_pictures_of_rows_that_stay_stay(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(n=20)
    run(capsys)
    assert collect(capsys) == "nothing deleted\n"
    write(n=5)
    run(capsys)
    said = collect(capsys)
    assert re.search(r"\d+ images", said)
    shown = {path.name for path in Path(".omr/store/images").rglob("*") if path.is_file()}
    assert 0 < len(shown) <= 5
    assert main(["export", "dataset", "puzzles", "set"]) == 0


def test_the_file_as_it_stands_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(n=20)
    run(capsys)
    write(n=25)
    run(capsys)
    write(
        n=20
    )  # back again: what its first run made is needed, though its last run made other things
    assert "nothing would be deleted" in collect(capsys, "--dry-run")
    collect(capsys)
    assert "nothing to do" in run(capsys)


def test_a_recipe_with_errors_loses_nothing_of_its_last_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(n=20)
    run(capsys)
    Path("x.omr").write_text("omr 1\n\nsource puzzles from\n")
    assert main(["gc"]) == 0
    out = capsys.readouterr()
    assert (out.out, "x.omr has errors" in out.err) == ("nothing deleted\n", True)
    write(n=20)
    assert "nothing to do" in run(capsys)


def test_a_saved_plan_keeps_what_it_needs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(n=20)
    run(capsys)
    assert main(["plan", "x.omr", "--out", "x.omrplan"]) == 0
    write(n=25)
    run(capsys)
    assert "nothing deleted" in collect(capsys, "--keep", "x.omrplan")
    assert "source.puzzles" in collect(capsys)


def test_samples_stay_unless_they_are_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write()
    run(capsys)
    write(temperature="0.5")
    run(capsys)
    ledgers = Path(".omr/store/samples")
    assert len(list(ledgers.iterdir())) == 2
    assert "samples" not in collect(capsys).replace("sample.traces", "")
    assert len(list(ledgers.iterdir())) == 2
    write(temperature="0.7")
    run(capsys)
    assert "samples " in collect(capsys, "--samples")
    assert len(list(ledgers.iterdir())) == 2, (
        "that of 0.5 went; nobody knows any more whose 1.0's were"
    )


@pytest.mark.parametrize("moment", range(8))
def test_killed_while_it_deletes(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """At every step of it: the next run finds all that it needs, the next call deletes the rest."""
    write(n=20)
    run(capsys)
    write(n=25)
    run(capsys)
    steps = 0

    def stepping(real: object) -> object:
        def step(*given: object, **more: object) -> object:
            nonlocal steps
            if steps == moment:
                raise KeyboardInterrupt
            steps += 1
            return real(*given, **more)  # type: ignore[operator]

        return step

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", stepping(os.replace))
        patched.setattr(os, "unlink", stepping(os.unlink))
        patched.setattr(garbage.shutil, "rmtree", stepping(garbage.shutil.rmtree))
        patched.setattr(Path, "rename", stepping(Path.rename))
        code = main(["gc"])
    assert code in (0, 5)
    assert "nothing to do" in run(capsys)
    collect(capsys)
    assert collect(capsys) == "nothing deleted\n"
    marks = set(read_index(State(Path(".omr")))["stages"])
    assert {path.name for path in Path(".omr/store").glob("?" * 32)} == marks
    assert len(marks) == 2


def test_not_beside_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write()
    run(capsys)
    with hold(State(Path(".omr"))):
        assert main(["gc"]) == 1
    assert "in use by process" in capsys.readouterr().err
    assert main(["gc", "--state", "elsewhere"]) == 1
    assert "nothing was run here" in capsys.readouterr().err
