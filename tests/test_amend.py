"""Amending files, sweeps, expectations and unpublished values: what a few lines on top of a recipe mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from omrlang.cli import main
from omrlang.compiler import load, load_all
from omrlang.hir import Recipe
from omrlang.plan import Plan
from omrlang.planning import make_plan
from omrlang.schema import Filter, Sample, Sft, Source

BASE = """\
omr 1

use std.formats

seed = 7

let k = 2

model teacher = scripted("shapes", right = 70%)

model tiny = fresh("qwen2_5_vl", layers = 1, hidden = 32, heads = 2, vision_layers = 1, vision_hidden = 32) {
  precision = fp32
}

source puzzles from synthetic("shapes", n = 40, seed = 11)

source others from synthetic("shapes", n = 10, seed = 12)

mix questions from [puzzles: all, others: all]

sample traces from questions with teacher {
  n           = k
  prompt      = formats.think_answer_short
  temperature = 1.0
  max_tokens  = 64
}

filter accepted from traces {
  keep    = format_ok and answer_matches
  at_most = 1 per parent
}

sft cold_start from accepted with tiny {
  prompt    = formats.think_answer_short
  pack      = 512
  batch     = 1 pack
  epochs    = 2
  lr        = cosine(2e-3, warmup = 5%)
  precision = fp32
  checkpoint { every = 10 steps, keep = 3 }
}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.omr").write_text(BASE)
    return tmp_path


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def one(path: Path, *overrides: str) -> Recipe:
    recipe, found = load(path, overrides)
    assert recipe is not None, [item.message for item in found]
    return recipe


def amended(text: str, *overrides: str) -> Recipe:
    return one(write("x.omr", f'amend "base.omr"\n{text}\n'), *overrides)


def codes(text: str) -> list[tuple[str, str]]:
    _, found = load(write("x.omr", f'amend "base.omr"\n{text}\n'))
    return [(item.code, item.span.text) for item in found]


def plan(recipe: Recipe) -> Plan:
    return make_plan(recipe, Path("state"), recipe.path)


def spec(recipe: Recipe, name: str) -> object:
    return next(stage.spec for stage in recipe.stages if stage.spec.name == name)


# ---- amend -------------------------------------------------------------------------------------


def test_nothing_amended_is_the_same_recipe(folder: Path) -> None:
    base, same = plan(one(folder / "base.omr")), plan(amended(""))
    assert [s.fingerprint for s in base.stages] == [s.fingerprint for s in same.stages]


def test_a_setting_is_replaced_and_the_rest_stays(folder: Path) -> None:
    recipe = amended('because "is it worth it?"\n\ntraces { n = 8 }')
    traces = spec(recipe, "traces")
    assert isinstance(traces, Sample)
    assert (traces.n, traces.max_tokens) == (8, 64)
    assert recipe.because == "is it worth it?"
    layer = next(s.settings["n"] for s in recipe.stages if s.spec.name == "traces")
    assert (layer.layer, layer.span and layer.span.file.path.name) == ("amend", "x.omr")


def test_clauses_lets_seed_and_lists_are_replaced(folder: Path) -> None:
    recipe = amended(
        "let k = 5\nseed = 9\nquestions from [puzzles: 20]\ntraces with other\n"
        'model other = scripted("shapes", right = 20%)'
    )
    traces = spec(recipe, "traces")
    assert isinstance(traces, Sample)
    assert (traces.n, traces.seed, traces.model.name) == (5, 9, "other")  # type: ignore[union-attr]
    assert len(spec(recipe, "questions").parts) == 1  # type: ignore[attr-defined]


def test_groups_merge_and_default_takes_out(folder: Path) -> None:
    sft = spec(amended("cold_start { checkpoint { keep = 5 } }"), "cold_start")
    assert isinstance(sft, Sft)
    assert sft.checkpoint is not None
    assert (sft.checkpoint.every, sft.checkpoint.keep) == (10, 5)
    sft = spec(amended("cold_start { checkpoint = default, precision = default }"), "cold_start")
    assert isinstance(sft, Sft)
    assert (sft.checkpoint, sft.precision) == (None, "bf16")


