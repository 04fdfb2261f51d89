"""Questions to scored rollouts: encoding, who generates, rewards, advantages, and the record of each.

Alone knows which engine rolls out and how it comes by the trainer's weights.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from accelerate.utils import set_seed

from omr_runtime import chat
from omr_runtime.engines.asking import placeholders, response_of
from omr_runtime.engines.decode import Ask, Draw, Sampled
from omr_runtime.engines.roller import Roller
from omr_runtime.engines.transformers import TransformersEngine
from omr_runtime.engines.vllm import VllmEngine, VllmLimits, refusal
from omr_runtime.errors import RunError
from omr_runtime.identity import order_key, sample_id
from omr_runtime.models import Loaded, load
from omr_runtime.models.families import Layout, num_bytes
from omr_runtime.store import ImageStore
from omr_runtime.train.advantage import divides_by_spread, group_advantages, penalty
from omr_runtime.train.apart import vllm_apart
from omr_runtime.train.batching import Sample, make_sample
from omr_runtime.train.loop import Trainer
from omr_runtime.train.prompts import Member
from omr_runtime.verify.reward import Reward, Scored
from omrlang.schema import Rl
from omrlang.settle import SHARED_BATCH
from omrlang.types import OpenAI, Transformers, Vllm, Zero

CACHE_BYTES = 2 << 30
"""Pixels that are kept between steps; beyond it images are read again."""

OVERLONG = "overlong"
"""The name of the penalty for length among the parts of a reward."""


# ---- questions ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Questions:
    """The input rows and, made when asked for, their encoded prompts."""

    rows: Sequence[dict[str, Any]]
    loaded: Loaded
    spec: Rl
    images: ImageStore
    _cache: dict[int, Ask] = field(default_factory=dict)
    _cached_bytes: int = 0
    _places: dict[str, int] = field(init=False)
    _alone: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._places = {row["id"]: i for i, row in enumerate(self.rows)}

    def ask(self, i: int) -> Ask:
        """Row ``i`` as an encoded prompt without seeds. One thread may draw while another trains."""
        with self._alone:
            if i not in self._cache:
                ask = self._encode(self.rows[i])
                size = num_bytes(ask.inputs)
                if self._cached_bytes + size > CACHE_BYTES:
                    return ask
                self._cache[i] = ask
                self._cached_bytes += size
            return self._cache[i]

    def ask_of(self, id: str) -> Ask:
        """The same of the row with this id."""
        return self.ask(self._places[id])

    def _encode(self, row: dict[str, Any]) -> Ask:
        spec = self.spec
        pictures = tuple(self.images.open(digest) for digest in row["images"] or [])
        made = chat.encode_prompt(
            self.loaded, row, spec.prompt, pictures, spec.min_pixels, spec.max_pixels
        )
        return Ask(
            made.input_ids,
            (),
            made.images,
            made.unexpanded_text,
            tuple(made.shown),
            made.told,
        )

    def lengths(self, trainer: Trainer) -> list[int]:
        """Prompt tokens of every row; each rank encodes its part."""
        mine = range(trainer.rank, len(self.rows), trainer.num_ranks)
        parts = trainer.gather([len(self.ask(i).input_ids) for i in mine])
        lengths = [0] * len(self.rows)
        for rank, part in enumerate(parts):
            lengths[rank :: trainer.num_ranks] = part
        return lengths


# ---- who generates -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Rollouts:
    """A roller and how it comes by weights: ``shares`` is true where it generates with the trainer's own, and ``let_rest`` has it
    leave the device's memory to the trainer until it is given new ones. It begins with those that training starts from. Once
    ``given_up`` is set nobody wants what it draws. ``push_s`` is how long giving it weights has taken so far."""

    roller: Roller
    shares: bool
    let_rest: Callable[[], None] | None = None
    given_up: threading.Event = field(default_factory=threading.Event)
    push_s: float = 0.0
    _version: int | None = 0

    def refresh(self, trainer: Trainer) -> None:
        """Give the roller the trainer's present weights, unless it has them. Every rank must call it."""
        if self.shares or self._version == trainer.version:
            return
        start = time.perf_counter()
        self.roller.update_weights(trainer.weights())
        self._version = trainer.version
        self.push_s += time.perf_counter() - start

    def rest(self) -> None:
        """Nothing is drawn before the next ``refresh``."""
        if self.let_rest is not None:
            self.let_rest()
            self._version = None


def open_rollouts(spec: Rl, trainer: Trainer, loaded: Loaded, longest: int) -> Rollouts:
    """vLLM where it is installed and serves the model, else the trainer's own weights; or what the recipe names.

    ``longest`` is the longest prompt with its response, in tokens."""
    match spec.engine:
        case OpenAI():
            raise RunError(
                f"{spec.name}: rollouts need an engine whose weights can be replaced, "
                "vllm(…) or transformers(…); a server's cannot"
            )
        case Vllm():
            reason = refusal(loaded)
            if reason is not None:
                raise RunError(f"{spec.name}: {reason}")
            return _with_vllm(spec, trainer, loaded, longest)
        case Transformers():
            return _with_transformers(spec, trainer, loaded, spec.engine.batch)
        case None:
            if refusal(loaded) is None:
                return _with_vllm(spec, trainer, loaded, longest)
            return _with_transformers(spec, trainer, loaded, SHARED_BATCH)


