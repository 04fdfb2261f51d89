"""Small real parts for tests of training: models from configs, drawn rows, work orders. No mocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from omr_runtime.models.fresh import make_fresh
from omr_runtime.store import ImageStore
from omr_runtime.synthetic.shapes import draw
from omr_runtime.train.checkpoint import Checkpoints
from omr_runtime.work import InputRows, Shards, Work
from omrlang.plan import PlanStage
from omrlang.schema import Sft
from omrlang.types import Amount, Constant, Fresh, Prompt, TrainedModel

PROMPT = Prompt(name="think_answer_short")


def fresh_folder(folder: Path, family: str = "qwen2_5_vl", **changes: Any) -> Path:
    """A model of a few layers with its tokenizer, on disk."""
    settings: dict[str, Any] = {"layers": 2, "hidden": 64, "heads": 4, "seed": 3}
    if family != "qwen2":
        settings |= {"vision_layers": 2, "vision_hidden": 64}
    folder.mkdir(parents=True, exist_ok=True)
    make_fresh(Fresh.model_validate({"family": family, **settings, **changes}), folder)
    return folder


def drawn_rows(
    state: Path, num: int, seed: int = 5, with_images: bool = True
) -> list[dict[str, Any]]:
    """Puzzles as rows of the row schema, their pictures in the state's store."""
    store = ImageStore(state)
    rows = []
    for i, row in enumerate(draw(num, seed)):
        images = [store.put(data) for data in row["images"]] if with_images else []
        rows.append({**row, "id": f"row{i:04d}", "source": "puzzles", "images": images})
    return rows


def sft_spec(**changes: Any) -> Sft:
    """Settings of a short run, with ``changes``."""
    settings: dict[str, Any] = {
        "name": "tuned",
        "seed": 7,
        "rows": "puzzles",
        "model": TrainedModel(stage="base"),
        "prompt": PROMPT,
        "pack": 128,
        "batch": Amount(value=2, unit="packs"),
        "steps": 6,
        "lr": Constant(peak=1e-3),
        "precision": "fp32",
    }
    if "epochs" in changes:
        del settings["steps"]
    return Sft.model_validate(settings | changes)


def sft_work(state: Path, base: Path, rows: Sequence[dict[str, Any]], spec: Sft) -> Work:
    """A work order over ``rows``; the model to start from is the folder ``base``."""
    source = state / "store" / "rows"
    if not source.exists():
        Shards(source).write(0, {"row": list(rows)})
    fingerprint = f"fp_{spec.name}"
    stage = PlanStage(
        address=f"sft.{spec.name}", name=spec.name, spec=spec, fingerprint=fingerprint, parents=("puzzles",), action="new",
    )  # fmt: skip
    (state / "work").mkdir(parents=True, exist_ok=True)
    return Work(
        stage=stage,
        seed=spec.seed,
        base=str(state),
        state=str(state),
        out=str(state / "store" / fingerprint),
        progress=str(state / "work" / f"{fingerprint}.progress"),
        inputs=(InputRows(name="puzzles", fingerprint="rows", folder=str(source)),),
        model_folders={"base": str(base)},
    )


def of_a_clock(name: str) -> bool:
    """Whether a figure of a step is of its seconds, so that no run has it twice."""
    return name.endswith("_s") or name in ("tflops", "mfu")


@contextmanager
def killed_after_saving(*steps: int) -> Iterator[None]:
    """What trains here must be ended at a checkpoint of one of these steps, as soon as it is written."""
    save = Checkpoints.save

    def save_then_die(self: Checkpoints, step: int, *rest: Any) -> None:
        save(self, step, *rest)
        if step in steps:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            yield
