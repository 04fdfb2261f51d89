"""Videos and audio: kept whole and once, passed from source to export, shown by servers and by no model in process."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import plans
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_sampling import PROMPT, TINY, order, puzzles, result, table
from test_sources import read

from omr_runtime.engines.openai import wire_messages
from omr_runtime.engines.protocol import Decoding, Request
from omr_runtime.errors import RunError
from omr_runtime.export import rows as export_rows
from omr_runtime.export.rows import write_rows
from omr_runtime.stages import sample
from omr_runtime.store import ImageStore, MediaStore
from omr_runtime.work import Shards
from omrlang.cli import main
from omrlang.schema import Source
from omrlang.types import Jsonl, Parquet, Place, Transformers, Webdataset

CLIP, VOICE = b"\x00\x00\x00\x18ftypmp42" + b"v" * 2_000_000, b"RIFF" + b"a" * 500
RECIPE = """omr 1

model server = hf("some/model") { engine = openai(url = "http://localhost:1/v1") }

model local = hf("some/model")

prompt plain {}

source clips from jsonl("data.jsonl") { columns { question = q, videos = clip } }

sample traces from clips with local { n = 1, prompt = plain, temperature = 1, max_tokens = 8 }
"""


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def source(place: Place, videos: str, audios: str, question: str = "question") -> Source:
    columns = {
        "question": plans.column(question),
        "videos": plans.column(videos),
        "audios": plans.column(audios),
    }
    return Source(name="clips", seed=7, place=place, columns=columns)


def as_lines(folder: Path) -> Source:
    (folder / "clips").mkdir()
    (folder / "clips" / "a.mp4").write_bytes(CLIP)
    (folder / "clips" / "b.mp4").write_bytes(CLIP)
    (folder / "clips" / "a.wav").write_bytes(VOICE)
    rows = [
        {"question": "What moves?", "clip": ["clips/a.mp4", "clips/b.mp4"], "voice": "clips/a.wav"},
        {"question": "And here?", "clip": None, "voice": None},
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return source(Jsonl(path="data.jsonl"), "clip", "voice")


def as_parquet(folder: Path) -> Source:
    rows = [
        {"question": "What moves?", "clip": [{"bytes": CLIP, "path": "x"}] * 2, "voice": VOICE},
        {"question": "And here?", "clip": [], "voice": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "data.parquet")
    return source(Parquet(path="data.parquet"), "clip", "voice")


def as_tar(folder: Path) -> Source:
    members = [("1.txt", b"What moves?"), ("1.mp4", CLIP), ("1.wav", VOICE)]
    with tarfile.open(folder / "data.tar", "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return source(Webdataset(path="data.tar"), "mp4", "wav", "txt")


@pytest.mark.parametrize("form", [as_lines, as_parquet, as_tar])
def test_files_are_kept_whole_and_once(tmp_path: Path, form: Any) -> None:
    rows, dropped = read(tmp_path, form(tmp_path))
    assert not dropped
    videos, audios = rows[0]["videos"], rows[0]["audios"]
    assert set(videos) == {digest(CLIP)}
    assert audios == [digest(VOICE)]
    assert all(row["videos"] == [] and row["audios"] == [] for row in rows[1:])
    for kind, name, data in (("videos", videos[0], CLIP), ("audios", audios[0], VOICE)):
        store = MediaStore(tmp_path / "state", kind)  # type: ignore[arg-type]
        assert store.path(name).read_bytes() == data
        assert len([path for path in store.folder.rglob("*") if path.is_file()]) == 1


def test_rows_that_differ_in_their_video_differ(tmp_path: Path) -> None:
    spec = as_lines(tmp_path)
    (tmp_path / "clips" / "b.mp4").write_bytes(CLIP + b"!")
    lines = [{"question": "What?", "clip": f"clips/{name}.mp4", "voice": None} for name in "ab"]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    rows, _ = read(tmp_path, spec)
    assert len({row["content"] for row in rows}) == 2


@pytest.mark.parametrize("path", ["../secret.mp4", "/etc/hostname", "link.mp4", "http://x/y.mp4"])
def test_no_file_outside_of_the_datas_folder(tmp_path: Path, path: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (data / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    row = {"question": "What?", "clip": path, "voice": None}
    (data / "data.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(RunError, match=r"data\.jsonl:1: video (lies outside|is not a file)"):
        read(tmp_path, source(Jsonl(path="data/data.jsonl"), "clip", "voice"))


def test_a_server_is_sent_them_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CLIP)
    (tmp_path / "b").write_bytes(VOICE)
    row = {"id": "1", "question": "What moves?", "videos": ["a"], "audios": ["b"]}
    decoding = Decoding(temperature=1, max_tokens=8)
    request = Request("k", row, PROMPT, (0,), (1,), decoding, (), (tmp_path / "a",), (tmp_path / "b",))  # fmt: skip
    video, audio, text = wire_messages(request)[-1]["content"]
    assert base64.b64decode(video["video_url"]["url"].partition(",")[2]) == CLIP
    assert audio["input_audio"]["format"] == "wav"
    assert base64.b64decode(audio["input_audio"]["data"]) == VOICE
    assert text == {"type": "text", "text": "What moves?"}


def test_a_model_in_process_is_shown_none_and_the_row_is_dropped_with_the_reason(
    tmp_path: Path,
) -> None:
    rows = puzzles(tmp_path, 2)
    rows[1]["videos"] = ["0" * 64]
    work = order(tmp_path, rows, model=TINY, n=1, max_tokens=4, engine=Transformers(batch=2))
    sample.run(work)
    assert len(result(work)) == 1
    (dropped,) = table(work, "dropped")
    assert dropped["reason"] == (
        "not sampled: a model in process is shown no `videos`; a server may be"
    )


def test_an_export_holds_their_bytes(tmp_path: Path) -> None:
    state = tmp_path / "state"
    video = MediaStore(state, "videos").put(io.BytesIO(CLIP))
    rows = [{"id": "1", "question": "What?", "videos": [video], "images": []}]
    shards = Shards(tmp_path / "rows")
    shards.write(0, {"row": rows})
    (tmp_path / "out").mkdir()
    (file,), columns = write_rows(shards, ImageStore(state), tmp_path / "out")
    assert "videos" in columns
    (row,) = pq.read_table(tmp_path / "out" / file.name).to_pylist()
    assert row["videos"] == [{"bytes": CLIP, "path": video}]


def test_an_export_holds_the_files_of_few_rows_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_rows, "PIECE_BYTES", 5_000)
    store, shards = MediaStore(tmp_path, "videos"), Shards(tmp_path / "rows")
    names = [
        store.put(io.BytesIO(b"%d" % i * size)) for i, size in enumerate([2_000] * 5 + [9_000])
    ]
    rows = [{"id": str(i), "question": "?", "videos": [name]} for i, name in enumerate(names)]
    shards.write(0, {"row": rows})
    (file,), _ = write_rows(shards, ImageStore(tmp_path), tmp_path / "out")
    found = pq.ParquetFile(tmp_path / "out" / file.name)
    assert [found.metadata.row_group(n).num_rows for n in range(found.num_row_groups)] == [
        2,
        2,
        1,
        1,
    ]
    assert [video["path"] for row in found.read()["videos"].to_pylist() for video in row] == names

    monkeypatch.setattr(export_rows, "MOST_BYTES", 8_000)
    with pytest.raises(RunError, match="row 5: its files have 9,000 bytes"):
        write_rows(shards, ImageStore(tmp_path), tmp_path / "again")


def test_what_cannot_be_shown_is_known_before_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data.jsonl").write_text('{"q": "What?", "clip": "a.mp4"}\n')
    Path("a.omr").write_text(RECIPE)
    assert main(["check", "a.omr"]) == 1
    assert (
        "error[E314]: sample `traces`: the rows of `clips` have videos" in capsys.readouterr().err
    )
    Path("a.omr").write_text(RECIPE.replace("with local", "with server"))
    assert main(["check", "a.omr"]) == 0
