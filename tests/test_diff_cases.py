"""Diffs as files: every folder of ``cases/diffs`` and every ablation row of the published recipe, each with what was found.

``b.omr`` says in a comment what must be found: ``# hidden: STAGE: WHAT, …`` are moves that nobody wrote, all of them and no
others; ``# follows: …`` are some that follow from them; ``# why: …`` is a part of the reason that is told; ``# clean``,
``# not clean``, ``# no effect`` and the rest are verdicts. A is ``a.omr`` or the file that B amends.
``pytest tests/test_diff_cases.py --update`` rewrites ``diff.txt``, and the change is reviewed. Costs stand in no file.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from omrlang.cli.diff_view.text import diff_text
from omrlang.diff import Diff, Side, diff
from omrlang.holding import hold
from omrlang.targets import sides

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests" / "cases" / "diffs"
PAPER = ROOT / "pipelines" / "openmmreasoner"
STATE = Path("nowhere")
FOLDERS = sorted(path for path in CASES.iterdir() if path.is_dir() and (path / "b.omr").exists())
SAID = re.compile(
    r"^# (hidden: .*|clean|not clean|no effect|no change|no change in meaning)$", re.M
)
FOLLOWS = re.compile(r"^# follows: (.*)$", re.M)
WHY = re.compile(r"^# why: (.*)$", re.M)


def base(path: Path) -> Path:
    """The file that an amending file amends."""
    found = re.search(r'^amend "(.*)"', path.read_text(), re.M)
    return path.parent / found[1] if found else path.with_name("a.omr")


@cache
def side(path: Path) -> Side:
    (found,) = sides(str(path), STATE)
    return found


def compared(path: Path) -> Diff:
    return diff(side(base(path)), side(path))


def shown(found: Diff) -> str:
    """The text view without what is not about this pair: where the files lie, costs, how many settings there are."""
    text = diff_text(found, 96).replace(f"{ROOT}/", "")
    text = re.sub(r"(std/\w+\.omr):\d+:\d+", r"\1", text)
    parts = text.removesuffix("\n").split("\n\n")
    kept = [part for part in parts if not part.lstrip().startswith(("Cost ", "Same in both"))]
    return "\n\n".join(kept) + "\n"


def check(path: Path, text: str, update: bool) -> None:
    if update:
        path.write_text(text)
    assert path.read_text() == text, f"{path.name} differs; `pytest --update` rewrites it"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_diff(folder: Path, update: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = (folder / "b.omr").relative_to(ROOT)
    check(folder / "diff.txt", shown(compared(path)), update)


def moves(found: Diff) -> set[str]:
    """What is told beside the factors, as the cases name it."""
    names = {
        "confound": "",
        "unknown": "unknown: ",
        "cost": "cost: ",
    }
    return {
        names[move.matters] + (f"{move.stage}: {move.quantity}" if move.stage else move.quantity)
        for move in found.moves
        if move.matters in names
    }


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_is_said_is_found(folder: Path) -> None:
    said = SAID.search((folder / "b.omr").read_text())
    if said is None:
        return
    found = compared(folder / "b.omr")
    if said[1].startswith("hidden: "):
        expected = set(said[1].removeprefix("hidden: ").split(", "))
        assert {move for move in moves(found) if not move.startswith("unknown")} == {
            move for move in expected if not move.startswith("unknown")
        }
        assert expected <= moves(found)
    else:
        assert found.verdict.kind == said[1]
    if said[1] == "clean":
        assert moves(found) == set()
    text = (folder / "b.omr").read_text()
    follows = {f"{m.stage}: {m.what}" for m in found.moves if m.matters == "follows"}
    assert set(" ".join(FOLLOWS.findall(text)).split(", ")) - {""} <= follows
    reasons = "\n".join(move.why for move in found.moves)
    assert all(why in reasons for why in WHY.findall(text))


def test_there_are_enough_of_each() -> None:
    said = [SAID.search((folder / "b.omr").read_text()) for folder in FOLDERS]
    texts = [found[1] for found in said if found is not None]
    assert sum(text.startswith("hidden") for text in texts) >= 20
    assert texts.count("clean") >= 10


HELD = [
    folder for folder in FOLDERS if any(move.hold for move in compared(folder / "b.omr").confounds)
]


@pytest.mark.parametrize("folder", HELD, ids=lambda folder: folder.name)
def test_what_can_be_held_is_held_and_then_nothing_of_it_moves(
    folder: Path, tmp_path: Path
) -> None:
    before = compared(folder / "b.omr")
    made = hold(side(base(folder / "b.omr")), str(folder / "b.omr"), tmp_path / "held.omr", STATE)
    assert all(move.hold is None for move in made.diff.confounds)
    if all(move.hold is not None for move in before.confounds):
        assert made.diff.verdict.kind in ("clean", "no change in meaning"), made.diff.verdict.text
    (tmp_path / "held.omr").write_text(made.text)
    (written,) = sides(str(tmp_path / "held.omr"), STATE)
    assert diff(side(base(folder / "b.omr")), written).verdict == made.diff.verdict


# ---- the published recipe ----------------------------------------------------------------------

ROWS = {
    "filter_difficulty": "sampling_x8",
    "filter_length": "sampling_x8",
    "mix_image_math": "sampling_x8",
    "mix_text_math": "sampling_x8",
    "sampling_x1": "sampling_x8",
    "sampling_x2": "sampling_x8",
    "sampling_x4": "sampling_x8",
    "sampling_x8": "../openmmreasoner",
    "teacher_72b": "sampling_x1",
    "rl_dapo_x16": "../openmmreasoner",
    "rl_dapo_x8": "rl_dapo_x16",
    "rl_grpo_x16": "../openmmreasoner",
    "rl_gspo_x8": "../openmmreasoner",
    "rl_gspo_x16_curriculum": "../openmmreasoner",
    "x1_dapo_x8": "sampling_x1",
    "x1_dapo_x8_curriculum": "x1_dapo_x8",
    "x1_grpo_x8": "x1_dapo_x8",
    "x8_dapo_x16": "sampling_x8",
    "x8_dapo_x16_hot": "x8_dapo_x16",
    "x8_gspo_x16": "x8_dapo_x16",
    "x8_gspo_x16_hot": "x8_gspo_x16",
    "format_03": "rl_grpo_x16",
    "format_05": "rl_grpo_x16",
    "format_07": "rl_grpo_x16",
}
"""Each row of the paper's tables with the row that it is read against."""


