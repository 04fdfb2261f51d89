"""An ablation of a recipe to whether it ran no more stages than sharing asks for, and whether its table says what the lineage does.

    python benchmarks/ablate.py [RECIPE] [--vary traces.n=1,2,4] [--seeds 3] [--set PATH=VALUE ...] [--state DIR] [--html FILE]

By default the quickstart with one, two and four answers to a question under three training seeds: some 20 minutes on two
cores without a GPU. Ends with 1 where anything differs. With ``--state`` an interrupted study goes on where it stopped, and
only what is left is counted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from measured import ROOT

from omr_runtime import lineage
from omr_runtime.report.comparison import scores_of
from omr_runtime.report.ran import of_plan
from omr_runtime.store import State
from omrlang.ablation import arms
from omrlang.diff import Study
from omrlang.plan import Plan


def main(args: argparse.Namespace, state: Path) -> int:
    plans = _plans(args, state)
    due = Counter(f"{s.spec.kind} {s.name}" for s in _once(plans) if s.action != "cached")
    start = time.monotonic()
    page = ["--html", str(args.html.resolve())] if args.html else []
    study = Study.model_validate_json(_ablate(args, state, "--json", *page))
    seconds = time.monotonic() - start
    table = _ablate(args, state)
    print(table)
    print(
        f"{len(plans)} variants under {args.seeds} seeds in {seconds:.0f} s; stages due, each artifact once:"
    )
    print(f"  {', '.join(f'{name} {times}' for name, times in due.items())}")
    wrong = [*_counts(study, plans, due.total(), state), *_scores(study, plans, state, table)]
    print("\n".join(f"WRONG: {line}" for line in wrong) or "every number is the lineage's")
    return 1 if wrong else 0


def _plans(args: argparse.Namespace, state: Path) -> list[list[Plan]]:
    """By variant the plan of each seed, before anything is run."""
    found = arms(args.recipe, args.vary, args.seeds, args.set)
    return [[arm.side(number, state).plan for number in range(args.seeds)] for arm in found]


def _once(plans: Sequence[Sequence[Plan]]) -> list:
    return list({s.fingerprint: s for arm in plans for plan in arm for s in plan.stages}.values())


def _ablate(args: argparse.Namespace, state: Path, *words: str) -> str:
    """What ``omr ablate`` prints; its progress goes to the terminal."""
    options = [word for item in args.vary for word in ("--vary", item)]
    options += [word for item in args.set for word in ("--set", item)]
    command = [sys.executable, "-m", "omrlang", "ablate", args.recipe, *options, *words]
    command += ["--seeds", str(args.seeds), "--state", str(state), "--width", "120"]
    return subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout


# ---- checks --------------------------------------------------------------------------------------


def _counts(study: Study, plans: Sequence[Sequence[Plan]], due: int, state: Path) -> Iterator[str]:
    """Stages that were run, against what sharing leaves to do and against what the lineage holds."""
    alone = sum(len({s.fingerprint for s in plan.stages}) for arm in plans for plan in arm)
    with lineage.read(State(state).lineage) as reader:
        done = {row["fingerprint"] for row in reader.stages() if row["status"] == "done"}
    lacking = {stage.fingerprint for stage in _once(plans)} - done
    print(f"{study.executed} stages executed, {due} due; {alone} without sharing")
    if study.executed != due:
        yield f"{study.executed} stages were executed where {due} were due"
    if study.without_sharing != alone:
        yield f"the study says {study.without_sharing} without sharing, which are {alone}"
    if lacking:
        yield f"the lineage has {len(lacking)} of the stages as not done"


def _scores(
    study: Study, plans: Sequence[Sequence[Plan]], state: Path, table: str
) -> Iterator[str]:
    """Each accuracy of the study and of the printed table, against the answers in the lineage, one by one."""
    printed: defaultdict[str, str] = defaultdict(str)  # a stage has a row in the table of each pair
    for line in table.splitlines():
        if "%" in line:
            printed[line.split()[0]] += line
    for column, arm in zip(study.columns, plans, strict=True):
        for score in column.scores:
            accuracy = fmean(_accuracy(plan, score.stage, state) for plan in arm)
            if abs(accuracy - score.accuracy.mean) > 1e-9:
                yield f"{column.name}: {score.stage} is {accuracy:.6f}, not {score.accuracy.mean:.6f}"
            if f"{accuracy:.1%} (" not in printed[score.stage]:
                yield f"{column.name}: {score.stage} is {accuracy:.1%}, which no cell of its row says"


def _accuracy(plan: Plan, name: str, state: Path) -> float:
    """Over questions the mean of their answers' scores."""
    ran = of_plan(State(state), plan)
    with lineage.read(ran.state.lineage) as reader:
        scores = scores_of(reader, ran.plan.stage(name))
    return fmean(fmean(values) for values in scores.values())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("recipe", nargs="?", default="pipelines/quickstart.omr")
    parser.add_argument("--vary", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--state", type=Path)
    parser.add_argument("--html", type=Path)
    args = parser.parse_args()
    args.vary = args.vary or ["traces.n=1,2,4"]
    return args


if __name__ == "__main__":
    ARGS = _arguments()
    if ARGS.state is not None:
        sys.exit(main(ARGS, ARGS.state.resolve()))
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(main(ARGS, Path(folder)))
