"""Tasks to answers in processes that can be killed at any moment, whatever code runs in them.

A worker reads one JSON task a line and answers one line. The kernel ends it when one task has used up its processor
time (``ITIMER_PROF``); the parent ends it when the wall clock passes a wider limit. Either way the task gets the reason
``timeout`` and a fresh worker takes the next one. Workers cap their memory and die with their parent.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

RECYCLE_AFTER = 2_000
START_LIMIT_S = 120.0
_PR_SET_PDEATHSIG = 1

Task: TypeAlias = Any
"""Whatever JSON can hold."""


@dataclass(frozen=True, slots=True)
class Reply:
    """``reason`` is set when there is no value: ``timeout``, ``memory``, what was raised, or how the worker ended."""

    value: Any
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """``cpu_s`` is processor time for one task, so a loaded machine changes no answer; ``wall_s`` catches what sleeps."""

    cpu_s: float = 3.0
    wall_s: float = 60.0


class Pool:
    """A few workers that run ``python -m MODULE PARENT ARGS…``. OSError from ``ask`` when none can be started.

    Another one is started once there are ``tasks_a_worker`` more tasks at a time: where tasks are quick, it would not be
    ready before they are done."""

    def __init__(
        self,
        module: str,
        args: Sequence[str],
        num_workers: int,
        limits: Limits,
        tasks_a_worker: int = 1,
    ) -> None:
        self._tasks_a_worker = tasks_a_worker
        self._command = [sys.executable, "-m", module, str(os.getpid()), *args]
        self._num_workers = num_workers
        self._limits = limits
        self._tasks: queue.SimpleQueue[tuple[int, Task] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[int, Reply | BaseException]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._workers: list[_Worker] = []

    def ask(self, tasks: Sequence[Task]) -> list[Reply]:
        """A reply to each task, in order. One caller at a time."""
        self._start(len(tasks))
        for place, task in enumerate(tasks):
            self._tasks.put((place, task))
        found: dict[int, Reply] = {}
        failure: BaseException | None = None
        for _ in tasks:
            place, reply = self._results.get()
            if isinstance(reply, Reply):
                found[place] = reply
            else:
                failure = reply
        if failure is not None:
            raise failure
        return [found[place] for place in range(len(tasks))]

    def warm(self) -> None:
        """Have a worker start meanwhile, so that the first task need not wait for it."""
        self._start(1)

    def _start(self, num_tasks: int) -> None:
        """A thread for each worker, because a worker dies with the thread that started it."""
        wanted = -(-num_tasks // self._tasks_a_worker)
        while len(self._threads) < min(self._num_workers, wanted):
            worker = _Worker(self._command, self._limits)
            thread = threading.Thread(
                target=self._serve, args=(worker,), name="worker", daemon=True
            )
            self._workers.append(worker)
            self._threads.append(thread)
            thread.start()

    def _serve(self, worker: _Worker) -> None:
        with contextlib.suppress(OSError, ValueError):  # the first task meets it again and says so
            worker.start()
        while (item := self._tasks.get()) is not None:
            place, task = item
            try:
                self._results.put((place, worker.answer(task)))
            except (OSError, ValueError) as error:
                self._results.put((place, error))
        worker.stop()

    def close(self) -> None:
        """End all workers, one that is still starting too. The pool can be used again."""
        for worker in self._workers:
            self._tasks.put(None)
            worker.end()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._workers.clear()


class _Worker:
    """One process and the pipe to it; started when first needed, and again after each death."""

    def __init__(self, command: Sequence[str], limits: Limits) -> None:
        self.command = command
        self.limits = limits
        self.process: subprocess.Popen[bytes] | None = None
        self.num_answered = 0
        self.buffer = b""

    def start(self) -> None:
        """Be ready for a task. OSError or ValueError where that cannot be."""
        self._running()

    def answer(self, task: Task) -> Reply:
        """The answer to one task; asked twice if something ends the worker that is not the task's time."""
        reply = self._ask(task)
        if isinstance(reply, int):
            reply = self._ask(task)
        return (
            Reply(None, f"its process ended with code {reply}") if isinstance(reply, int) else reply
        )

    def _ask(self, task: Task) -> Reply | int:
        """The reply, or the code that the worker ended with."""
        process = self._running()
        line = json.dumps([self.limits.cpu_s, task]).encode() + b"\n"
        assert process.stdin is not None, "opened as a pipe"
        try:
            process.stdin.write(line)
            process.stdin.flush()
            answer = self._read_line(process, self.limits.wall_s)
        except BrokenPipeError:
            answer = None
        if answer is None:
            return self._after_silence(process)
        self.num_answered += 1
        return Reply(**json.loads(answer))

    def _running(self) -> subprocess.Popen[bytes]:
        if self.num_answered >= RECYCLE_AFTER:
            self.stop()
        if self.process is None or self.process.poll() is not None:
            self.stop()
            self.process, self.num_answered, self.buffer = spawn(self.command), 0, b""
            line = self._read_line(self.process, START_LIMIT_S)
            reason = json.loads(line)["reason"] if line is not None else None
            if line is None or reason is not None:
                code = _ended_with(self.process)
                self.stop()
                raise OSError(reason or f"its process ended with code {code} before it was ready")
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

    def _after_silence(self, process: subprocess.Popen[bytes]) -> Reply | int:
        """A timeout if the worker still runs or its clock ended it, else the code it ended with."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)
        code = process.returncode
        self.stop()
        return Reply(None, "timeout") if code in (None, -signal.SIGPROF) else int(code)

    def end(self) -> None:
        """From another thread: whoever waits for the process is told that it died."""
        if (process := self.process) is not None:
            process.kill()

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self.process, self.num_answered = None, 0


def _ended_with(process: subprocess.Popen[bytes]) -> int | None:
    """The code of a process that has closed its end; None if it runs on nevertheless."""
    try:
        return process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        return None


def spawn(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """A fresh interpreter, so that nothing of the parent (threads, CUDA, sockets) is shared."""
    paths = os.pathsep.join(path for path in sys.path if path)
    env = {
        **os.environ,
        "PYTHONPATH": paths,
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env
    )


# ---- in the worker ---------------------------------------------------------------------------------------------


def serve(
    parent: int,
    memory_bytes: int,
    prepare: Callable[[], object],
    answer: Callable[[Task], Reply],
) -> None:
    """Answer tasks until the input ends. The pipes are put out of reach of whatever code runs here."""
    _die_with(parent)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tasks = os.fdopen(os.dup(0))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    ready = guarded(lambda: _prepared(prepare))
    answers.write(json.dumps({"value": None, "reason": ready.reason}) + "\n")
    for line in tasks:
        limit_s, task = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        reply = guarded(lambda: answer(task))  # noqa: B023 - called at once
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps({"value": reply.value, "reason": reply.reason}) + "\n")


def _prepared(prepare: Callable[[], object]) -> Reply:
    prepare()
    return Reply(None)


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process with its parent; end now if the parent is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def guarded(ask: Callable[[], Reply]) -> Reply:
    """What is raised becomes a reason that names it, never the end of the worker."""
    try:
        return ask()
    except MemoryError:
        return Reply(None, "memory")
    except RecursionError:
        return Reply(None, "too deep")
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - see above
        text = " ".join(str(error).split())[:200]
        return Reply(None, f"{type(error).__name__}: {text}" if text else type(error).__name__)
