"""The language: what recipes mean, how they are formatted, and that no text breaks the front."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omrlang.cli import main
from omrlang.compiler import load, load_all
from omrlang.format import format_text
from omrlang.hir import Recipe
from omrlang.render import concise, render
from omrlang.schema import Eval, Filter, Mix, Sample, Sft, Source
from omrlang.types import Amount, Cosine, Count, Model, Range, Share, TrainedModel, UpTo

ROOT = Path(__file__).parents[1]
SHIPPED = sorted([*(ROOT / "pipelines").rglob("*.omr"), *(ROOT / "stdlib").rglob("*.omr")])

HEAD = """omr 1

use std.formats
use std.gpus
use std.models

"""


def recipe(text: str, folder: Path, *overrides: str) -> Recipe:
    """The checked recipe; the test fails with its errors if it has any."""
    path = folder / "x.omr"
    path.write_text(HEAD + text)
    found, diagnostics = load(path, overrides)
    assert found is not None, render(diagnostics)
    return found


def spec(found: Recipe, name: str) -> object:
    return next(stage.spec for stage in found.stages if stage.spec.name == name)


# ---- shipped files -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_files_check_and_are_formatted(path: Path) -> None:
    found, diagnostics = load_all(path)
    assert found, render(diagnostics)
    text = path.read_text()
    assert format_text(text) == text


def test_stages_stand_after_what_they_name() -> None:
    found, _ = load(ROOT / "pipelines" / "quickstart.omr")
    assert found is not None
    names = [stage.spec.name for stage in found.stages]
    assert names.index("traces") < names.index("accepted") < names.index("cold_start")


# ---- meaning -----------------------------------------------------------------------------------


def test_numbers_units_and_choices(tmp_path: Path) -> None:
    found = recipe(
        """source a from jsonl("a.jsonl") { rows = 1.5k }

sft b from a with models.smollm2_135m on 2 * gpus.a800_80gb {
  pack  = 61_440 tokens
  batch = 1 pack / gpu
  steps = 4_300 steps
  lr    = cosine(5e-5, warmup = 10%)
  checkpoint { every = 2_000 steps, keep = 3 }
  assume { response = 675 tokens, image = 1.0M .. 2M pixels, keep = 57.3% .. 70.5% .. 70.8% }
}
""",
        tmp_path,
    )
    source, sft = spec(found, "a"), spec(found, "b")
    assert isinstance(source, Source)
    assert source.rows == 1500
    assert isinstance(sft, Sft)
    assert sft.batch == Amount(value=1, unit="packs / gpu")
    assert sft.lr == Cosine(peak=5e-5, warmup=Amount(value=0.1, unit="fraction"))
    assert sft.checkpoint is not None
    assert sft.checkpoint.every == 2000
    assert sft.hardware is not None
    assert sft.hardware.count == 2
    assert sft.assume.response == Range(lo=675, hi=675)
    assert sft.assume.image == Range(lo=1e6, hi=2e6)


def test_lets_arithmetic_and_overrides(tmp_path: Path) -> None:
    text = """seed = 3

let base = 500
let folder = "data"

source a from jsonl(folder + "/a.jsonl") { take = base * 2 }

sample b from a with models.smollm2_135m {
  n           = 2
  prompt      = formats.think_answer
  temperature = 1
  max_tokens  = 8 * 16
}
"""
    found = recipe(text, tmp_path, "base=700", "folder=/else where", "b.n=4", "seed=9")
    source, sample = spec(found, "a"), spec(found, "b")
    assert isinstance(source, Source)
    assert source.take == 1400
    assert source.place.model_dump()["path"] == "/else where/a.jsonl"
    assert isinstance(sample, Sample)
    assert (sample.n, sample.max_tokens, sample.seed) == (4, 128, 9)
    layers = {stage.spec.name: stage.settings for stage in found.stages}["b"]
    assert (layers["n"].layer, layers["prompt"].layer, layers["top_p"].layer) == (
        "set",
        "file",
        "default",
    )


def test_setting_one_of_a_pair_drops_the_other(tmp_path: Path) -> None:
    text = """source a from jsonl("a.jsonl")

sft b from a with models.smollm2_135m {
  pack  = 64
  batch = 2 rows
  steps = 10
  lr    = constant(1e-3)
}
"""
    sft = spec(recipe(text, tmp_path, "b.epochs=1"), "b")
    assert isinstance(sft, Sft)
    assert (sft.steps, sft.epochs) == (None, 1.0)


def test_amounts_of_a_mix(tmp_path: Path) -> None:
    text = """source a from jsonl("a.jsonl")

source b from jsonl("b.jsonl")

mix c from [a: 200, b: up_to(2k)]