def test_default_takes_out_what_a_derived_stage_or_thing_was_given(folder: Path) -> None:
    text = """
model served = teacher { engine = vllm(gpu_memory = 50%) }

model plain = served { engine = default }

filter fewer = accepted { at_most = 1 per parent }

filter all_of_them = fewer { at_most = default }
"""
    recipe = amended(text)
    by_name = {thing.value.name: thing.value for thing in recipe.things}
    assert by_name["served"].engine is not None
    assert by_name["plain"].engine is None
    fewer, again = spec(recipe, "fewer"), spec(recipe, "all_of_them")
    assert isinstance(fewer, Filter)
    assert isinstance(again, Filter)
    assert (fewer.at_most is not None, again.at_most) == (True, None)


def test_a_let_can_say_something_of_the_row(folder: Path) -> None:
    """It counts as if it stood there, and each of its operands is a rule."""
    lets = "let short = len(answer) <= 50\n\nlet right = answer_matches and short\n\n"
    named = amended(f"{lets}accepted {{ keep = format_ok and right }}")
    written = amended("accepted { keep = format_ok and (answer_matches and len(answer) <= 50) }")
    assert [stage.fingerprint for stage in plan(named).stages] == [
        stage.fingerprint for stage in plan(written).stages
    ]
    accepted = spec(named, "accepted")
    assert isinstance(accepted, Filter)
    assert accepted.keep.text == "format_ok and (answer_matches and (len(answer) <= 50))"
    assert [rule.name for rule in accepted.keep.rules] == [
        "len(answer) <= 50",
        "format_ok",
        "answer_matches",
    ]


def test_one_of_a_pair_drops_the_other_also_through_a_chain(folder: Path) -> None:
    write("steps.omr", 'amend "base.omr"\ncold_start { steps = 30 }\n')
    write("epochs.omr", 'amend "steps.omr"\ncold_start { epochs = 4 }\n')
    steps, epochs = (one(Path(f"{name}.omr")) for name in ("steps", "epochs"))
    assert (spec(steps, "cold_start").steps, spec(steps, "cold_start").epochs) == (30, None)  # type: ignore[attr-defined]
    assert (spec(epochs, "cold_start").steps, spec(epochs, "cold_start").epochs) == (None, 4.0)  # type: ignore[attr-defined]


def test_an_argument_of_the_bases_call(folder: Path) -> None:
    sft = spec(amended("cold_start { lr.peak = 1e-4 }"), "cold_start")
    assert isinstance(sft, Sft)
    assert (sft.lr.kind, sft.lr.peak, sft.lr.warmup.value) == ("cosine", 1e-4, 0.05)
    write("mid.omr", 'amend "base.omr"\ncold_start { lr.peak = 1e-4 }\n')
    replaced = one(write("top.omr", 'amend "mid.omr"\ncold_start { lr = constant(3e-4) }\n'))
    assert spec(replaced, "cold_start").lr.peak == 3e-4  # type: ignore[attr-defined]


def test_what_does_not_exist_cannot_be_amended(folder: Path) -> None:
    assert codes("tracez { n = 4 }") == [("E201", "tracez")]
    assert codes("traces { nn = 4 }") == [("E203", "nn")]
    assert codes("traces { n = 4 }\ntraces { n = 5 }") == [("E206", "n")]
    assert codes('amend "base.omr"') == [("E206", 'amend "base.omr"')]


def test_names_of_the_library_can_be_amended(folder: Path) -> None:
    recipe = amended('formats.think_answer_short { system = "hi" }')
    assert spec(recipe, "traces").prompt.system == "hi"  # type: ignore[attr-defined]


def test_new_stages_and_paths_of_their_own_folder(folder: Path) -> None:
    write("data/mine.jsonl", '{"question": "1 + 1?", "answer": "2"}\n')
    path = write(
        "more/x.omr",
        'amend "../base.omr"\nuse std.formats\nsource mine from jsonl("../data/mine.jsonl")\n'
        "questions from [puzzles: all, mine: all]\n",
    )
    recipe = one(path)
    mine = spec(recipe, "mine")
    assert isinstance(mine, Source)
    assert recipe.folder.resolve() == folder.resolve()
    assert (recipe.folder / mine.place.path).resolve() == folder / "data" / "mine.jsonl"  # type: ignore[union-attr]
    assert plan(recipe).stages[0].spec is not None


@pytest.mark.parametrize("cycle", ["self", "pair", "spelling"])
def test_a_file_that_amends_itself(folder: Path, cycle: str) -> None:
    target = {"self": "x.omr", "pair": "y.omr", "spelling": "sub/../x.omr"}[cycle]
    (folder / "sub").mkdir()
    write("y.omr", 'amend "x.omr"\n')
    _, found = load(write("x.omr", f'amend "{target}"\n'))
    assert [item.code for item in found] == ["E212"]