def test_no_row_is_left_out() -> None:
    assert set(ROWS) == {path.stem for path in (PAPER / "ablations").glob("*.omr")}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_papers_tables(
    row: str, update: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PAPER / "ablations")
    found = diff(side(Path(f"{ROWS[row]}.omr")), side(Path(f"{row}.omr")))
    # Places without lines: the recipes have comments that come and go.
    text = re.sub(r"(\.omr):\d+:\d+", r"\1", shown(found))
    check(CASES / "published" / f"{row}.txt", text, update)


def published(target: str, overrides: tuple[str, ...] = ()) -> Side:
    (found,) = sides(str(PAPER / target), STATE, overrides)
    return found


def test_half_the_samples_at_fixed_steps_move_the_epochs_and_the_share_of_text() -> None:
    found = diff(published("openmmreasoner.omr"), published("openmmreasoner.omr", ("distil.n=4",)))
    told = {move.what: move for move in found.confounds}
    text = told["share of sources.miromind_m1"]
    assert (text.old_text, text.new_text) == ("10.5%", "15.7%")
    assert (told["epochs"].new or 0) > 1.4 * (told["epochs"].old or 1)
    assert not found.clean


def test_algorithms_as_released_differ_in_what_they_average_too_and_gpus_are_speed() -> None:
    found = diff(published("as_released.omr#gspo"), published("as_released.omr#grpo"))
    assert [factor.path for factor in found.acting] == ["algorithm", "algorithm.mean", "reward"]
    assert not found.clean
    assert [(factor.path, factor.cls) for factor in found.others] == [("on", "speed")]


def test_what_was_released_is_read_against_the_paper_though_its_stages_have_other_names() -> None:
    found = diff(published("openmmreasoner.omr"), published("as_released.omr"))
    pairs = {(stage.old_name, stage.name) for stage in found.stages if stage.old_name}
    assert pairs == {("reasoner", "gspo")}
    (length,) = (factor for factor in found.factors if factor.path == "steps")
    assert (length.old, length.new, length.stages) == ("1_232", "15 epochs", ("gspo",))
    # Two samples instead of eight are more epochs, whatever only the paper's recipe says of how long they are.
    epochs = next(move for move in found.confounds if move.quantity == "epochs")
    assert (epochs.new or 0) > 1.4 * (epochs.old or 1)
    assert epochs.why == "steps are fixed and there are fewer rows to pass over"
    # An evaluation that the release lacks cannot fit better or worse in it.
    assert {move.quantity for move in found.confounds if not move.stage} == {"prompt mismatch"}


def test_rows_that_nobody_counted_are_the_same_rows() -> None:
    found = diff(published("as_released.omr#gspo"), published("as_released.omr#grpo"))
    assert found.moves == ()


def test_a_branch_tells_what_comes_with_it() -> None:
    found = diff(published("openmmreasoner.omr"), published("ablations/rl_gspo_x16_curriculum.omr"))
    (order,) = found.acting
    assert (order.path, order.note) == ("order", "with by none -> pass_rate(probe_ok)")
    assert found.price.untimed_b == (*found.price.untimed_a, "probe", "probe_ok", "reasoner")


def test_another_judge_by_the_same_name_is_one_factor_wherever_it_is_asked() -> None:
    found = compared(CASES / "hidden_judge" / "b.omr")
    (judge,) = found.acting
    assert (judge.path, judge.stages) == ("referee.id", ("accepted", "of_teacher"))
    assert judge.new.endswith("Qwen3-VL-8B-Instruct")


def test_the_clip_range_as_released_has_no_effect() -> None:
    found = diff(
        published("as_released.omr#gspo"),
        published("as_released.omr#gspo", ("gspo.algorithm.clip=[0.2, 0.2]",)),
    )
    assert found.verdict.kind == "no effect"
    assert "one update" in found.factors[0].note