mix d from [a: 25%, b: 75%] { total = 1_000 }
"""
    found = recipe(text, tmp_path)
    c, d = spec(found, "c"), spec(found, "d")
    assert isinstance(c, Mix)
    assert [part.amount for part in c.parts] == [Count(n=200), UpTo(n=2000)]
    assert isinstance(d, Mix)
    assert d.parts[1].amount == Share(fraction=0.75)


def test_derived_stages_and_things(tmp_path: Path) -> None:
    text = """model referee = models.smollm2_135m { engine = openai(env("REFEREE"), concurrency = 4) }

prompt short = formats.think_answer { system = none }

source a from jsonl("a.jsonl")

sft b from a with referee {
  pack  = 64
  batch = 2 rows
  steps = 1
  lr    = constant(1e-3)
}

eval before from a with referee {
  prompt      = short
  temperature = 0
  max_tokens  = 64
}

eval after = before with b { n = 2 }
"""
    found = recipe(text, tmp_path)
    before, after = spec(found, "before"), spec(found, "after")
    assert isinstance(before, Eval)
    assert isinstance(after, Eval)
    assert isinstance(before.model, Model)
    assert before.model.name == "referee"
    assert before.model.engine is not None
    assert before.model.engine.model_dump()["url_env"] == "REFEREE"
    assert before.prompt.system is None
    assert before.prompt.name == "short"
    assert after.model == TrainedModel(stage="b")
    assert (after.n, after.max_tokens, after.rows) == (2, 64, ("a",))


def test_row_expressions(tmp_path: Path) -> None:
    text = """let longest = 50

source a from jsonl("a.jsonl") {
  columns { question = raw["the question"], answer = choices[label], extra.level = level }
  where = len(answer) <= longest and extra.level is not null
}

sample b from a with models.smollm2_135m {
  n           = 4
  prompt      = formats.think_answer
  temperature = 1
  max_tokens  = 64
}

filter c from b {
  keep    = (format_ok and len(response) > 3) and (answer_matches or judge(models.smollm2_135m_hub, sees = response))
  at_most = 2
}

filter d from b { keep = pass_rate(c) in 10% .. 90% and not finish == "length" }
"""
    found = recipe(text, tmp_path)
    c, a, d = spec(found, "c"), spec(found, "a"), spec(found, "d")
    assert isinstance(a, Source)
    assert isinstance(c, Filter)
    assert isinstance(d, Filter)
    assert a.columns["question"].tree.model_dump() == {"op": "col", "name": "the question"}
    assert set(a.columns) == {"question", "answer", "extra.level"}
    assert a.where is not None
    assert a.where.text == "len(answer) <= 50 and extra.level is not null"
    assert {rule.name for rule in c.keep.rules} == {
        "len(response) > 3",
        "format_ok",
        "answer_matches or judge(models.smollm2_135m_hub, sees = response)",
    }
    assert c.at_most == Amount(value=2, unit="per parent")
    assert d.keep.rules[-1].name == "pass_rate(c) in 10% .. 90%"
    names = [stage.spec.name for stage in found.stages]
    assert names.index("c") < names.index("d")


def test_stages_of_a_library_come_with_their_module(tmp_path: Path) -> None:
    (tmp_path / "lib.omr").write_text(
        'omr 1\n\nsource a from jsonl("a.jsonl")\n\nsource z from jsonl("z.jsonl")\n'
    )
    found = recipe('use "lib.omr" as lib\n\nmix b from [lib.a: all]\n', tmp_path)
    assert [stage.spec.name for stage in found.stages] == ["lib.a", "b"]


def test_lines_that_go_on(tmp_path: Path) -> None:
    text = """source a
  from jsonl("a.jsonl") {
  where = len(question) > 1
    and len(question) < 9
    or question == "x"
}
"""
    source = spec(recipe(text, tmp_path), "a")
    assert isinstance(source, Source)
    assert source.where is not None
    assert source.where.text == 'len(question) > 1 and len(question) < 9 or question == "x"'


def test_allow_and_deny(tmp_path: Path) -> None:
    text = (ROOT / "pipelines" / "quickstart.omr").read_text()
    without = "\n".join(line for line in text.splitlines() if not line.startswith("allow"))
    path = tmp_path / "q.omr"
    path.write_text(without)
    found, diagnostics = load(path)
    assert found is not None
    assert [item.code for item in diagnostics] == ["W101"]
    denied, diagnostics = load(path, (), ["W101"])
    assert denied is None
    assert diagnostics[0].severity == "error"


# ---- formatting --------------------------------------------------------------------------------

UGLY = """omr   1
# above
use  std.models   # beside


