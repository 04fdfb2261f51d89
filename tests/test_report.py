"""The report: every section from the lineage of a run, nothing loaded, and whatever a row says stays text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import browser
import plans
import pytest
import yaml

from omr_runtime import lineage
from omr_runtime.report.examples import MOST_LETTERS, cut
from omr_runtime.report.facts import gather
from omr_runtime.report.graph import Box, graph
from omr_runtime.report.page import page
from omr_runtime.report.ran import find
from omr_runtime.store import ImageStore, State, empty_index, write_index
from omr_runtime.synthetic.shapes import draw
from omr_runtime.work import Shards
from omrlang.cli import main
from omrlang.plan import Plan
from omrlang.schema import Eval, Filter, Sft
from omrlang.types import Amount, Call, Constant, TrainedModel

EVIL = "</dd></svg><script>alert(1)</script><img src=x onerror=alert(2)>'\"&"


def specs(name: str) -> list[Any]:
    keep = plans.expression(Call(fn="answer_matches"), "answer_matches")
    return [
        plans.shapes("puzzles", 4),
        Filter(name=name, seed=7, rows="puzzles", keep=keep),
        Sft(
            name="cold_start",
            seed=7,
            rows=name,
            model=plans.TINY,
            prompt=plans.PROMPT,
            pack=64,
            batch=Amount(value=1, unit="packs"),
            steps=40,
            lr=Constant(peak=1e-3),
        ),
        *(_judged(eval_, model) for eval_, model in (("before", plans.TINY), ("after", None))),
    ]


def _judged(name: str, model: Any) -> Eval:
    trained = model or TrainedModel(stage="cold_start")
    more = {"prompt": plans.PROMPT, "temperature": 0, "max_tokens": 8}
    return Eval(name=name, seed=7, rows=("puzzles",), model=trained, **more)


class Made:
    """A state folder written as a run writes one, but without running anything."""

    def __init__(self, folder: Path, text: str = "plain", name: str = "accepted") -> None:
        self.state = State(folder / "state")
        self.plan = plans.plan(specs(name), self.state.folder, folder).model_copy(
            update={"because": text}
        )
        self.text = text
        self.index = empty_index()
        with lineage.write(self.state.lineage, "run-1") as self.writer:
            self.writer.start_run("host", 1, self.plan.recipe, "0")
            self._fill(name)
            self.writer.end_run(0, [])
        write_index(self.state, self.index)
        self.state.plans.mkdir(parents=True)
        (self.state.plans / "run-1.json").write_text(self.plan.model_dump_json())

    def _fill(self, name: str) -> None:
        image = ImageStore(self.state.folder).put(next(iter(draw(1, 3)))["images"][0])
        rows = [self._row(f"q{n}", images=[image]) for n in range(4)]
        self._stage("puzzles", {"row": rows})
        dropped = [{"row": f"q{n}", "source": self.text, "reason": self.text} for n in (2, 3)]
        verdicts = [
            {
                "row": f"q{n}",
                "rule": "answer_matches",
                "ok": n < 2,
                "reason": self.text,
                "score": None,
            }
            for n in range(4)
        ]
        self._stage(name, {"row": rows[:2], "dropped": dropped, "verdict": verdicts}, num_in=4)
        metrics = [
            {"step": step, "name": metric, "value": 1.0 / step if metric == "loss" else 0.0}
            for step in range(1, 41)
            for metric in ("loss", "clip_fraction")
        ]
        self._stage("cold_start", {"metric": metrics}, num_in=2, num_kept=2, steps_done=40)
        for eval_, right in (("before", 1), ("after", 3)):
            answers = [
                self._row(f"{eval_}{n}", parent=f"q{n}", response=self.text) for n in range(4)
            ]
            scored = [
                {
                    "row": row["id"],
                    "rule": "answer_matches",
                    "ok": n < right,
                    "reason": None,
                    "score": float(n < right),
                }
                for n, row in enumerate(answers)
            ]
            measures = {"accuracy": right / 4, "accuracy_lo": 0.1, "accuracy_hi": 0.9}
            measures |= {"mean_response_tokens": 10.0 * right, "num_questions": 4}
            self._stage(
                eval_, {"row": answers, "verdict": scored}, metrics=measures | {"by_source": {}}
            )

    def _row(self, ident: str, **more: Any) -> dict[str, Any]:
        row = {"id": ident, "content": f"c{ident[-1]}", "source": self.text, "question": self.text}
        return row | {"answer": "4", "num_tokens": 3} | more

    def _stage(self, name: str, tables: dict[str, Any], **entry: Any) -> None:
        stage = self.plan.stage(name)
        shards = Shards(self.state.artifact(stage.fingerprint))
        shards.write(0, tables)
        self.writer.start_stage(
            stage.fingerprint,
            name,
            stage.spec.kind,
            stage.spec.model_dump_json(),
            stage.parents,
            None,
        )
        self.writer.add_shard(stage.fingerprint, shards.read()[0])
        self.writer.add_estimate(stage.fingerprint, "seconds", [1.0, 2.0, 4.0, "s", "assumed"])
        self.writer.add_actual(stage.fingerprint, "seconds", 3.0)
        self.writer.end_stage(stage.fingerprint, "done", 3.0, {})
        counts = self.writer.counts(stage.fingerprint)
        spec, parents = stage.spec.model_dump(mode="json"), self.plan.stages
        self.index["previous"][stage.fingerprint] = {
            "spec": spec,
            "parents": {it.name: it.fingerprint for it in parents if it.name in stage.parents},
            "revision": None,
            "pins": {},
        }
        self.index["stages"][stage.fingerprint] = {
            "name": name,
            "kind": stage.spec.kind,
            "status": "done",
            "num_in": counts.num_rows + counts.num_dropped,
            "num_kept": counts.num_rows,
            "num_rows": counts.num_rows,
            "num_dropped": counts.num_dropped,
        } | entry


def html(folder: Path, text: str = "plain") -> str:
    return page(gather(find(Made(folder, text).state.folder)))


class Tags(HTMLParser):
    """All elements of a page, and the text that is shown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_section_is_there_with_the_runs_figures(tmp_path: Path) -> None:
    text = html(tmp_path)
    found = Tags(text)
    ids = {given.get("id") for _, given in found.tags}
    links = {given["href"] for tag, given in found.tags if tag == "a"}
    assert {f"#{ident}" for ident in ids if f"#{ident}" in links} == links
    assert len(links) == 8
    for figure in ("75.0", "+50.0", "2 × plain", "5 of 5 figures", "share of clipped ratios 0"):
        assert figure in found.text
    assert "alert" not in text


