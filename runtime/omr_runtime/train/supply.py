"""Steps to the batches that they learn from: each drawn when its step begins, or one ahead beside the update before it.

One ahead (``behind``): while a step learns, a thread draws and scores the batch of the next with the weights that this step
began with. So step n learns from rollouts of the weights after max(0, n - 1) steps, counted from 0: what prime-rl and verl's
one-step-off-policy trainer do. The thread alone touches the engine as long as it runs, and takes part in no collective, whose
order on the other ranks two threads would mix up: ranks tell each other what they drew when it is over, in the caller's thread.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

import torch

from omr_runtime.errors import RunError
from omr_runtime.train import buffer
from omr_runtime.train.fill import FULL, UNFINISHED, Batch, Group, fill, one_round
from omr_runtime.train.loop import Trainer
from omr_runtime.train.prompts import Member, Prompts, prompts_beyond, prompts_of_step
from omr_runtime.train.rollout import Questions, Rollouts, roll_out
from omr_runtime.train.under_way import UnderWay, begun, draw_until, rolled, shuffled
from omr_runtime.verify.reward import Reward
from omrlang.schema import Rl
from omrlang.settle import continues


@dataclass(frozen=True, slots=True)
class Drawing:
    """What draws and scores rollouts."""

    spec: Rl
    trainer: Trainer
    questions: Questions
    prompts: Prompts
    rollouts: Rollouts
    reward: Reward

    def roll(self, members: Sequence[Member], step: int) -> list[Group]:
        """This rank's groups for ``members``, all of which are its own."""
        return list(roll_out(self.questions, members, step, self.rollouts, self.reward))


class Supply(Protocol):
    """Who gives each step its batch. Every rank calls all of it at the same places."""

    def batch(self, step: int, first: int) -> Batch:
        """What step ``step`` (from 0) learns from; its prompts begin at ``first`` of the stream."""
        ...

    def begin(self, step: int, first: int) -> None:
        """Now the batch of ``step`` may be begun, with the weights of this moment."""
        ...

    def settle(self) -> None:
        """Wait for what was begun. From then on the engine is free."""
        ...

    def save(self, folder: Path) -> None:
        """What is drawn and not learned, into a checkpoint."""
        ...

    def load(self, folder: Path) -> None: ...

    def close(self) -> None: ...


def open_supply(drawing: Drawing) -> Supply:
    """As the recipe's ``behind`` and ``oversample`` say."""
    if drawing.spec.oversample is not None:
        return Oversampled(drawing)
    return OneAhead(drawing) if drawing.spec.behind else InTurn(drawing)


class InTurn:
    """A batch is drawn when its step begins, with the weights that it will train."""

    def __init__(self, drawing: Drawing) -> None:
        self._drawing = drawing

    def batch(self, step: int, first: int) -> Batch:
        drawing = self._drawing
        drawing.rollouts.refresh(drawing.trainer)
        start, waited = time.perf_counter(), drawing.reward.waited_s

        def take(asked: int, count: int) -> Sequence[Member]:
            return drawing.prompts.take(first, first + asked, count)

        def roll(members: Sequence[Member]) -> Sequence[Group]:
            return drawing.roll(members, step)

        batch = fill(drawing.spec, drawing.trainer, step + 1, take, roll)
        drawing.rollouts.rest()
        batch.rollout_s = time.perf_counter() - start
        batch.reward_s = drawing.reward.waited_s - waited
        return batch

    def begin(self, step: int, first: int) -> None:
        """Nothing is drawn before the step itself."""

    def settle(self) -> None: ...

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...

    def close(self) -> None: ...


class Oversampled:
    """More prompts are under way than a step learns from, and it takes the groups that end first."""

    def __init__(self, drawing: Drawing) -> None:
        spec, ranks = drawing.spec, drawing.trainer.num_ranks
        for key, count in (("batch", prompts_of_step(spec)), ("oversample", prompts_beyond(spec))):
            if count % ranks:
                raise RunError(
                    f"{spec.name}: {ranks} processes do not divide `{key}`, {count:,} prompts: "
                    "each process has as many under way"
                )
        self._drawing = drawing
        self._groups: list[UnderWay] = []

    def batch(self, step: int, first: int) -> Batch:
        drawing = self._drawing
        drawing.rollouts.refresh(drawing.trainer)
        start, waited = time.perf_counter(), drawing.reward.waited_s
        num_new = self._begin(step, first)
        share = prompts_of_step(drawing.spec) // drawing.trainer.num_ranks
        wanted = min(share, len(self._groups))
        given = (drawing.questions, drawing.rollouts, drawing.reward)
        complete = draw_until(self._groups, step, wanted, *given)
        drawing.rollouts.rest()
        batch = self._learned(shuffled(complete[:wanted], step, drawing.questions), step)
        batch.num_asked = num_new
        self._keep(batch, complete[wanted:], step)
        batch.rollout_s = time.perf_counter() - start
        batch.reward_s = drawing.reward.waited_s - waited
        return batch

    def _begin(self, step: int, first: int) -> int:
        """Take new prompts, so that as many as may be are under way; how many, over all ranks."""
        drawing, spec = self._drawing, self._drawing.spec
        is_first = step == 0 or not continues(spec)
        count = prompts_of_step(spec) + (prompts_beyond(spec) if is_first else 0)
        members = drawing.prompts.take(first, first, count)
        mine = members[drawing.trainer.rank :: drawing.trainer.num_ranks]
        self._groups += begun(mine, step, spec.group)
        return len(members)

    def _learned(self, groups: Sequence[UnderWay], step: int) -> Batch:
        drawing = self._drawing
        told = drawing.trainer.gather([(one.member.row, one.member.repeat) for one in groups])
        turns = (pair for turn in zip_longest(*told) for pair in turn if pair is not None)
        members = [Member(*pair) for pair in turns]
        rollouts = [rolled(group, drawing.questions) for group in groups]
        batch = one_round(drawing.spec, drawing.trainer, members, rollouts)
        everyone = [one for group in rollouts for one in group]
        carried = sum(one.carried(step + 1) for one in everyone)
        batch.more = {"carried_tokens": carried, "left_tokens": 0}
        self._groups = [one for one in self._groups if all(one is not group for group in groups)]
        return batch

    def _keep(self, batch: Batch, complete: Sequence[UnderWay], step: int) -> None:
        """What is not learned from stays, complete groups first; or is left out, as all is after the last step."""
        drawing = self._drawing
        others = [group for group in self._groups if not group.complete]
        if continues(drawing.spec) and step + 1 < drawing.prompts.num_steps:
            self._groups = [*complete, *others]
            return
        self._groups = []
        for groups, reason in ((complete, FULL), (others, UNFINISHED)):
            batch.left_out += [(rolled(group, drawing.questions), reason) for group in groups]
        left = sum(len(one.token_ids) for group, _ in batch.left_out for one in group)
        batch.more["left_tokens"] = left

    def begin(self, step: int, first: int) -> None:
        """Nothing is drawn before the step itself."""

    def settle(self) -> None: ...

    def save(self, folder: Path) -> None:
        buffer.write_under_way(folder, self._drawing.trainer.rank, self._groups)

    def load(self, folder: Path) -> None:
        trainer = self._drawing.trainer
        self._groups = buffer.read_under_way(folder, trainer.rank, trainer.num_ranks)

    def close(self) -> None: ...


