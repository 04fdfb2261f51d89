"""A diff as its user has it: what can be compared, every view of it, the file that holds what moves along."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from omrlang.cli import main
from omrlang.cli.schema import one
from omrlang.diff import Diff, Study
from omrlang.diff.design import design_note

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "tests" / "cases" / "diffs" / "cluster.omr"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe of the cases in a folder of its own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.omr"
    path.write_text(CLUSTER.read_text())
    return path


def amend(path: Path, text: str) -> str:
    path.write_text(f'amend "a.omr"\n\n{text}\n')
    return path.name


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code = main(["diff", *words])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["diff", *words]) in (1, 64)
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


# ---- what can be compared ----------------------------------------------------------------------


def test_variants_of_a_sweep_are_a_study(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = amend(recipe.with_name("n.omr"), "reasoner { group = sweep(4, 8, 16) }")
    out = said(capsys, name)
    assert out.splitlines()[0] == "one factor at three levels: reasoner.group"
    assert out.splitlines()[-1] == "one factor at three levels: reasoner.group"


def test_two_sweeps_are_a_complete_design(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = amend(
        recipe.with_name("n.omr"),
        "reasoner {\n group = sweep(8, 16)\n temperature = sweep(1.0, 1.2)\n}",
    )
    assert said(capsys, name).startswith("2x2, complete: ")


def test_factors_that_change_together_are_confounded(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = amend(recipe.with_name("b.omr"), "reasoner {\n group = 8\n temperature = 1.2\n}")
    second = amend(recipe.with_name("c.omr"), "reasoner {\n group = 4\n temperature = 1.4\n}")
    out = " ".join(said(capsys, "a.omr", first, second).split())
    assert out.startswith(
        "reasoner.group and reasoner.temperature are confounded: no pair of recipes separates them"
    )


def test_a_revision_is_read_with_what_it_amended_then(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = amend(recipe.with_name("b.omr"), "reasoner { group = 8 }")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    recipe.write_text(recipe.read_text().replace("peak", "").replace("5e-5", "1e-5"))
    out = said(capsys, f"HEAD:{name}", name)
    assert "cold_start.lr.peak 5e-5 -> 1e-5" in " ".join(out.splitlines()[0].split())
    assert out.splitlines()[0].startswith("clean: 1 factor")


def git(*words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *who, *words], check=True, capture_output=True)


def test_a_file_that_a_revision_lacks_is_an_error(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    amend(recipe.with_name("new.omr"), "reasoner { group = 8 }")
    assert "does not exist" in refused(capsys, "HEAD:new.omr", "a.omr")
    assert "no revision" in refused(capsys, "nowhere:a.omr", "a.omr")


def test_the_plan_of_a_run_by_the_start_of_its_id(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["plan", "a.omr", "--json"])
    plan = capsys.readouterr().out
    Path(".omr/plans").mkdir(parents=True)
    Path(".omr/plans/20260101-120000-abcdef.json").write_text(plan)
    name = amend(recipe.with_name("b.omr"), "reasoner { group = 8 }")
    assert "reasoner.group 16 -> 8" in said(capsys, "20260101-12", name)
    assert said(capsys, "20260101", "a.omr").startswith("no change")
    Path("plan.json").write_text(plan)
    assert said(capsys, "plan.json", "20260101").startswith("no change")
    assert main(["plan", "a.omr", "--out", "saved.omrplan"]) == 0
    capsys.readouterr()
    assert said(capsys, "saved.omrplan", "20260101").startswith("no change")
    with_places = " ".join(said(capsys, "saved.omrplan", name).split())
    assert re.search(r"16 -> 8 \(weights, A \S*a.omr:\d+, B b.omr:\d+:\d+\)", with_places)
    main(["plan", "a.omr", "--set", "seed=9", "--out", "other.omrplan"])
    capsys.readouterr()
    assert "B --set" in " ".join(said(capsys, "saved.omrplan", "other.omrplan").split())
    Path("cut.omrplan").write_bytes(Path("saved.omrplan").read_bytes()[:100])
    assert "cut.omrplan" in refused(capsys, "cut.omrplan", "a.omr")
    assert "no run" in refused(capsys, "1999", "a.omr")
    Path("broken.json").write_text("{")
    assert "holds no plan" in refused(capsys, "broken.json", "a.omr")


def test_one_stage_of_several_is_named(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(
        recipe.read_text()
        + "\nrl other = reasoner { algorithm = grpo(clip = [0.2, 0.2]) }\n\neval last = after with other\n"
    )
    out = said(capsys, "a.omr#reasoner", "a.omr#other")
    assert out.splitlines()[0].startswith("clean: 1 factor (other.algorithm gspo -> grpo)")
    assert "stages are" in refused(capsys, "a.omr#nothing", "a.omr")


def test_what_is_no_recipe_is_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "two recipes" in refused(capsys, "a.omr")
    recipe.with_name("bad.omr").write_text("omr 1\n\nsauce x\n")
    assert "E202" in refused(capsys, "bad.omr", "a.omr")


# ---- views -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3])
def test_json_is_what_its_schema_says(
    count: int, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [amend(recipe.with_name(f"b{n}.omr"), f"traces {{ n = {n} }}") for n in (2, 4)]
    data = json.loads(said(capsys, "a.omr", *names[: count - 1], "--json"))
    model = Diff if count == 2 else Study
    Draft202012Validator(one(model)).validate(data)
    assert model.model_validate(data).model_dump(mode="json") == data
    assert isinstance(data["price"]["a"]["usd"]["mid"] if count == 2 else "", str)


def test_markdown_has_the_verdict_first_and_last_and_folds_the_rest(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = amend(
        recipe.with_name("b.omr"), "traces { n = 4 }\n\nreasoner { checkpoint { every = 9 steps } }"
    )
    lines = said(capsys, "a.omr", name, "--md").splitlines()
    assert lines[0] == lines[-1]
    assert lines[0].startswith("**not clean: 1 factor (traces.n 8 -\\> 4)")
    assert (
        sum("<details>" in line for line in lines)
        == sum("</details>" in line for line in lines)
        > 0
    )


def test_names_of_a_recipe_mean_nothing_to_markdown_and_html(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "<script>alert(1)</script> | `x` [y](http://z)"
    name = amend(
        recipe.with_name("b.omr"),
        f'prompt odd = formats.think_answer {{ system = """{odd}""" }}\n\ntraces {{ prompt = odd }}',
    )
    for view in ("--md", "--html"):
        out = said(capsys, "a.omr", name, view)
        assert "<script>" not in out
        assert "[y](http" not in out.replace("\\[y\\]", "")


class Page(HTMLParser):
    """Tags that are open, so that each is closed; and whatever would be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("count", [2, 3])
