"""The address of a Ray cluster to a process that is connected to it, or to a RunError that says what is wrong.

Ray itself waits for minutes, or ends the process, where nobody answers: so a port is tried first, and Ray is given a
thread and a deadline.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import socket
import threading
from typing import Any

from omr_runtime.errors import RunError
from omrlang.types.models import Ray

KNOCK_S = 10.0
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""What Ray must find before it is imported: it reports nothing to its makers, and packs nothing up for the nodes."""


def connect(cluster: Ray) -> Any:
    """The module ``ray``, connected. RunError where it is not installed or nobody answers within ``wait``."""
    if importlib.util.find_spec("ray") is None:
        raise RunError(
            f"the stage runs on {shown(cluster)} and Ray is not installed here: pip install 'omrlang[ray]'"
        )
    address = address_of(cluster)
    os.environ.update({k: v for k, v in ENVIRONMENT.items() if k not in os.environ})
    import ray

    if not ray.is_initialized():
        _knock(address, min(KNOCK_S, cluster.wait))
        _within(cluster.wait, address, lambda: _init(ray, address))
    return ray


def shown(cluster: Ray) -> str:
    """The place as messages name it."""
    return f"ray({cluster.address or f'env {cluster.address_env}'})"


def address_of(cluster: Ray) -> str:
    """The literal address, or what the environment says. RunError where that says nothing."""
    if cluster.address is not None:
        return cluster.address
    assert cluster.address_env is not None, "the checker wants one of the two"
    found = os.environ.get(cluster.address_env)
    if not found:
        raise RunError(f"{cluster.address_env} is not set: it names the address of a Ray cluster")
    return found


def _init(ray: Any, address: str) -> None:
    ray.init(
        address=address,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
        include_dashboard=None,
    )


def _knock(address: str, limit_s: float) -> None:
    """Whether anybody listens there at all; of ``auto`` Ray itself knows at once."""
    match = re.fullmatch(r"(?:ray://)?\[?(.+?)\]?:([0-9]+)", address)
    if match is None:
        return
    try:
        socket.create_connection((match[1], int(match[2])), limit_s).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            f"the Ray cluster at {address} cannot be reached: {error}; `ray start --head` starts one"
        ) from error


def _within(limit_s: float, address: str, call: Any) -> None:
    """Run the call in a thread that nobody waits for longer. RunError for what it raises, and when time is up."""
    ended: list[BaseException | None] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 it is raised again by whoever waits
            ended.append(error)
        else:
            ended.append(None)

    thread = threading.Thread(target=run, name="ray-init", daemon=True)
    thread.start()
    thread.join(limit_s)
    if not ended:
        raise RunError(f"the Ray cluster at {address} did not answer within {limit_s:g} s")
    if ended[0] is not None:
        raise RunError(_what_it_says(address, ended[0])) from ended[0]


def _what_it_says(address: str, error: BaseException) -> str:
    text = str(error).strip().splitlines()
    first = text[0] if text else type(error).__name__
    if address == "auto":
        return f"this machine belongs to no Ray cluster that runs (`ray start --head` starts one): {first}"
    outside = (
        "" if address.startswith("ray://") else "; from outside it the address is ray://HOST:10001"
    )
    return f"the Ray cluster at {address} cannot be joined: {first}{outside}"
