"""Pairs of answers to verdicts of math-verify, in workers: it fails off the main thread and burns seconds on bombs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from omr_runtime.errors import Resumable
from omr_runtime.verify.answers import Pair
from omr_runtime.verify.workers import Limits, Pool, Reply, Task, serve

MEMORY_BYTES = 2 * 2**30
TASKS_A_WORKER = 32
"""As many pairs take about as long as a worker takes to import SymPy."""


@dataclass(frozen=True, slots=True)
class MathVerdict:
    """``reason`` is set when math-verify did not come to a verdict: ``timeout``, ``memory`` or an error's name."""

    ok: bool
    reason: str | None = None


class MathPool:
    """A few workers behind one call; verdicts are remembered, because answers repeat within a group."""

    def __init__(
        self, num_workers: int = 2, cpu_limit_s: float = 3.0, wall_limit_s: float = 60.0
    ) -> None:
        limits = Limits(cpu_limit_s, wall_limit_s)
        self._pool = Pool("omr_runtime.verify.math", (), num_workers, limits, TASKS_A_WORKER)
        self._known: dict[Pair, MathVerdict] = {}
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Start a worker meanwhile: importing SymPy takes a while, and the rules do not need it."""
        self._pool.warm()

    def check(self, pairs: Iterable[Pair]) -> list[MathVerdict]:
        """A verdict for each (true, given) pair, in order. Safe to call from any thread."""
        wanted = list(pairs)
        with self._lock:
            missing = {pair for pair in wanted if pair not in self._known}
            if missing:
                self._ask(missing)
            return [self._known[pair] for pair in wanted]

    def _ask(self, pairs: set[Pair]) -> None:
        tasks = sorted(pairs)
        try:
            replies = self._pool.ask(tasks)
        except (OSError, ValueError) as error:
            raise Resumable(
                f"a worker of math-verify does not start: {error} (is math-verify installed?)"
            ) from error
        self._known |= {task: _verdict(reply) for task, reply in zip(tasks, replies, strict=True)}

    def close(self) -> None:
        """End all workers. The pool can be used again."""
        self._pool.close()

    def __enter__(self) -> MathPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _verdict(reply: Reply) -> MathVerdict:
    """No verdict is a refusal with its reason: what math-verify cannot read does not count as equal."""
    plain = reply.reason in (None, "timeout", "memory", "too deep")
    return MathVerdict(bool(reply.value), reply.reason if plain else f"math-verify: {reply.reason}")


# ---- in the worker ---------------------------------------------------------------------------------------------


def _answer(task: Task) -> Reply:
    """SymPy raises all kinds of errors on odd input, whose texts differ from pair to pair: the kind alone is kept."""
    try:
        return Reply(_equal(*task))
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # noqa: BLE001 - see above
        return Reply(False, type(error).__name__)


def _equal(truth: str, given: str) -> bool:
    """Both sides wrapped in ``$``: unwrapped, ``2x+1`` is read as 2 and a point as its last number."""
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    sides: list[Any] = []
    for text in (truth, given):
        sides.append(parse(f"${text.replace('$', '')}$", parsing_timeout=None))
        if not sides[-1]:
            return False
    return bool(verify(*sides, timeout_seconds=None, raise_on_error=True))


if __name__ == "__main__":
    serve(int(sys.argv[1]), MEMORY_BYTES, lambda: _equal("1", "1.0"), _answer)