# two
# lines
mix q from [a:all,# first
  # own line
  b : 20 %, up_to_n: up_to( 2_0 )
] { total=100 rows   # many
  # before shuffle
  shuffle   = true

  unique=exact
  # last
}
filter f from q { keep=(format_ok
  and   answer_matches) # kept
  assume {keep=1%..2% ..  3%}
}
filter g from q { keep = len(question) > 10 and len(question) < 10_000_000_000 and len(answer) > 10 and len(answer) < 100 }
model m = hf("x",revision="y"){precision=bf16,vision=false}
# the end
"""
PRETTY = """omr 1
# above
use std.models  # beside

# two
# lines
mix q from [
  a: all,  # first
  # own line
  b: 20%,
  up_to_n: up_to(2_0),
] {
  total   = 100 rows  # many
  # before shuffle
  shuffle = true

  unique = exact
  # last
}

filter f from q {
  keep = (format_ok and answer_matches)  # kept
  assume { keep = 1% .. 2% .. 3% }
}

filter g from q {
  keep = len(question) > 10
    and len(question) < 10_000_000_000
    and len(answer) > 10
    and len(answer) < 100
}

model m = hf("x", revision = "y") { precision = bf16, vision = false }
# the end
"""


def test_format() -> None:
    text = UGLY.replace("20 %", "20%")
    formatted = format_text(text)
    assert format_text(formatted) == formatted
    assert formatted.count("#") == text.count("#")
    assert formatted == PRETTY


@st.composite
def ugly_recipes(draw: st.DrawFn) -> str:
    """Well-formed statements with space, comments and line ends thrown in where they may stand."""
    space = st.sampled_from([" ", "  ", "\t"])
    inside = st.sampled_from(["", " ", "\n  ", " # c\n  ", "\n\n\n  # d\n  "])
    statements = []
    for number in range(draw(st.integers(0, 4))):
        gap = draw(space)
        items = draw(st.lists(st.sampled_from(["a: all", "b:20%", "c : up_to(3)"]), max_size=3))
        rows = ("," + draw(inside)).join(items)
        body = draw(
            st.sampled_from(
                ["", "{ total = 3 }", "{\n  total=3 # x\n\n  shuffle = true\n}", "{\n# y\n}"]
            )
        )
        tail = draw(st.sampled_from(["", " # t", "\n# u\n\n\n# v"]))
        statements.append(
            f"mix{gap}m{number} from [{draw(inside)}{rows}{draw(inside)}]{gap}{body}{tail}"
        )
        long = " and ".join(["len(question) > 10"] * draw(st.integers(1, 9)))
        statements.append(f"filter f{number} from m{number} {{ keep = ({draw(inside)}{long}) }}")
    return draw(st.sampled_from(["\n", "\n\n\n", "\n# s\n"])).join(statements) + "\n"


@given(ugly_recipes())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_formatting_twice_is_once_and_keeps_every_comment(text: str) -> None:
    once = format_text(text)
    assert format_text(once) == once
    assert sorted(_comments(once)) == sorted(_comments(text))


def _comments(text: str) -> list[str]:
    return [line.partition("#")[2].strip() for line in text.splitlines() if "#" in line]


# ---- no text breaks it -------------------------------------------------------------------------

_WORDS = [
    "omr 1\n", "use std.models\n", "use std.gpus\n", "let ", "seed = ", "source ", "mix ", "sample ", "filter ", "sft ", "rl ",
    "eval ", "model ", "prompt ", "hardware ", "gpu ", "a", "b", "c", " from ", " with ", " on ", "[", "]", "(", ")", "{", "}",
    " = ", ", ", ": ", "\n", "\n  ", "all", "20%", "3 tokens", "1 pack / gpu", "$3 / gpu_hour", "1e300", '"x"', '"""', "# c\n",
    "models.smollm2_135m", " and ", " or ", "not ", " in ", " is null", " .. ", "keep", "rows", "n", "columns", "question",
    "answer_matches", "judge(", "jsonl(", "cosine(1e-3", "gspo(clip = [1, 2]", "extra.x", "answer[0]", "2 * ", "none", "-", "1 / 0",
]  # fmt: skip


