"""The views of a plan: what each shows, that no text of a recipe becomes markup, and the page as a browser sees it."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import browser
import made_recipes as made
import pytest
from earlier_runs import finished, planned, write_index

from omrlang import types as t
from omrlang.cli import main
from omrlang.cli.plan_text import plan_text, summary
from omrlang.cli.plan_view.graph import graph
from omrlang.cli.plan_view.html import page
from omrlang.cli.plan_view.markdown import markdown
from omrlang.compiler import load
from omrlang.plan import Plan
from omrlang.planning import make_plan
from omrlang.schema import Source, Spec

ROOT = Path(__file__).parents[1]
VOID = {"meta", "br"}


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """After a run: one file moved, one setting was changed, one stage removed, one stage added."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.jsonl").write_text('{"question": "?"}\n' * 5)
    words = made.puzzles(name="words", place=t.Jsonl(path="words.jsonl"))
    before = planned(words, *made.quickstart(), state=tmp_path)
    write_index(tmp_path, before, finished(before))
    (tmp_path / "words.jsonl").write_text('{"question": "?"}\n' * 6)
    changed = [spec.model_copy(update=CHANGES.get(spec.name, {})) for spec in made.quickstart()]
    added = made.puzzles(name="added", place=t.Synthetic(name="shapes", n=5, seed=99))
    return planned(words, added, *changed[:-1], state=tmp_path)


CHANGES: dict[str, dict[str, object]] = {"traces": {"n": 3}, "cold_start": {"epochs": 3.0}}


# ---- text ------------------------------------------------------------------------------------------


def test_every_action_has_its_sign_and_reason(edited: Plan) -> None:
    lines = plan_text(edited, 110).splitlines()
    for sign, name, why in (
        ("-/+", "source words", "words.jsonl changed"),
        ("+", "source added", "new"),
        ("=", "source puzzles", "done"),
        ("~", "sample traces", "n 2 -> 3; 10 samples are kept"),
        ("-/+", "sft cold_start", "epochs 2 -> 3; accepted changed"),
        ("-", "eval after", "no longer in the recipe, its 10 rows are kept"),
    ):
        [line] = [line for line in lines if f" {sign} {name} " in line]
        assert why.split(";")[0][:20] in line
    assert any("the last run had" in line for line in lines), "drift of an input"


def test_rows_that_only_sampling_settles_are_marked() -> None:
    path = ROOT / "pipelines" / "openmmreasoner" / "openmmreasoner.omr"
    recipe, _ = load(path)
    assert recipe is not None
    text = plan_text(make_plan(recipe, Path("nowhere"), path), 110)
    assert "? known only after sampling" in text
    [line] = [line for line in text.splitlines() if " filter accepted " in line]
    assert re.search(r"→ [\d,]+ [da]\?", line)


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_the_parts_stand_in_order_at_any_width(edited: Plan, width: int) -> None:
    text = plan_text(edited, width)
    order = ["to run", "recipe made.omr", "Inputs ", "Stages ", "Memory at",
             "Where numbers come from", "Not in these numbers", "to run", "Next: omr run made.omr"]  # fmt: skip
    at = 0
    for part in order:
        at = text.index(part, at) + 1
    assert max(map(len, text.splitlines())) <= width


def test_the_funnel_goes_on_below_where_it_is_too_wide() -> None:
    specs: tuple[Spec, ...] = (*made.quickstart()[:1], made.puzzles(name="other", seed=8))
    mixes = [
        made.questions(name=f"mix_{n}", parts=tuple(t.MixPart(rows=spec.name, amount=t.All()) for spec in specs))
        for n in range(9)
    ]  # fmt: skip
    lines = plan_text(planned(*specs, *mixes), 60).splitlines()
    start = lines.index(next(line for line in lines if line.startswith("Rows by source")))
    assert all(any(f"mix_{n}" in line for line in lines[start:]) for n in range(9))


def test_nothing_to_do_is_told_apart(tmp_path: Path) -> None:
    plan = planned(state=tmp_path)
    write_index(tmp_path, plan, finished(plan))
    assert summary(planned(state=tmp_path)).startswith("Nothing to run: all 9 stages are cached.")
    gone = planned(*made.quickstart()[:-1], state=tmp_path)
    assert summary(gone).startswith("Nothing to run: 1 stage removed, all 8 others are cached.")
    left = planned(select=("state:cached",))
    assert summary(left).startswith("Nothing to run: no stage that `state:cached` means is due.")


def test_where_only_the_world_moved_it_says_so(tmp_path: Path) -> None:
    file = tmp_path / "words.jsonl"
    file.write_text('{"question": "?"}\n')
    source = made.puzzles(place=t.Jsonl(path=str(file)))
    plan = planned(source, state=tmp_path)
    write_index(tmp_path, plan, finished(plan))
    file.write_text('{"question": "!"}\n')
    assert summary(planned(source, state=tmp_path)).startswith("recipe unchanged, 1 input moved")