def test_a_base_that_is_not_there_is_the_only_error(folder: Path) -> None:
    _, found = load(write("x.omr", 'amend "nowhere.omr"\ntraces { n = 4 }\n'))
    assert [item.code for item in found] == ["E106"]


# ---- sweeps ------------------------------------------------------------------------------------


def test_sweeps_multiply_and_are_named(folder: Path) -> None:
    path = write(
        "x.omr",
        'amend "base.omr"\ntraces { n = sweep(1, 2, 4), max_tokens = sweep(32, 64) }\n',
    )
    recipes, found = load_all(path)
    assert not found
    assert [recipe.variant for recipe in recipes][:3] == [
        "traces.n=1,traces.max_tokens=32",
        "traces.n=1,traces.max_tokens=64",
        "traces.n=2,traces.max_tokens=32",
    ]
    assert [spec(recipe, "traces").n for recipe in recipes] == [1, 1, 2, 2, 4, 4]  # type: ignore[attr-defined]
    named = one(Path("x.omr[traces.n=4,traces.max_tokens=32]"))
    assert spec(named, "traces").n == 4  # type: ignore[attr-defined]
    layer = next(s.settings["n"].layer for s in named.stages if s.spec.name == "traces")
    assert layer == "sweep"


def test_sweeps_over_clauses_calls_lets_and_set(folder: Path) -> None:
    path = write(
        "x.omr",
        'amend "base.omr"\nmodel weak = scripted("shapes", right = 20%)\n'
        "traces with sweep(teacher, weak)\n"
        "cold_start { lr = sweep(low = constant(1e-4), high = constant(1e-3)) }\n",
    )
    recipes, found = load_all(path, ["k=sweep(2, 3)"])
    assert not found
    assert len(recipes) == 8
    assert {spec(recipe, "traces").model.name for recipe in recipes} == {"teacher", "weak"}  # type: ignore[attr-defined]
    assert "cold_start.lr=high" in recipes[-1].variant
    # Only the sampled rows of the two teachers differ, so a variant's stages before them are the same artifacts.
    marks = [{s.name: s.fingerprint for s in plan(recipe).stages} for recipe in recipes]
    assert len({mark["questions"] for mark in marks}) == 1
    assert len({mark["traces"] for mark in marks}) == 4
    assert len({mark["cold_start"] for mark in marks}) == 8


@pytest.mark.parametrize(
    "text",
    [
        "cold_start { lr = constant(sweep(1e-4, 1e-5)) }",
        "cold_start { optimizer = adamw(betas = [sweep(0.9, 0.8), 0.99]) }",
        "cold_start { optimizer = adamw(eps = sweep(1e-8, 1e-7)) }",
        "questions from [puzzles: sweep(10, 20), others: all]",
    ],
)
def test_a_sweep_may_be_all_that_an_argument_or_an_item_is(folder: Path, text: str) -> None:
    """Its place is then that of what holds it."""
    recipes, found = load_all(write("x.omr", f'amend "base.omr"\n{text}\n'))
    assert not found
    marks = [{s.name: s.fingerprint for s in plan(recipe).stages} for recipe in recipes]
    assert len({mark["cold_start"] for mark in marks}) == 2


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("traces { n = sweep(4) }", "E308"),
        ("traces { n = sweep(4, 4) }", "E308"),
        ("cold_start { lr = sweep(constant(1e-4), constant(1e-3)) }", "E308"),
        ("traces { n = sweep(1, sweep(2, 3)) }", "E308"),
        ("traces { n = sweep(1, many) }", "E201"),
        (
            "traces { n = sweep(1, 2), top_k = sweep(" + ", ".join(map(str, range(1, 300))) + ") }",
            "E308",
        ),
    ],
)
def test_sweeps_that_mean_nothing(folder: Path, text: str, code: str) -> None:
    _, found = load_all(write("x.omr", f'amend "base.omr"\n{text}\n'))
    assert {item.code for item in found} == {code}