def _with_vllm(spec: Rl, trainer: Trainer, loaded: Loaded, longest: int) -> Rollouts:
    settings = spec.engine if isinstance(spec.engine, Vllm) else Vllm()
    limits = VllmLimits(longest)
    if settings.apart:
        rollouts = Rollouts(vllm_apart(spec, loaded, settings, limits), shares=False)
    elif settings.tensor_parallel > 1 and trainer.num_ranks > 1:
        raise RunError(
            f"{spec.name}: {trainer.num_ranks} processes train, and an engine in each would be spread over the GPUs of "
            f"{settings.tensor_parallel}; `apart = true` gives each engine GPUs of its own"
        )
    else:
        engine = VllmEngine(loaded, spec.precision, limits, settings)
        rest = engine.rest if engine.can_rest and not spec.behind else None
        rollouts = Rollouts(engine, shares=False, let_rest=rest)
    # vLLM seeded every generator of this process when it started in it.
    set_seed(spec.seed % 2**32)
    return rollouts


def _with_transformers(spec: Rl, trainer: Trainer, loaded: Loaded, batch: int) -> Rollouts:
    cut = spec.sharding is not None and spec.sharding.cuts_weights
    if not cut and not spec.behind:
        return Rollouts(TransformersEngine(loaded, batch), shares=True)
    apart = load_whole(spec, trainer, loaded)
    return Rollouts(TransformersEngine(apart, batch), shares=False)


def load_whole(spec: Rl, trainer: Trainer, loaded: Loaded) -> Loaded:
    """The starting model once more, beside the one that is trained; whole on every rank, however that is cut up."""
    if not isinstance(spec.sharding, Zero):
        return load(loaded.folder, spec.precision, str(trainer.device))
    from transformers.integrations import deepspeed

    # While this is set, transformers cuts up every model that it loads.
    deepspeed.unset_hf_deepspeed_config()
    try:
        return load(loaded.folder, spec.precision, str(trainer.device))
    finally:
        trainer.accelerator.state.deepspeed_plugin.set_deepspeed_weakref()


Version: TypeAlias = tuple[int, int]
"""A step (from 1) and how many tokens the weights of its beginning drew."""


# ---- rollouts ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rollout:
    """One response with all that is known about it. ``scored`` has what the recipe's expression gives, and the
    penalty for length among its parts; ``advantage`` is None where that is unknown. ``flat`` is set for all rollouts of a group without spread.
    ``first`` is the step in which its group was begun, and ``versions`` who drew its tokens; 0 and nothing where that is the step
    that learns from it. Only a rollout that is left out may not have ``ended``."""

    row: dict[str, Any]
    index: int
    ask: Ask
    token_ids: list[int]
    logprobs: list[float]
    stopped: bool
    response: str
    scored: Scored
    advantage: float | None
    flat: bool
    first: int = 0
    versions: tuple[Version, ...] = ()
    ended: bool = True

    @property
    def name(self) -> str:
        """What the rollout is called in a batch and in messages. A batch may have a row of two steps."""
        name = f"{self.row['id']}/{self.index}"
        return f"{name} of step {self.first}" if self.first else name

    def carried(self, step: int) -> int:
        """Tokens that weights of before ``step`` drew."""
        return sum(count for drawn, count in self.versions if drawn < step)

    @property
    def num_tokens(self) -> int:
        """Of prompt and response."""
        return len(self.ask.input_ids) + len(self.token_ids)

    @property
    def finish(self) -> str:
        """How it ended, if it has."""
        if not self.ended:
            return "unfinished"
        return "stop" if self.stopped else "length"

    def sample(self, layout: Layout) -> Sample:
        """Prompt and response as the training step takes them."""
        ask = self.ask
        return make_sample(
            self.name,
            ask.input_ids,
            self.token_ids,
            layout,
            ask.inputs,
            group=self.row["id"],
        )

    def record(self, step: int, fingerprint: str, left_out: str | None = None) -> dict[str, Any]:
        """A line of the table ``rollout``; ``left_out`` is why no update was made with it."""
        return {
            "id": sample_id(self.row["id"], f"{fingerprint}:{self.first or step}", self.index),
            "step": step,
            "row": self.row["id"],
            "sample_index": self.index,
            "response": self.response,
            "final_answer": self.scored.final_answer,
            "finish": self.finish,
            "num_tokens": len(self.token_ids),
            "first_step": next((drawn for drawn, _ in self.versions), self.first or step),
            "carried_tokens": self.carried(step),
            "reward": self.scored.value,
            "parts": json.dumps(self.scored.parts),
            "advantage": self.advantage,
            "mean_logprob": sum(self.logprobs) / len(self.logprobs) if self.logprobs else None,
            "left_out": left_out,
        }