@given(
    st.one_of(st.text(max_size=200), st.lists(st.sampled_from(_WORDS), max_size=60).map("".join))
)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_gives_a_recipe_or_diagnostics(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.omr"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    found, diagnostics = load(path)
    assert (found is None) == any(item.severity == "error" for item in diagnostics)
    assert render(diagnostics) or not diagnostics
    assert all(concise(item) for item in diagnostics)


@given(st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_recipe_gives_a_recipe_or_diagnostics(
    tmp_path: Path, data: st.DataObject
) -> None:
    text = (
        ROOT / "pipelines" / data.draw(st.sampled_from(["quickstart.omr", "word_problems.omr"]))
    ).read_text()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 20))
        text = text[:at] + data.draw(st.sampled_from([*_WORDS, ""])) + text[at + cut :]
    path = tmp_path / "any.omr"
    path.write_text(text)
    found, diagnostics = load(path)
    assert (found is None) == any(item.severity == "error" for item in diagnostics)
    assert format_text(format_text(text)) == format_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "let a = " + "-" * 100_000 + "1",
        "let a = " + "1 + " * 50_000 + "1",
        "let a = " + "a." * 50_000 + "a",
        "let a = " + "9" * 100_000,
        "let a = 1e-999999999999\nseed = a",
        "\n".join(f"let a{n} = a{n - 1}" for n in range(1, 3000)) + "\nseed = a2999",
        "let b0 = 1e30\n" + "\n".join(f"let b{n} = b{n - 1} * b{n - 1}" for n in range(1, 60)) + "\nseed = b59",
        "\n".join(f"filter f{n} = f{n - 1} {{}}" for n in range(1, 500)),
        "source s { columns" + " { a" * 70,
        "# " * 100_000,
        "# c\n" * 100_000,
        '"' * 100_001,
        "a" * 1_000_000,
    ],
    ids=range(14),
)  # fmt: skip
def test_nothing_exhausts_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.omr"
    path.write_text(text)
    started = time.monotonic()
    _, diagnostics = load(path)
    assert render(diagnostics) or not diagnostics
    assert time.monotonic() - started < 20


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.omr").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "big.omr").write_bytes(b"# x\n" * 1_100_000)
    for path in (tmp_path / "none.omr", tmp_path, tmp_path / "binary.omr", tmp_path / "big.omr"):
        found, diagnostics = load(path)
        assert found is None
        assert [item.code for item in diagnostics] == ["E106"]


def test_cost_grows_with_length(tmp_path: Path) -> None:
    text = 'omr 1\n\nsource s0 from jsonl("a.jsonl")\n\n' + "\n\n".join(
        f"filter s{n} from s{n - 1} {{ keep = len(question) > {n} }}" for n in range(1, 3000)
    )
    path = tmp_path / "long.omr"
    path.write_text(text)
    found, diagnostics = load(path)
    assert found is not None, render(diagnostics[:2])
    assert len(found.stages) == 3000


# ---- commands ----------------------------------------------------------------------------------


def test_check_prints_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(ROOT / "pipelines" / "quickstart.omr")]) == 0
    out = capsys.readouterr().out
    assert "ok · 11 stages (3 source, 1 mix, 1 sample, 1 filter, 1 sft, 1 rl, 3 eval)" in out


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none.omr")]) == 1
    assert main(["chek"]) == 64
    assert "`check` is one" in capsys.readouterr().err
    assert main([]) == 64
    assert main(["check"]) == 64
    assert main(["check", "--nope", "x"]) == 64
    assert main(["--version"]) == 0
    assert main(["schema", "samlpe"]) == 64


def test_fmt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.omr"
    path.write_text("omr 1\nseed=7\n")
    assert main(["fmt", "--check", str(path)]) == 1
    assert path.read_text() == "omr 1\nseed=7\n"
    assert main(["fmt", str(path)]) == 0
    assert path.read_text() == "omr 1\nseed = 7\n"
    assert main(["fmt", "--check", str(path)]) == 0
    path.write_text("seed = (\n")
    assert main(["fmt", str(path)]) == 1
    assert path.read_text() == "seed = (\n"


def test_a_bug_of_ours_leaves_a_file_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("broken on purpose")

    monkeypatch.setattr("omrlang.compiler.load_all", broken)
    assert main(["check", "x.omr"]) == 1
    err = capsys.readouterr().err
    assert "internal error: ZeroDivisionError" in err
    assert "Traceback" not in err
    log = Path(err.split("the details are in ")[1].strip())
    assert "broken on purpose" in log.read_text()
    log.unlink()


def test_as_a_module() -> None:
    command = [sys.executable, "-m", "omrlang", "check", "pipelines/word_problems.omr"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "14 stages" in result.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").glob("*.omr")), ids=lambda p: p.stem)
def test_what_the_checker_makes_is_what_pydantic_would_take(path: Path) -> None:
    """The checker constructs values without validating them again, so they must be valid as they are."""
    found, _ = load(path)
    assert found is not None
    for stage in found.stages:
        spec = stage.spec
        assert type(spec).model_validate(spec.model_dump(), strict=False) == spec
        assert type(spec).model_validate_json(spec.model_dump_json()) == spec
