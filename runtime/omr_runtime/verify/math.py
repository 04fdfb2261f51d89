"""Pairs of answers to verdicts of math-verify, in processes that can be killed at any moment.

A worker reads one JSON pair a line and answers one line. The kernel ends it when one pair has used up its processor
time (``ITIMER_PROF``), whatever code is running; the parent ends it when the wall clock passes a wider limit. Either
way the pair gets the verdict ``timeout`` and a fresh worker takes the next one. Workers cap their memory and die
with their parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from omr_runtime.errors import Resumable
from omr_runtime.verify.answers import Pair

MEMORY_BYTES = 2 * 2**30
RECYCLE_AFTER = 2_000
START_LIMIT_S = 120.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class MathVerdict:
    """``reason`` is set when math-verify did not come to a verdict: ``timeout``, ``memory`` or an error's name."""

    ok: bool
    reason: str | None = None


class MathPool:
    """A few workers behind one call; verdicts are remembered, because answers repeat within a group.

    ``cpu_limit_s`` is processor time for one pair, so a loaded machine changes no verdict; ``wall_limit_s`` catches
    what sleeps.
    """

    def __init__(
        self, num_workers: int = 2, cpu_limit_s: float = 3.0, wall_limit_s: float = 60.0
    ) -> None:
        self._limits = cpu_limit_s, wall_limit_s
        self._tasks: queue.SimpleQueue[Pair | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[Pair, MathVerdict | BaseException]] = (
            queue.SimpleQueue()
        )
        self._known: dict[Pair, MathVerdict] = {}
        self._lock = threading.Lock()
        self._num_workers = num_workers
        self._threads: list[threading.Thread] = []

    def check(self, pairs: Iterable[Pair]) -> list[MathVerdict]:
        """A verdict for each (true, given) pair, in order. Safe to call from any thread."""
        wanted = list(pairs)
        with self._lock:
            missing = {pair for pair in wanted if pair not in self._known}
            if missing:
                self._ask(missing)
            return [self._known[pair] for pair in wanted]

    def _ask(self, pairs: set[Pair]) -> None:
        self._start(len(pairs))
        for pair in sorted(pairs):
            self._tasks.put(pair)
        failure: BaseException | None = None
        for _ in pairs:
            pair, verdict = self._results.get()
            if isinstance(verdict, MathVerdict):
                self._known[pair] = verdict
            else:
                failure = verdict
        if failure is not None:
            raise Resumable(f"a worker of math-verify does not start: {failure}") from failure

    def _start(self, num_pairs: int) -> None:
        """A thread for each worker, because a worker dies with the thread that started it."""
        while len(self._threads) < min(self._num_workers, num_pairs):
            thread = threading.Thread(target=self._serve, name="math-verify", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self) -> None:
        worker = _Worker(*self._limits)
        while (pair := self._tasks.get()) is not None:
            try:
                self._results.put((pair, worker.check(pair)))
            except (OSError, ValueError) as error:
                self._results.put((pair, error))
        worker.stop()

    def close(self) -> None:
        """End all workers. The pool can be used again."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def __enter__(self) -> MathPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Worker:
    """One process and the pipe to it; started when first needed, and again after each death."""

    def __init__(self, cpu_limit_s: float, wall_limit_s: float) -> None:
        self.cpu_limit_s = cpu_limit_s
        self.wall_limit_s = wall_limit_s
        self.process: subprocess.Popen[bytes] | None = None
        self.num_checked = 0
        self.buffer = b""

    def check(self, pair: Pair) -> MathVerdict:
        """The verdict on one pair; asked twice if something ends the worker that is not the pair's time.

        OSError when no worker can be started.
        """
        verdict = self._ask(pair)
        if verdict is None:
            verdict = self._ask(pair)
        return verdict or MathVerdict(False, "math-verify: the worker died")

    def _ask(self, pair: Pair) -> MathVerdict | None:
        process = self._running()
        line = json.dumps([self.cpu_limit_s, *pair]).encode() + b"\n"
        assert process.stdin is not None, "opened as a pipe"
        try:
            process.stdin.write(line)
            process.stdin.flush()
            answer = self._read_line(process, self.wall_limit_s)
        except BrokenPipeError:
            answer = None
        if answer is None:
            return self._after_silence(process)
        self.num_checked += 1
        return MathVerdict(**json.loads(answer))

    def _running(self) -> subprocess.Popen[bytes]:
        if self.num_checked >= RECYCLE_AFTER:
            self.stop()
        if self.process is None or self.process.poll() is not None:
            self.process, self.num_checked, self.buffer = _spawn(), 0, b""
            if self._read_line(self.process, START_LIMIT_S) is None:
                code = self.process.poll()
                self.stop()
                raise OSError(f"it ended with code {code} (is math-verify installed?)")
        return self.process

    def _read_line(self, process: subprocess.Popen[bytes], limit_s: float) -> bytes | None:
        """One line of the worker; None if it died or the limit passed."""
        assert process.stdout is not None, "opened as a pipe"
        deadline = time.monotonic() + limit_s
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                return None
            data = os.read(process.stdout.fileno(), 65_536)
            if not data:
                return None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def _after_silence(self, process: subprocess.Popen[bytes]) -> MathVerdict | None:
        """A timeout if the worker still runs or its clock ended it, else None."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)
        late = process.returncode in (None, -signal.SIGPROF)
        self.stop()
        return MathVerdict(False, "timeout") if late else None

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self.process, self.num_checked = None, 0


def _spawn() -> subprocess.Popen[bytes]:
    """A fresh interpreter, so that nothing of the parent (threads, CUDA, sockets) is shared."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "omr_runtime.verify.math", str(os.getpid())]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env
    )


# ---- in the worker ---------------------------------------------------------------------------------------------


def serve(parent: int) -> None:
    """Answer pairs until the input ends."""
    _die_with(parent)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _equal("1", "1.0")
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    answers.write("ready\n")
    for line in sys.stdin:
        limit_s, truth, given = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        ok, reason = _guarded(truth, given)
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps({"ok": ok, "reason": reason}) + "\n")


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process with its parent; end now if the parent is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _guarded(truth: str, given: str) -> tuple[bool, str | None]:
    """SymPy raises all kinds of errors on odd input; each is a refusal that names it, never the end of the worker."""
    try:
        return _equal(truth, given), None
    except (MemoryError, RecursionError) as error:
        return False, "memory" if isinstance(error, MemoryError) else "too deep"
    except Exception as error:  # noqa: BLE001 - see above
        return False, f"math-verify: {type(error).__name__}"


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
    serve(int(sys.argv[1]))