def draw_of(spec: Rl, loaded: Loaded) -> Draw:
    """How rollouts are drawn."""
    return Draw(
        spec.temperature,
        spec.max_response,
        frozenset(loaded.stop_ids),
        spec.top_p,
        spec.top_k,
        never=placeholders(loaded),
    )


def roll_out(
    questions: Questions, members: Sequence[Member], step: int, rollouts: Rollouts, reward: Reward
) -> list[list[Rollout]]:
    """``group`` rollouts of each question in ``members``, scored; in the order of ``members``.

    What is drawn depends on seed, step, row and index alone, so it is the same on any number of processes.
    """
    spec = questions.spec
    asks = [seeded(questions, member, step) for member in members]
    rows = [questions.rows[member.row] for member in members]
    with reward.meanwhile() as scoring:

        def done(one: Drawn) -> None:
            place = one.sampled.ask * spec.group + one.sampled.sample
            scoring.put(place, one.scorable())

        draw = draw_of(spec, questions.loaded)
        drawn = draw_all(questions.loaded, rows, asks, draw, rollouts, done)
        scored = scoring.results()
    groups = []
    for place, member in enumerate(members):
        own = slice(place * spec.group, (place + 1) * spec.group)
        groups.append(grouped(spec, member, asks[place], drawn[own], scored[own]))
    return groups


def draw_all(
    loaded: Loaded,
    rows: Sequence[dict[str, Any]],
    asks: Sequence[Ask],
    draw: Draw,
    rollouts: Rollouts,
    done: OnDrawn | None = None,
) -> list[Drawn]:
    """Every sample of every ask, in order; ``rows`` are those that are asked. A rank may have none. ``done`` is called
    for each as soon as it ends."""
    if not asks:
        return []
    found: list[Drawn] = []

    def ended(one: Sampled) -> None:
        if rollouts.given_up.is_set():
            raise GivenUp
        drawn = Drawn(rows[one.ask], one, response_of(loaded, one.token_ids))
        found.append(drawn)
        if done is not None:
            done(drawn)

    rollouts.roller.roll(asks, draw, ended)
    return sorted(found, key=lambda one: (one.sampled.ask, one.sampled.sample))


def seeded(questions: Questions, member: Member, step: int) -> Ask:
    """The prompt of a member that is begun in ``step`` (from 0), with the seeds of its group."""
    ask, spec = questions.ask(member.row), questions.spec
    key = order_key(spec.seed, f"rollout {step}", questions.rows[member.row]["id"])
    return with_seeds(ask, int(key[:12], 16) + member.repeat * spec.group, spec.group)


def with_seeds(ask: Ask, first: int, count: int) -> Ask:
    """The prompt with seeds one after another."""
    return replace(ask, seeds=tuple(range(first, first + count)))


@dataclass(frozen=True, slots=True)
class Drawn:
    """A response that is not scored yet."""

    row: dict[str, Any]
    sampled: Sampled
    text: str

    def scorable(self) -> dict[str, Any]:
        """The question's row as the row of its response; its own prompt is the stage's."""
        return {
            **self.row,
            "prompt": None,
            "response": self.text,
            "thinking": None,
            "final_answer": None,
            "sample_index": self.sampled.sample,
            "num_tokens": len(self.sampled.token_ids),
            "finish": "stop" if self.sampled.stopped else "length",
        }


OnDrawn: TypeAlias = Callable[[Drawn], None]


class GivenUp(Exception):
    """Ends an engine whose caller goes away; nobody is there to see it."""


def grouped(
    spec: Rl, member: Member, ask: Ask, drawn: Sequence[Drawn], scored: Sequence[Scored]
) -> list[Rollout]:
    """The rollouts of one prompt, in the order of their samples."""
    parts = [
        _parted(score, len(one.sampled.token_ids), spec)
        for one, score in zip(drawn, scored, strict=True)
    ]
    by_spread = divides_by_spread(spec.algorithm)
    advantages = group_advantages([shaped(score) for score in parts], by_spread)
    return [
        Rollout(
            one.row,
            member.repeat * spec.group + one.sampled.sample,
            ask,
            one.sampled.token_ids,
            one.sampled.logprobs,
            one.sampled.stopped,
            one.text,
            score,
            advantage,
            not advantages.has_spread,
        )
        for one, score, advantage in zip(drawn, parts, advantages.values, strict=True)
    ]


def _parted(score: Scored, num_tokens: int, spec: Rl) -> Scored:
    """With the penalty for length among the parts, where the recipe has one."""
    found = penalty(num_tokens, spec.max_response, spec.algorithm)
    return score if found is None else replace(score, parts={**score.parts, OVERLONG: found})


def shaped(score: Scored) -> float | None:
    """The reward that advantages are made of: with the penalty for length."""
    return None if score.value is None else score.value + (score.parts.get(OVERLONG) or 0.0)


def every(groups: Sequence[Sequence[Rollout]]) -> Iterator[Rollout]:
    """All rollouts, group after group."""
    for group in groups:
        yield from group
