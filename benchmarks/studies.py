"""The small studies and two recipes, run to their end under several seeds, to their tables in docs/small_studies.md.

    python benchmarks/studies.py NAME ... [--seeds 3] [--state DIR] [--only N] [--out docs/small_studies.md] [--set PATH=VALUE ...]

NAME is `transfer`, `word_problems`, `answers`, `diversity`, `algorithms`, `format_weight` or `all`. Every figure of a table is read from the lineage
of the runs: accuracies with 95% intervals over questions and seeds, differences paired by question. With --state an interrupted
study goes on where it stopped, and studies share what is equal. `{seed}` in DIR gives each seed a folder of its own: with --only N
seed N alone is run, on another core or machine, and without it what is there is not run again. Without --out the tables are only
printed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from measured import ROOT

from omr_runtime import lineage
from omr_runtime.executor import execute, prepare
from omr_runtime.lock import hold
from omr_runtime.report.arms import Gain, Outcome, gain, outcome
from omr_runtime.report.facts import trained
from omr_runtime.report.markdown import table
from omr_runtime.report.ran import Ran, of_plan
from omr_runtime.store import State
from omrlang.ablation import arms

RECIPES = {
    "transfer": "pipelines/transfer.omr",
    "word_problems": "pipelines/word_problems.omr",
    **{
        name: f"pipelines/findings/{name}.omr"
        for name in ("answers", "diversity", "algorithms", "format_weight")
    },
}
ROADS = {
    "transfer": {"pictures": "pictures_{}", "words": "words_{}"},
    "word_problems": {"word problems": "{}"},
}
"""Recipes without variants: what is asked before, between and after its trainings, and how those evals are called."""
FOLLOWED = {"algorithms": ("reasoner", ("clip_fraction", "entropy", "reward"))}
"""Figures of a training that a study is about too: the mean of its last tenth of steps, over seeds."""
Runs = dict[str, list[Ran]]
"""By variant a run of each seed."""


def main(args: argparse.Namespace, state: Path) -> int:
    names = list(RECIPES) if "all" in args.names else args.names
    for name in names:
        start = time.monotonic()
        if _has_seeds(state):
            _run_apart(RECIPES[name], args, state)
        else:
            _run(RECIPES[name], args, state)
        if args.only is not None:
            continue
        minutes = (time.monotonic() - start) / 60
        runs = _runs(RECIPES[name], args, state)
        text = _road(name, next(iter(runs.values()))) if name in ROADS else _study(name, runs)
        seeds = "1 seed" if args.seeds == 1 else f"{args.seeds} training seeds"
        words = [
            name,
            "--seeds",
            str(args.seeds),
            *(w for item in args.set for w in ("--set", item)),
        ]
        took = "each in a folder of its own" if _has_seeds(state) else f"{minutes:.0f} minutes"
        text += f"\n\n{seeds}, {took}: `python benchmarks/studies.py {' '.join(words)}`"
        print(f"{name}\n\n{text}\n")
        if args.out is not None:
            args.out.write_text(placed(args.out.read_text(), name, text))
    return 0


def placed(page: str, name: str, text: str) -> str:
    """The page with the table between its two marks; a page without them is an error."""
    marks = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    new, number = marks.subn(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page)
    if number != 1:
        sys.exit(f"the page has no place for a table of {name}")
    return new


def _run(recipe: str, args: argparse.Namespace, state: Path) -> None:
    settings = [word for item in args.set for word in ("--set", item)]
    command = [sys.executable, "-m", "omrlang", "ablate", recipe, *settings]
    command += ["--seeds", str(args.seeds), "--state", str(state)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def _has_seeds(state: Path) -> bool:
    return "{seed}" in str(state)


def _of_seed(state: Path, number: int) -> Path:
    return Path(str(state).replace("{seed}", str(number)))


def _run_apart(recipe: str, args: argparse.Namespace, state: Path) -> None:
    """Seed after seed, or one alone, each in its own folder."""
    for arm in arms(str(ROOT / recipe), [], args.seeds, args.set):
        for number in range(args.seeds) if args.only is None else [args.only]:
            own = _of_seed(state, number)
            with hold(State(own)) as lock:
                prepare(State(own), lock)
                code, _ = execute(arm.side(number, own).plan, own, lock=lock)
            if code != 0:
                sys.exit(code)


def _runs(recipe: str, args: argparse.Namespace, state: Path) -> Runs:
    found: Runs = {}
    for arm in arms(str(ROOT / recipe), [], args.seeds, args.set):
        states = [_of_seed(state, number) for number in range(args.seeds)]
        sides = [arm.side(number, own) for number, own in enumerate(states)]
        label = sides[0].name.partition("[")[2].removesuffix("]") or arm.path.stem
        found[label] = [
            of_plan(State(own), side.plan) for own, side in zip(states, sides, strict=True)
        ]
    return found


# ---- tables --------------------------------------------------------------------------------------


def _study(name: str, runs: Runs) -> str:
    """Variants by evals, each against the first variant on the same questions in the last eval."""
    first = next(iter(runs.values()))
    evals = [stage.name for stage in first[0].evals]
    stage, figures = FOLLOWED.get(name, ("", ()))
    head = ["variant", *evals, f"{evals[-1]} against the first", "response tokens"]
    rows = [[*head, *(f"{figure} at the end" for figure in figures)]]
    for label, of in runs.items():
        outcomes = [outcome(of, it) for it in evals]
        against = None if of is first else gain(first, of, evals[-1], evals[-1])
        tokens = outcomes[-1].tokens if outcomes[-1] else None
        cells = [*map(_accuracy, outcomes), _points(against), _plain(tokens)]
        rows.append([label, *cells, *(_plain(_last(of, stage, it), 3) for it in figures)])
    return table(rows)


def _road(name: str, runs: Sequence[Ran]) -> str:
    """Each kind of question before, after SFT and after RL, and what each training gained, paired by question and seed."""
    gains = {"SFT against before": (0, 1), "RL against SFT": (1, 2), "RL against before": (0, 2)}
    rows = [["asked", "before", "after SFT", "after RL", *gains]]
    for kind, pattern in ROADS[name].items():
        evals = [pattern.format(when) for when in ("before", "between", "after")]
        gained = [gain(runs, runs, evals[a], evals[b]) for a, b in gains.values()]
        rows.append([kind, *(_accuracy(outcome(runs, it)) for it in evals), *map(_points, gained)])
    return table(rows)


def _accuracy(found: Outcome | None) -> str:
    if found is None:
        return "–"
    return f"{found.accuracy:.1%} ({100 * found.lo:.1f} – {100 * found.hi:.1f})"


def _points(found: Gain | None) -> str:
    if found is None:
        return "–"
    return f"{100 * found.difference:+.1f} ({100 * found.lo:+.1f} … {100 * found.hi:+.1f})"


def _plain(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _last(runs: Sequence[Ran], stage: str, figure: str) -> float | None:
    values = list(_lasts(runs, stage, figure))
    return fmean(values) if values else None


def _lasts(runs: Sequence[Ran], stage: str, figure: str) -> Iterator[float]:
    for run in runs:
        with lineage.read(run.state.lineage) as reader:
            curves = trained(reader, run.plan.stage(stage)).curves
        yield from (curve.last_mean for curve in curves if curve.name == figure)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="+", choices=[*RECIPES, "all"], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--only", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--set", action="append", default=[])
    found = parser.parse_args()
    if found.only is not None and not (found.state and _has_seeds(found.state)):
        parser.error("--only needs --state with {seed} in it")
    return found


if __name__ == "__main__":
    ARGS = _arguments()
    if ARGS.state is not None:
        sys.exit(main(ARGS, ARGS.state.resolve()))
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(main(ARGS, Path(folder)))
