"""Tasks on a Ray cluster: the same function, the same shared state, one processor each.

Every node needs this package in the same versions, and sees the same files under the same paths. Ray's own retries
are off: a task whose worker or node dies is handed out again here, as the processes of one machine do it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from data_pipelines.executors.task import TRIES, Notice, Work, attempt, gave_up, result_of
from seqtok_core.foundation.errors import SeqtokError

_AHEAD = 2  # tasks handed out per processor of the cluster, so that none waits for us
_PATIENCE = 10.0  # seconds to reach a cluster
_POLL = 5.0  # seconds after which the size of the cluster is asked for again
_SAME_EVERYWHERE = ("seqtok", "pillow", "simplejpeg", "numpy")  # what decides a shard's bytes
_known: dict[str, tuple[Work, Any]] = {}  # in a worker: work and shared state of the run, fetched once


def run_on_ray(
    work: Work,
    shared: Any,
    tasks: Sequence[Any],
    address: str,
    processes: int,
    on_start: Notice,
    on_lost: Notice,
) -> Iterator[Any]:
    """See `executors.run_tasks`. `address`: auto, local, HOST:PORT or ray://HOST:PORT."""
    ray = _import_ray()
    with _connected(ray, address, processes), _ended_by_sigterm():
        run = uuid.uuid4().hex
        common = [ray.put((work, shared))]  # in a list, so that a worker fetches it once and not for every task
        start = {"folder": os.getcwd(), "versions": _versions(), "run": run}
        remote = ray.remote(num_cpus=1, max_retries=0)(_in_worker)
        queue, again = iter(tasks), deque[Any]()
        deaths: dict[Any, int] = {}
        pending: dict[Any, Any] = {}
        try:
            while True:
                room = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
                while len(pending) < room and (task := again.popleft() if again else next(queue, None)) is not None:
                    on_start(task)
                    pending[remote.remote(common, start, task)] = task
                if not pending:
                    break
                for done in ray.wait(list(pending), num_returns=1, timeout=_POLL)[0]:
                    task = pending.pop(done)
                    answer = _answer(ray, done, task, deaths)
                    if answer is None:
                        on_lost(task)
                        again.append(task)
                    else:
                        yield result_of(answer)
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)


def _answer(ray: Any, reference: Any, task: Any, deaths: dict[Any, int]) -> tuple[bool, Any] | None:
    """None when the worker died and the task shall be done again."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        deaths[task] = deaths.get(task, 0) + 1
        if deaths[task] >= TRIES:
            raise gave_up(task, _first_line(error)) from None
        return None


def _in_worker(common: list[Any], start: dict[str, Any], task: Any) -> tuple[bool, Any]:
    run = start["run"]
    if run not in _known:
        import ray

        try:
            _check_node(start)
        except SeqtokError as error:
            return False, error
        _known.clear()  # a worker may outlive the run before
        _known[run] = ray.get(common[0])
    return attempt(*_known[run], task)


def _check_node(start: dict[str, Any]) -> None:
    """Same software, same folder. Raises SeqtokError naming the node."""
    here, wanted = _versions(), start["versions"]
    differing = [f"{name} {here[name]} instead of {wanted[name]}" for name in wanted if here[name] != wanted[name]]
    if differing:
        raise SeqtokError(
            f"node {socket.gethostname()} has {', '.join(differing)}; equal bytes need equal software on every node"
        )
    try:
        os.chdir(start["folder"])  # relative paths mean what they mean where the command was given
    except OSError:
        raise SeqtokError(
            f"node {socket.gethostname()} does not see {start['folder']}; start the command in a folder that every "
            "node sees under the same path"
        ) from None


def _versions() -> dict[str, str]:
    found = {}
    for name in _SAME_EVERYWHERE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def _import_ray() -> Any:
    # Read by Ray when it is imported or started: no usage statistics, devices left as they are.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise SeqtokError("`engine=ray` needs Ray, which is not installed: pip install seqtok[ray]") from None
    return ray


@contextmanager
def _connected(ray: Any, address: str, processes: int) -> Iterator[None]:
    """A connection of our own is closed in the end, a local cluster of our own stopped; another's is left."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {"num_cpus": processes, "include_dashboard": False}
    try:
        _check_reachable(address)
        ray.init(address, **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise SeqtokError(
            f"no Ray cluster at {address!r} ({_first_line(error)}); start one with `ray start --head`, name its "
            "address with `ray_address`, or use `ray_address=local`"
        ) from None
    try:
        yield
    except ray.exceptions.RayError as error:
        raise SeqtokError(
            f"the Ray cluster at {address!r} is lost ({_first_line(error)}); what is finished is kept: start the "
            "same command again"
        ) from None
    finally:
        ray.shutdown()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Ray's own handler aborts the program; an exit cancels what is handed out."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _check_reachable(address: str) -> None:
    """Ray itself tries for many minutes. Raises OSError or ValueError for a HOST:PORT where nobody listens."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
