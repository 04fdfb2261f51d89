"""The state folder: images, shards, the lock, what is damaged."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from omr_runtime.errors import DamagedArtifact, RunError
from omr_runtime.lock import MARK, hold
from omr_runtime.store import ImageStore, State, mark_damaged, read_index, write_index
from omr_runtime.work import InputRows, Shards, read_rows

ROOTS = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "runtime")]
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS)}


def png(size: tuple[int, int] = (4, 4)) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", size, "red").save(out, "PNG")
    return out.getvalue()


def test_an_image_is_kept_once(tmp_path: Path) -> None:
    images = ImageStore(tmp_path)
    digest = images.put(png())
    assert images.put(png()) == digest
    assert images.path(digest).parent.name == digest[:2]
    assert [path.name for path in images.path(digest).parent.iterdir()] == [digest]
    assert images.open(digest).mode == "RGB"


@pytest.mark.parametrize("data", [b"", b"text", png()[:40]], ids=["empty", "text", "cut"])
def test_what_is_no_image_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(RunError, match="image"):
        ImageStore(tmp_path).put(data)


def test_an_image_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(RunError, match="too large"):
        ImageStore(tmp_path).put(png((11, 11)))


def test_a_shard_without_its_manifest_does_not_exist(tmp_path: Path) -> None:
    shards = Shards(tmp_path)
    shards.write(0, {"row": [{"id": "a"}]})
    shards.write(1, {"row": [{"id": "b"}]})
    (tmp_path / "shard-00001.json").unlink()
    assert [shard.number for shard in shards.read()] == [0]
    assert shards.numbers() == {0}
    assert shards.is_intact()


def test_damage_is_seen(tmp_path: Path) -> None:
    shards = Shards(tmp_path)
    shards.write(0, {"row": [{"id": str(n), "question": "what? " * 20} for n in range(200)]})
    part = tmp_path / "part-00000.parquet"
    data = part.read_bytes()
    entry = InputRows(name="a", fingerprint="a", folder=str(tmp_path))
    part.write_bytes(data[:-10])
    assert not shards.is_intact()
    with pytest.raises(DamagedArtifact, match="part-00000"):
        list(read_rows([entry]))
    flipped = bytearray(data)
    flipped[100] ^= 0xFF
    part.write_bytes(bytes(flipped))
    assert shards.is_intact(), "a flipped byte does not change the size"
    with pytest.raises(DamagedArtifact, match="part-00000"):
        list(read_rows([entry]))
    part.unlink()
    assert not shards.is_intact()


def test_a_finished_stage_whose_files_are_gone_is_marked(tmp_path: Path) -> None:
    state = State(tmp_path)
    Shards(state.artifact("f")).write(0, {"row": []})
    index = read_index(state)
    index["stages"]["f"] = {"status": "done", "kind": "mix", "num_shards": 1}
    assert mark_damaged(state, index) == []
    (state.artifact("f") / "part-00000.parquet").unlink()
    assert mark_damaged(state, index) == ["f"]
    write_index(state, index)
    assert json.loads(state.index.read_text())["stages"]["f"]["files_ok"] is False


def test_a_newer_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"format": 99}')
    with pytest.raises(RunError, match="format 99"):
        read_index(State(tmp_path))


def test_one_run_at_a_time(tmp_path: Path) -> None:
    state = State(tmp_path)
    with hold(state) as lock:
        assert lock.was_clean
        with (
            pytest.raises(RunError, match=f"in use by process {os.getpid()} on host") as error,
            hold(state),
        ):
            pass
        assert "--wait" in str(error.value)
    with hold(state) as lock:
        assert lock.was_clean


def test_a_run_that_failed_leaves_the_lock_free_but_marked(tmp_path: Path) -> None:
    def fail() -> None:
        with hold(State(tmp_path)):
            raise RunError("x")

    with pytest.raises(RunError, match="x"):
        fail()
    with hold(State(tmp_path)) as lock:
        assert not lock.was_clean


HOLDER = """
import sys, time
from omr_runtime.lock import hold
from omr_runtime.store import State
with hold(State(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def start_holder(state: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env=ENV,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_waiting_for_the_other_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = start_holder(tmp_path, 0.5)
    with hold(State(tmp_path), wait=True):
        assert process.wait(5) == 0
    assert f"waiting for process {process.pid} on host" in capsys.readouterr().err


def test_orphans_of_a_killed_run_are_ended_first(tmp_path: Path) -> None:
    """A process that inherited the lock keeps a new run out only until it is killed."""
    state = State(tmp_path)
    orphan_code = (
        "import os, sys, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(60)"
    )
    code = f"""
import os, subprocess, sys, time
from omr_runtime.lock import MARK, hold
from omr_runtime.store import State
state = State(sys.argv[1])
with hold(state) as lock:
    subprocess.Popen([sys.executable, "-c", {orphan_code!r}], pass_fds=(lock.descriptor,),
                     env={{**os.environ, MARK: str(state.lock)}})
    time.sleep(60)
"""
    driver = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=ENV
    )
    assert driver.stdout is not None
    orphan = int(driver.stdout.readline())
    assert MARK.encode() in Path(f"/proc/{orphan}/environ").read_bytes()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    os.kill(orphan, 0)
    started = time.monotonic()
    with hold(state) as lock:
        assert not lock.was_clean
        status = Path(f"/proc/{orphan}/stat")
        assert not status.exists() or ") Z" in status.read_text()
    assert time.monotonic() - started < 10


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be used"), hold(State(tmp_path / "file")):
        pass
