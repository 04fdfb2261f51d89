"""``folder("DIR")`` of pictures: a row for each file, its size and label, and nothing from outside of the folder."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from test_sources import read

from omr_runtime.errors import RunError
from omr_runtime.places import Good, read_place
from omr_runtime.store import ImageStore
from omrlang.cli import main
from omrlang.expressions import row_expression
from omrlang.pins import Pins
from omrlang.schema import Source
from omrlang.types import Col, ExprNode, Folder, Lit, RowExpr

RECIPE = """omr 1

source shots from folder("pictures") {
  columns { question = "What is this?", images = images, answer = folder, extra.wide = width }
}
"""


def picture(path: Path, size: tuple[int, int] = (8, 6)) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    out = io.BytesIO()
    Image.new("RGB", size, (len(path.name) * 7 % 256, size[0] % 256, 3)).save(out, "PNG")
    path.write_bytes(out.getvalue())
    return out.getvalue()


def expression(tree: ExprNode, type_: str = "text") -> RowExpr:
    return row_expression(tree, "x", type_, ["x"], "raw")  # type: ignore[arg-type]


def source(**settings: object) -> Source:
    columns = {
        "question": expression(Lit(value="What is this?")),
        "images": expression(Col(name="images"), "list"),
        "answer": expression(Col(name="folder")),
        "extra.wide": expression(Col(name="width"), "any"),
    }
    place = Folder(path="pictures")
    return Source(name="shots", seed=7, place=place, columns=columns, **settings)  # type: ignore[arg-type]


def test_each_picture_is_a_row_with_its_label_and_size(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    cat = picture(folder / "cat" / "b.png", (40, 30))
    picture(folder / "cat" / "a.PNG")
    picture(folder / "dog" / "small" / "c.png")
    picture(folder / "top.png")
    picture(folder / ".hidden" / "d.png")
    (folder / "README.md").write_text("not a picture")
    found = [raw.row.values for raw in read_place(Folder(path="pictures"), tmp_path) if isinstance(raw.row, Good)]  # fmt: skip
    assert [row["path"] for row in found] == [
        "cat/a.PNG", "cat/b.png", "dog/small/c.png", "top.png"
    ]  # fmt: skip
    assert [row["folder"] for row in found] == ["cat", "cat", "small", None]
    assert (found[1]["name"], found[1]["width"], found[1]["height"]) == ("b", 40, 30)
    rows, dropped = read(tmp_path, source())
    assert not dropped
    assert [row["answer"] for row in rows] == ["cat", "cat", "small", None]
    assert rows[1]["extra"] == '{"wide": 40}'
    (digest,) = rows[1]["images"]
    assert ImageStore(tmp_path / "state").path(digest).read_bytes() == cat


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    picture(folder / "a.png")
    picture(tmp_path / "outside" / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "outside" / "secret.png")
    (folder / "inside.png").symlink_to(folder / "a.png")
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "elsewhere").symlink_to(tmp_path / "outside", target_is_directory=True)
    rows, dropped = read(tmp_path, source(bad_rows="drop"))
    assert len(rows) == 2
    assert sorted(line["reason"] for line in dropped) == [
        "bad row: image lies outside of the data's folder",
        "bad row: unreadable image",
    ]
    (folder / "gone.png").unlink()
    (tmp_path / "x").mkdir()
    with pytest.raises(RunError, match=r"link\.png, row 1: image lies outside"):
        read(tmp_path / "x", source().model_copy(update={"place": Folder(path="../pictures")}))


def test_a_folder_link_as_the_folder_itself_is_the_users_choice(tmp_path: Path) -> None:
    picture(tmp_path / "real" / "a.png")
    (tmp_path / "pictures").symlink_to(tmp_path / "real", target_is_directory=True)
    rows, _ = read(tmp_path, source())
    assert len(rows) == 1


def test_a_broken_picture_stops_with_its_place(tmp_path: Path) -> None:
    picture(tmp_path / "pictures" / "a.png")
    (tmp_path / "pictures" / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(RunError, match=r"b\.jpg, row 1: unreadable image: b\.jpg"):
        read(tmp_path, source())


def test_a_row_keeps_its_id_when_pictures_come_and_go(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    picture(folder / "b.png")
    keys = [(raw.file, raw.position) for raw in read_place(Folder(path="pictures"), tmp_path)]
    picture(folder / "a.png")
    again = [(raw.file, raw.position) for raw in read_place(Folder(path="pictures"), tmp_path)]
    assert keys[0] in again


def test_heads_of_large_pictures_are_read_and_no_pixels(tmp_path: Path) -> None:
    data = picture(tmp_path / "pictures" / "a.png", (300, 200))
    (tmp_path / "pictures" / "a.png").write_bytes(data[:60])
    (raw,) = read_place(Folder(path="pictures"), tmp_path)
    assert isinstance(raw.row, Good)
    assert (raw.row.values["width"], raw.row.values["height"]) == (300, 200)


def test_a_plan_counts_pictures_and_check_knows_their_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        picture(tmp_path / "pictures" / name)
    pin = Pins.open(tmp_path, tmp_path).place(Folder(path="pictures"))
    assert pin is not None
    assert pin.num_rows == 3
    (tmp_path / "a.omr").write_text(RECIPE)
    assert main(["check", "a.omr"]) == 0, capsys.readouterr()
    (tmp_path / "a.omr").write_text(RECIPE.replace("answer = folder", "answer = foldr"))
    assert main(["check", "a.omr"]) == 1
    assert "`folder` exists; it might be meant here" in "".join(capsys.readouterr())


def test_a_folder_of_nothing_says_what_it_may_hold(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(RunError, match="neither a saved dataset, nor Parquet files, nor pictures"):
        read(tmp_path, source())