def test_nothing_is_loaded_and_nothing_runs(tmp_path: Path) -> None:
    found = Tags(html(tmp_path, EVIL))
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "iframe", "object", "embed", "link", "base", "form"}
    for tag, given in found.tags:
        assert not any(name.startswith("on") for name in given), (tag, given)
        for name in ("src", "href"):
            value = given.get(name)
            assert value is None or value.startswith(("data:image/webp;base64,", "#")), value
    policy = next(given for _, given in found.tags if given.get("http-equiv"))
    assert str(policy["content"]).startswith("default-src 'none'")
    assert found.text.count(EVIL) >= 8, "what a row says is shown as it is"


def test_names_of_stages_stay_text_in_pictures() -> None:
    drawn = graph([Box("a<b>", "source", "&", ()), Box("c", "mix", "</svg>", ("a<b>",))])
    assert "<b>" not in drawn
    assert drawn.count("</svg>") == 1


def test_a_long_text_is_cut_and_says_so() -> None:
    assert cut("x" * MOST_LETTERS) == "x" * MOST_LETTERS
    assert cut("x" * (MOST_LETTERS + 1_234)).endswith("… (1,234 more characters)")


def test_what_has_not_run_is_no_error(tmp_path: Path) -> None:
    made = Made(tmp_path)
    write_index(made.state, empty_index())
    text = page(gather(find(made.state.folder)))
    assert "0 of 5 stages are finished" in text
    assert "not run" in text


def test_the_command_writes_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["report", "--state", "state"]) == 0
    assert capsys.readouterr().out.startswith("test.html: ")
    assert (tmp_path / "test.html").stat().st_size < 5_000_000
    assert main(["report", "run-2", "--state", "state"]) == 1
    assert "nothing was run on" in capsys.readouterr().err
    assert main(["report", "--state", "state", "--out", "no/where.html"]) == 1
    assert made.state.lineage.exists()


