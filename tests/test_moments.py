"""AdamW with moments of 8 bits: near to fp32, as small as the plan says, resumed exactly, refused where it cannot be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_adapters import folder_of, moved, work_of
from test_trained_plan import costs, part
from torch import nn
from training_parts import fresh_folder, killed_after_saving

from omr_runtime.errors import RunError
from omr_runtime.stages.sft import run
from omr_runtime.train.optimizer import MasterAdamW
from omrlang.compiler import load
from omrlang.estimate.shapes import MOMENTS_8BIT
from omrlang.types import AdamW, Checkpoint

EIGHT = AdamW(moments="blockwise8")


def stepped(settings: AdamW, steps: int = 40) -> tuple[nn.Parameter, MasterAdamW]:
    """Towards a target whose coordinates are of very different sizes."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(256, 256))
    target = torch.randn(256, 256) * torch.logspace(-3, 1, 256)
    optimizer = MasterAdamW([weight], settings)
    for _ in range(steps):
        ((weight - target) ** 2).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step(1e-2)
    return weight, optimizer


def test_it_moves_as_fp32_does() -> None:
    start = stepped(AdamW(), 0)[0]
    whole, short = stepped(AdamW())[0], stepped(EIGHT)[0]
    way = (whole - start).norm()
    assert (short - whole).norm() / way < 0.1
    cosine = torch.cosine_similarity((short - start).flatten(), (whole - start).flatten(), dim=0)
    assert cosine > 0.99


def test_its_moments_take_what_the_plan_says() -> None:
    weight, optimizer = stepped(EIGHT, 1)
    (state,) = optimizer.adam.state.values()
    maps = ("qmap1", "qmap2")  # of all tensors together
    held = sum(
        x.nbytes for name, x in state.items() if isinstance(x, torch.Tensor) and name not in maps
    )
    assert held / weight.numel() == MOMENTS_8BIT


def test_a_stopped_run_goes_on_exactly(tmp_path: Path) -> None:
    base = fresh_folder(tmp_path / "base", "qwen2")

    def make(name: str) -> Any:
        every = Checkpoint(every=2)
        return work_of(
            tmp_path / name, base, optimizer=EIGHT, steps=5, checkpoint=every, with_images=False
        )

    whole, stopped = make("whole"), make("stopped")
    run(whole)
    with killed_after_saving(2):
        run(stopped)
    run(stopped)
    assert moved(folder_of(whole), folder_of(stopped)) == set()
    plain = work_of(tmp_path / "plain", base, steps=5, with_images=False)
    run(plain)
    assert moved(folder_of(plain), folder_of(whole)), "the moments were never of 8 bits"


def test_without_the_package_the_run_ends_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    work = work_of(tmp_path, tmp_path, optimizer=EIGHT)
    with pytest.raises(RunError, match=r"tuned: `moments = blockwise8` needs .* bitsandbytes"):
        run(work)


def test_the_plan_counts_it(tmp_path: Path) -> None:
    whole, short = costs(tmp_path), costs(tmp_path, "optimizer = adamw(moments = blockwise8)")
    per_fp32 = 4 + 8
    assert part(short, "optimiser") / part(whole, "optimiser") == pytest.approx(
        (4 + MOMENTS_8BIT) / per_fp32
    )


def test_it_is_not_cut_up(tmp_path: Path) -> None:
    costs(tmp_path)
    path = tmp_path / "recipe.omr"
    rest = "optimizer = adamw(moments = blockwise8), sharding = zero(2)"
    path.write_text(path.read_text().replace("recompute = true", rest))
    recipe, found = load(path)
    assert recipe is None
    assert [one.code for one in found] == ["E306"]
    path.write_text(path.read_text().replace("zero(2)", "fsdp()"))
    assert load(path)[0] is not None, "FSDP steps each part where it lies"
