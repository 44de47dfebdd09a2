"""Cells computed by Ray's workers, on this machine or on a cluster."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from ray import ObjectRef

RETRIES = 3  # of a cell whose worker dies; what `compute` raises is not retried
PATIENCE = 3  # seconds to connect, and again to answer: left alone, Ray waits for minutes
# Ray speaks gRPC, over HTTP/2: its side begins with empty settings, and the other side answers with its own (RFC 9113, 3.4)
SETTINGS = 4  # the type of a frame, which follows its length in three bytes
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, SETTINGS, 0, 0, 0, 0, 0))

C = TypeVar("C")
T = TypeVar("T")


def on_ray(
    cells: Sequence[C], compute: Callable[[C], T], *, address: str | None, workers: int | None
) -> Generator[tuple[C, Callable[[], T]], None, None]:
    """Cells as they are finished, each with a function that returns its result or raises its error; see `engine.sweep`."""
    try:
        import ray
    except ImportError as error:
        raise ImportError("engine='ray' needs Ray: pip install 'ray>=2.30'") from error
    if ray.is_initialized():
        raise RuntimeError(
            "Ray runs in this process already, and would be ended with the sweep: call ray.shutdown() first; to use the same "
            "cluster, give its address='host:port'"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        ray.init("local", num_cpus=max(workers or 1, os.cpu_count() or 1), include_dashboard=False, **quiet)
    else:
        check_reachable(address)
        try:
            ray.init(address, **quiet)
        except ConnectionError as error:
            raise ConnectionError(
                f"the Ray at {address} lets nobody in ({error}); if it asks for a token, set RAY_AUTH_MODE=token"
            ) from error
    try:
        resources = ray.cluster_resources()
        gpus, cores = (int(resources.get(name, 0)) for name in ("GPU", "CPU"))
        largest = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes())
        each = 1 if gpus or not workers else max(1, min(cores // workers, largest))  # one GPU, or some cores
        task: Any = ray.remote(num_cpus=each, num_gpus=min(gpus, 1), max_retries=RETRIES)(lambda cell: compute(cell))
        waiting = iter(cells)
        running: dict[ObjectRef[T], C] = {}
        while True:
            # no more than are computed at once: results do not pile up while the driver writes
            for cell in islice(waiting, (workers or gpus or cores or 1) - len(running)):
                running[task.remote(cell)] = cell
            if not running:
                return
            (done,), _ = ray.wait(list(running), num_returns=1)
            yield running.pop(done), partial(_result, done)
    finally:
        ray.shutdown()


def _result(done: ObjectRef[T]) -> T:
    import ray

    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def check_reachable(address: str) -> None:
    """Find out at once what Ray finds out after minutes.

    Raises:
        ValueError: not ``host:port`` or ``ray://host:port``. ConnectionError: nothing listens there, or something that does not
            greet as Ray does.
    """
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
        place = (parts.hostname, parts.port)
    except ValueError:
        place = (None, None)
    if None in place or parts.scheme not in ("", "ray"):
        raise ValueError(f"address must be 'host:port' or 'ray://host:port', got {address!r}")
    try:
        with socket.create_connection(place, timeout=PATIENCE) as probe:
            if os.environ.get("RAY_USE_TLS", "0") == "0":  # Ray's own variable: encrypted, the greeting would mean nothing
                probe.sendall(GREETING)
                if probe.makefile("rb").read(4)[3:] != bytes([SETTINGS]):
                    raise ConnectionError("what listens there is no Ray")
    except OSError as error:
        raise ConnectionError(
            f"no Ray at {address} ({error}): start one there with `ray start --head`, or leave the address out to compute here"
        ) from error