def test_two_runs_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(tmp_path)
    other = made.plan.model_copy(update={"recipe": "other.omr"})
    (made.state.plans / "other.json").write_text(other.model_dump_json())
    monkeypatch.chdir(tmp_path)
    assert main(["report", "test.omr", "--against", "other.omr", "--state", "state"]) == 0
    found = Tags((tmp_path / "test.html").read_text())
    assert "Against other.omr" in found.text
    assert "no change" in found.text
    assert re.search(r"after\s*after\s*4\s*\+0\.0", found.text)


def test_a_browser_shows_it_without_a_complaint(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(html(tmp_path, EVIL))
    found = browser.dom(path)
    assert 'id="tournament"' in found
    assert "<script" not in found


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_all_of_it(tmp_path: Path, dark: bool) -> None:
    """No text on another, none cut off but what a table or a picture scrolls to; dark paper in the dark."""
    found = browser.seen(html(tmp_path), tmp_path, 390, dark=dark)
    assert found.width <= 390
    assert not found.covered
    assert found.paper == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")


CLICK = """(page) => {
  const shown = () => [...page.querySelectorAll('.example')].filter((it) => it.offsetParent).length;
  const counts = {};
  for (const button of page.querySelectorAll('.choose input')) {
    button.closest('label').click();
    counts[button.id.replace('show-', '')] = shown();
  }
  const dead = [...page.querySelectorAll('nav a')].filter((link) => !page.querySelector(link.getAttribute('href')));
  return { counts, dead: dead.length };
}"""


def test_links_lead_somewhere_and_filters_filter(tmp_path: Path) -> None:
    text = html(tmp_path)
    found = browser.asked(text, tmp_path, CLICK)
    assert found["dead"] == 0
    counts = found["counts"]
    assert counts.pop("all") == sum(counts.values()) == text.count('<article class="example')
    assert counts["right"] > 0
    assert counts["dropped"] > 0


def test_it_opens_within_a_second(tmp_path: Path) -> None:
    """By the processor time that it takes the browser more than a blank page, which other work on the machine leaves alone."""
    page, blank = tmp_path / "report.html", tmp_path / "blank.html"
    page.write_text(html(tmp_path))
    blank.write_text("<!doctype html><title>blank</title>")
    assert page.stat().st_size < 5_000_000
    took = [min(browser.processor_seconds(path) for _ in range(3)) for path in (page, blank)]
    assert took[0] - took[1] < 1


def test_markdown_has_the_same_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Made(tmp_path, EVIL)
    monkeypatch.chdir(tmp_path)
    assert main(["report", "--format", "markdown", "--state", "state"]) == 0
    assert capsys.readouterr().out.startswith("test.md: ")
    text = (tmp_path / "test.md").read_text()
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(heads) == 7
    assert "| after | 4 | 75.0% | 10.0 – 90.0% | 30.0 | – |" in text
    assert "| filter accepted | 4 | 2 | 2 | 2 × " in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1, table


def test_the_card_of_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Made(tmp_path)
    monkeypatch.chdir(tmp_path)
    make = ["export", "card", "cold_start", "card.md", "--title", 'A "small" model']
    assert main([*make, "--state", "state"]) == 0
    text = (tmp_path / "card.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    (result,) = front["model-index"][0]["results"]
    assert front["model-index"][0]["name"] == 'A "small" model'
    assert (result["metrics"][0]["value"], result["metrics"][0]["name"]) == (75.0, "after")
    assert front["pipeline_tag"] == "image-text-to-text"
    assert "- `sft.cold_start`: 40 steps on `accepted`, from tiny" in text
    assert "| before | after | 4 | +50.0 |" in text
    assert main([*make, "--state", "state"]) == 1, "what is there already is left alone"
    assert main(["export", "card", "accepted", "other.md", "--state", "state"]) == 1
    assert "filter.accepted trains no model" in capsys.readouterr().err


def test_plans_of_runs_are_read_back(tmp_path: Path) -> None:
    made = Made(tmp_path)
    assert isinstance(find(made.state.folder, "run-1").plan, Plan)
