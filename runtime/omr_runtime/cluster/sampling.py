"""Requests in, completions out, by engines on the nodes of a Ray cluster: an engine like any other to who asks it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from omr_runtime.cluster import place_of
from omr_runtime.cluster.crew import Craft, Crew, Need, given_environment
from omr_runtime.cluster.orders import SamplingOrder, images_of
from omr_runtime.engines.protocol import Done, Request
from omr_runtime.work import Work
from omrlang.types import Engine as EngineSettings
from omrlang.types import Hardware, Model, ModelRef, OpenAI, Scripted, Transformers, Vllm

IN_FLIGHT = 64
BATCHES = 4
"""An engine has two batches in flight; as much again waits beside it, so that it is never short."""


class ClusterEngine:
    """``name`` and ``version`` are those of the engines on the nodes."""

    def __init__(self, crew: Crew[Request]) -> None:
        assert crew.opened is not None, "a crew stands when its first worker is open"
        self._crew = crew
        self.name, self.version = crew.opened.name, crew.opened.version

    @staticmethod
    def of(
        work: Work, model: ModelRef, settings: EngineSettings | None, max_tokens: int
    ) -> ClusterEngine:
        """The engines of a stage on its cluster. RunError when there is no room for one, or it cannot be opened."""
        place = place_of(work)
        assert place is not None, "asked for by the caller"
        hardware, cluster = place
        chosen = settings or (model.engine if isinstance(model, Model) else None)
        craft: Craft[Request] = Craft(
            SamplingOrder.of(work, model, settings, max_tokens),
            need_of(hardware, model, chosen),
            BATCHES * in_flight(chosen),
            lambda request: request.indices,
            narrowed,
            images_of,
            given_environment(secrets_of(chosen)),
        )
        engines = num_engines(hardware, craft.need)
        return ClusterEngine(Crew(cluster, craft, Path(work.state), engines))

    def generate(self, requests: Iterable[Request], done: Done) -> None:
        """Generate all samples of all requests; what a lost engine had not finished, another does."""
        for _, _, completion in self._crew.work(requests):
            done(completion)

    def close(self) -> None:
        self._crew.close()


def need_of(hardware: Hardware, model: ModelRef, chosen: EngineSettings | None) -> Need:
    """An engine in process has its GPUs, where the hardware has any; one that only asks a server has a CPU."""
    is_program = isinstance(model, Model) and isinstance(model.source, Scripted)
    if hardware.gpu is None or is_program or isinstance(chosen, OpenAI):
        return Need()
    return Need(gpus=chosen.tensor_parallel if isinstance(chosen, Vllm) else 1)


def num_engines(hardware: Hardware, need: Need) -> int | None:
    """How many workers are hired at most; None is as many as there are CPUs."""
    assert hardware.cluster is not None, "asked of machines of a cluster only"
    if hardware.cluster.engines is not None:
        return hardware.cluster.engines
    return max(1, hardware.count // max(1, need.gpus)) if hardware.gpu is not None else None


def in_flight(chosen: EngineSettings | None) -> int:
    """Samples that an engine works on at once."""
    match chosen:
        case Vllm():
            return chosen.max_num_seqs or IN_FLIGHT
        case Transformers():
            return chosen.batch
        case OpenAI():
            return chosen.concurrency
        case None:
            return IN_FLIGHT


def secrets_of(chosen: EngineSettings | None) -> list[str]:
    """The environment variables that an engine reads."""
    if not isinstance(chosen, OpenAI):
        return []
    return [chosen.key_env, *([chosen.url_env] if chosen.url_env else [])]


def narrowed(request: Request, indices: frozenset[int]) -> Request:
    """The request for some of its samples alone, each with the seed that it had."""
    pairs = zip(request.indices, request.seeds, strict=True)
    left = [(index, seed) for index, seed in pairs if index in indices]
    return replace(
        request,
        indices=tuple(index for index, _ in left),
        seeds=tuple(seed for _, seed in left),
    )