# ---- graph -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("specs", [made.quickstart(), made.cluster()])
def test_every_stage_stands_right_of_what_it_stands_on(specs: tuple[Spec, ...]) -> None:
    drawn = graph(planned(*specs))
    assert sum(len(box.stages) for box in drawn.boxes) == len(specs)
    assert all(parent.column + 1 == child.column for parent, child in drawn.edges)


def test_no_line_crosses_a_box() -> None:
    """Boxes and bends of a column lie below each other; every bend leads on."""
    path = ROOT / "pipelines" / "openmmreasoner" / "openmmreasoner.omr"
    recipe, found = load(path)
    assert recipe is not None
    drawn = graph(make_plan(recipe, Path("nowhere"), path, found))
    for column in range(drawn.num_columns):
        boxes = sorted((box for box in drawn.boxes if box.column == column), key=lambda b: b.row)
        for above, below in itertools.pairwise(boxes):
            assert above.row + above.height <= below.row + 1e-9
    leading = {id(parent) for parent, _ in drawn.edges}
    bends = [box for box in drawn.boxes if not box.stages]
    assert bends
    assert all(id(bend) in leading and len(bend.parents) == 1 for bend in bends)


def test_many_sources_with_the_same_readers_are_one_box() -> None:
    sources = [made.puzzles(name=f"s{n}", seed=n) for n in range(12)]
    parts = tuple(t.MixPart(rows=source.name, amount=t.All()) for source in sources)
    drawn = graph(planned(*sources, made.questions(parts=parts)))
    assert [len(box.stages) for box in drawn.boxes] == [12, 1]


# ---- Markdown and HTML -----------------------------------------------------------------------------


class Elements(HTMLParser):
    """The page's elements: each is closed where it must be, and none loads or runs anything."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert not {name for name in found if name in ("src", "href") or name.startswith("on")}
        self.tags.append(tag)
        self.ids |= {found["id"] or ""} if "id" in found else set()
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Elements:
    found = Elements()
    found.feed(text)
    assert found.open == []
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert not re.search(r"url\(|@import", text)
    return found


def test_the_page_has_all_parts_and_loads_nothing(edited: Plan) -> None:
    found = parsed(page(edited))
    parts = {"pipeline", "stages", "funnel", "costs", "memory", "inputs"}
    assert parts <= found.ids
    assert found.tags.count("svg") >= 4
    for stage in edited.stages:
        assert f"{stage.spec.kind} {stage.name}" in found.text
    assert "the last run had" in found.text


HOSTILE = "<script>alert(1)</script>|`&\"'"


def test_no_text_of_a_recipe_becomes_markup() -> None:
    source = Source(name="a", seed=7, place=t.Jsonl(path=HOSTILE), label=HOSTILE)
    plan = planned(source, made.questions(parts=(t.MixPart(rows="a", amount=t.All()),)))
    plan = plan.model_copy(update={"because": HOSTILE, "recipe": HOSTILE})
    found = parsed(page(plan))
    assert HOSTILE in found.text
    outside_code = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", markdown(plan))
    assert "<script>" not in outside_code.replace("\\<script\\>", "")


def test_markdown_is_a_table_with_the_rest_folded_away(edited: Plan) -> None:
    lines = markdown(edited).splitlines()
    assert lines[0].startswith("**")
    rows = [line for line in lines if re.match(r"\| (\+|-/\+|=|~|-) \|", line)]
    assert len(rows) == len(edited.stages) + 1
    assert len({line.count(" | ") for line in rows}) == 1
    assert lines.count("</details>") == 3


@pytest.mark.parametrize(
    "path", sorted((ROOT / "pipelines").rglob("*.omr")), ids=lambda path: path.stem
)
def test_every_shipped_recipe_has_every_view(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for view in ("--md", "--html", "--summary"):
        assert main(["plan", str(path), view, "--state", str(tmp_path)]) in (0, 3)
        out = capsys.readouterr().out
        assert path.name in out
        if view == "--html":
            for document in out.split("<!doctype html>\n")[1:]:
                parsed(document)


@pytest.fixture(scope="module")
def largest() -> str:
    """The page of the largest shipped recipe."""
    path = ROOT / "pipelines" / "openmmreasoner" / "openmmreasoner.omr"
    recipe, found = load(path)
    assert recipe is not None
    return page(make_plan(recipe, Path("nowhere"), path, found))


def test_a_browser_shows_the_page_without_a_complaint(edited: Plan, tmp_path: Path) -> None:
    file = tmp_path / "plan.html"
    file.write_text(page(edited))
    found = parsed(browser.dom(file).removeprefix("<!DOCTYPE html>"))
    assert {"pipeline", "funnel", "costs"} <= found.ids
    assert "-/+ sft" in found.text


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_is_readable_at_any_width_and_in_the_dark(
    largest: str, width: int, dark: bool, tmp_path: Path
) -> None:
    found = browser.seen(largest, tmp_path, width, dark=dark)
    assert found.width <= width, "nothing but the graph is scrolled sideways"
    assert (found.covered, found.cut) == ([], [])
    levels = [int(level) for level in re.findall(r"\d+", found.paper)]
    assert max(levels) < 64 if dark else min(levels) > 192