def test_where_one_recipe_is_wanted_a_variant_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write("x.omr", 'amend "base.omr"\ntraces { n = sweep(1, 2) }\n')
    assert main(["check", str(path)]) == 0
    assert "2 variants" in capsys.readouterr().out
    assert main(["run", str(path)]) == 1
    assert "x.omr[traces.n=1]" in capsys.readouterr().err
    assert main(["check", "x.omr[traces.n=3]"]) == 1
    assert "has no variant `traces.n=3`" in capsys.readouterr().err
    assert main(["plan", "x.omr[traces.n=2]", "--summary"]) == 0
    assert "omr run 'x.omr[traces.n=2]'" in capsys.readouterr().out
    assert main(["plan", str(path), "--summary"]) == 0
    assert capsys.readouterr().out.count("Next: ") == 2


# ---- expect ------------------------------------------------------------------------------------


def expected(text: str) -> tuple[int, list[str]]:
    made = plan(amended(text))
    return made.exit.code, [item.code for item in made.diagnostics if item.code in ("W203", "W204")]


def test_a_plan_holds_expectations_against_its_estimates(folder: Path) -> None:
    assert expected("questions { expect = rows == 50 and share(others) in 19% .. 21% }") == (0, [])
    assert expected("questions { expect = rows > 50 }") == (3, ["W204"])
    assert expected("questions { expect = share(puzzles) in 50% .. 60% }") == (3, ["W204"])
    costs = plan(amended("")).stage("cold_start").costs
    assert costs is not None
    assert expected(f"cold_start {{ expect = seconds < {costs.seconds.mid} s }}") == (0, ["W203"])
    assert expected("cold_start { expect = epochs in 1 .. 3 }") == (0, [])
    assert plan(amended("questions { expect = rows > 50 }")).exit.reason == "unexpected"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("rowz > 3", "E201"),
        ("rows", "E301"),
        ("rows in 3", "E301"),
        ("rows in 5 .. 3", "E305"),
        ("rows > 3 tokens", "E304"),
        ("share(nobody) > 3%", "E201"),
        ("share(3) > 3%", "E309"),
        ("rows > 3 or kept > 4%", "E301"),
    ],
)
def test_expectations_that_mean_nothing(folder: Path, text: str, code: str) -> None:
    assert [found[0] for found in codes(f"questions {{ expect = {text} }}")] == [code]


def test_a_run_stops_where_a_count_is_otherwise(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "accepted { expect = rows in 1_000 .. 2_000, at_most = default, assume { keep = 0% .. 100% } }"
    path = write("x.omr", f'amend "base.omr"\n{text}\n')
    assert main(["run", str(path), "--accept-limits"]) == 3
    said = "accepted came out otherwise than expected: `rows in 1_000 .. 2_000`, it is"
    assert said in capsys.readouterr().out


# ---- unpublished -------------------------------------------------------------------------------


def test_an_unpublished_value_is_unknown_in_a_plan_and_never_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = amended(
        "accepted { keep = format_ok and num_tokens >= unpublished }\ntraces { top_p = unpublished }"
    )
    keep = spec(recipe, "accepted")
    assert isinstance(keep, Filter)
    assert (keep.unpublished, spec(recipe, "traces").unpublished) == (("keep",), ("top_p",))  # type: ignore[attr-defined]
    made = plan(recipe)
    traces, accepted, sft = (
        made.stage(name).costs for name in ("traces", "accepted", "cold_start")
    )
    assert traces is not None
    assert traces.rows_out.mid == 100  # top_p changes no count
    assert accepted is not None
    assert accepted.rows_out.origin == "unknown"
    assert "`keep` is unpublished" in accepted.rows_out.formula
    assert sft is not None
    assert sft.extra["steps"].mid is None
    assert main(["plan", "x.omr"]) == 0
    assert "to be decided before a run: traces.top_p, accepted.keep" in capsys.readouterr().out
    assert main(["run", "x.omr"]) == 1
    assert "nobody published this" in capsys.readouterr().err


def test_an_unpublished_value_has_a_fingerprint_of_its_own(folder: Path) -> None:
    marks = {
        plan(amended(f"traces {{ {text} }}")).stage("traces").fingerprint
        for text in ("top_p = unpublished", "top_p = 1.0", "temperature = unpublished", "")
    }
    assert len(marks) == 3  # 1.0 is the default


def test_what_cannot_be_unpublished(folder: Path) -> None:
    assert codes("cold_start { lr = unpublished }") == [("E301", "unpublished")]
    assert codes("traces { prompt = unpublished }") == [("E301", "unpublished")]
    assert codes("traces { n = unpublished }") == []