class OneAhead:
    """The batch of the next step is drawn while this one learns."""

    def __init__(self, drawing: Drawing) -> None:
        self._drawing = drawing
        self._under_way: tuple[int, Sequence[Member], _Thread] | None = None
        self._ready: tuple[int, Batch] | None = None

    def batch(self, step: int, first: int) -> Batch:
        """At the start of a run nothing is learned meanwhile."""
        if self._ready is None:
            self.begin(step, first)
            self.settle()
        assert self._ready is not None, "begun and settled"
        (found, batch), self._ready = self._ready, None
        assert found == step, f"batch of step {found} where step {step} learns"
        return batch

    def begin(self, step: int, first: int) -> None:
        drawing = self._drawing
        if step >= drawing.prompts.num_steps:
            return
        trainer = drawing.trainer
        drawing.rollouts.refresh(trainer)
        members = drawing.prompts.take(first, first, prompts_of_step(drawing.spec))
        mine = members[trainer.rank :: trainer.num_ranks]
        thread = _Thread(lambda: drawing.roll(mine, step), drawing.reward, trainer.device)
        self._under_way = step, members, thread

    def settle(self) -> None:
        if self._under_way is None:
            return
        (step, members, thread), self._under_way = self._under_way, None
        drawing, groups = self._drawing, thread.result()
        batch = one_round(drawing.spec, drawing.trainer, members, drawn_behind(groups, step))
        batch.rollout_s, batch.reward_s = thread.rollout_s, thread.reward_s
        self._ready = step, batch

    def save(self, folder: Path) -> None:
        assert self._ready is not None, "a checkpoint is written between two steps"
        buffer.write(folder, self._drawing.trainer.rank, *self._ready)

    def load(self, folder: Path) -> None:
        trainer, questions = self._drawing.trainer, self._drawing.questions
        self._ready = buffer.read(folder, trainer.rank, trainer.num_ranks, questions)

    def close(self) -> None:
        """What is under way is left at the next rollout that ends."""
        if self._under_way is not None:
            self._drawing.rollouts.given_up.set()
            self._under_way[2].wait()


def drawn_behind(groups: Sequence[Group], step: int) -> list[Group]:
    """The groups that step ``step`` (from 0) learns from, with who drew them: the weights with which the step before began."""
    return [
        [replace(one, versions=((max(1, step), len(one.token_ids)),)) for one in group]
        for group in groups
    ]


class _Thread:
    """One job beside the caller's own work; what it raises is raised by ``result``."""

    def __init__(
        self, job: Callable[[], list[Group]], reward: Reward, device: torch.device
    ) -> None:
        self.rollout_s = self.reward_s = 0.0
        self._job, self._reward, self._device = job, reward, device
        self._found: list[Group] = []
        self._error: BaseException | None = None
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # the weights are there before another stream reads them
        # No daemon: the interpreter must not end while it is inside of torch.
        self._thread = threading.Thread(target=self._run, name="rollouts")
        self._thread.start()

    def _run(self) -> None:
        start, waited = time.perf_counter(), self._reward.waited_s
        try:
            with _own_stream(self._device):
                self._found = self._job()
        except BaseException as error:  # noqa: BLE001 - whoever waits raises it
            self._error = error
        self.rollout_s = time.perf_counter() - start
        self.reward_s = self._reward.waited_s - waited

    def wait(self) -> None:
        self._thread.join()

    def result(self) -> list[Group]:
        self.wait()
        if self._error is not None:
            raise self._error
        return self._found


@contextlib.contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """On a GPU each token would wait for all that the update has queued, were both on one stream."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_device(device)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        yield
        stream.synchronize()