def test_the_page_stands_alone(
    count: int, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [amend(recipe.with_name(f"b{n}.omr"), f"traces {{ n = {n} }}") for n in (2, 4)]
    page = Page()
    page.feed(said(capsys, "a.omr", *names[: count - 1], "--html"))
    assert (page.open, page.loaded) == ([], [])


def test_the_source_diff_is_plain(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.with_name("b.omr").write_text(
        recipe.read_text().replace("group        = 16", "group        = 8")
    )
    lines = said(capsys, "a.omr", "b.omr", "--text").splitlines()
    assert [line for line in lines if line.startswith(("-  ", "+  "))] == [
        "-  group        = 16",
        "+  group        = 8",
    ]


def test_the_exit_code_says_whether_they_differ(recipe: Path) -> None:
    name = amend(recipe.with_name("b.omr"), "reasoner { group = 8 }")
    same = amend(recipe.with_name("c.omr"), "reasoner { recompute = false }")
    assert main(["diff", "a.omr", name, "--detailed-exitcode"]) == 2
    assert main(["diff", "a.omr", same, "--detailed-exitcode"]) == 0
    assert main(["diff", "a.omr", name, same, "--detailed-exitcode"]) == 2


# ---- holding -----------------------------------------------------------------------------------


def test_the_file_that_holds_is_a_clean_experiment(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "a.omr", "a.omr", "--set-b", "traces.n=4").startswith("not clean")
    said(capsys, "a.omr", "a.omr", "--set-b", "traces.n=4", "--fix", "held.omr")
    text = Path("held.omr").read_text()
    assert "sft_data from [accepted: all, easy_traces: 50_000]" in text
    assert re.search(r"steps = 250", text)
    assert said(capsys, "a.omr", "held.omr").startswith("clean: 1 factor (traces.n 8 -> 4)")
    assert main(["fmt", "--check", "held.omr"]) == 0
    assert "exists already" in refused(
        capsys, "a.omr", "a.omr", "--set-b", "traces.n=4", "--fix", "held.omr"
    )


def test_where_nothing_can_be_held_it_says_so(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = amend(recipe.with_name("b.omr"), "reasoner { group = 8 }")
    assert "nothing that moves" in refused(capsys, "a.omr", name, "--fix", "held.omr")
    assert not Path("held.omr").exists()


# ---- designs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "note"),
    [
        ({}, "no factor varies"),
        ({"n": ("1", "2", "4", "8")}, "one factor at four levels: n"),
        ({"n": ("1", "2", "1", "2"), "j": ("a", "a", "b", "b")}, "2x2, complete: n, j"),
        (
            {"n": ("1", "2", "1"), "j": ("a", "a", "b")},
            "two factors, one at a time against the first: n, j",
        ),
        (
            {"n": ("1", "2", "2"), "j": ("a", "b", "b")},
            "n and j are confounded: no pair of recipes separates them",
        ),
        ({"n": ("1", "2", "4", "2"), "j": ("a", "b", "b", "a")}, "3x2, 4 of 6 cells: n, j"),
    ],
)
def test_a_design_is_named(table: dict[str, tuple[str, ...]], note: str) -> None:
    assert design_note(table, len(next(iter(table.values()), ()))) == note
