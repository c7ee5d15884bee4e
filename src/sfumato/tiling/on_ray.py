"""Work on many machines, by Ray: actors, each with a restorer of its own."""

from __future__ import annotations

import os
import socket
import sys
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, final

import torch

from sfumato.errors import SettingsError
from sfumato.tiling.executor import Waiting
from sfumato.tiling.pool import Answer, Bench, Died, Pool, order
from sfumato.tiling.tasks import Restorer, TileTask
from sfumato.tiling.wire import Packed

#: Seconds that a cluster has to answer.
_SECONDS_TO_ANSWER = 5.0


@final
class OnRay:
    """Work on a Ray cluster, or on a Ray that is started for it on this machine.

    ``n_workers`` actors, each with ``threads`` threads (None: as many as this process has, so that
    results have the same bits) and ``gpus_per_worker`` GPUs, or a share of one; None takes as many
    workers as there is room for. ``address`` is the cluster's, or "auto". Where it is None and
    this process is on no Ray yet, one is started, and shut down by ``close``.

    The machines of a cluster need the same sfumato and torch. An actor that dies is replaced, its
    batches are restored again, and ``warned`` gets a line. Within ``with``, the actors that are
    idle stay for the next ``begin``. Errors and warnings are those of ``Processes``; SettingsError
    where Ray is not installed or cannot be reached.
    """

    def __init__(
        self,
        n_workers: int | None = None,
        address: str | None = None,
        *,
        gpus_per_worker: float = 0.0,
        threads: int | None = None,
        warned: Callable[[str], None] = warnings.warn,
    ) -> None:
        if n_workers is not None and n_workers < 1:
            raise SettingsError(f"{n_workers} workers", expected="at least 1")
        if gpus_per_worker < 0:
            raise SettingsError(f"{gpus_per_worker} GPUs for each worker", expected="at least 0")
        self._ray = _import_ray()
        self._n_workers, self._address = n_workers, address
        self._gpus, self._threads = gpus_per_worker, threads
        self._warned = warned
        self._crew: _Actors | None = None
        self._pool: Pool | None = None
        self._kept = self._started = False

    @property
    def threads(self) -> int:
        """Those of each of the actors."""
        return self._threads or torch.get_num_threads()

    def begin(self, restorer: Restorer) -> None:
        """Start the actors, and give each a copy of the restorer."""
        self.close()
        packed = order(restorer, self._threads)
        try:
            if self._crew is None:
                self._crew = self._hire()
            self._crew.begin(packed)
        except BaseException:
            self._leave()
            raise
        self._pool = Pool(self._crew, self._crew.n_seats, restorer, self._warned)

    def free(self) -> int:
        """Return how many batches more the actors can hold."""
        return self._begun.free()

    def submit(self, tasks: Sequence[TileTask]) -> None:
        """Send a batch to the actor that will be the first to begin it."""
        self._begun.submit(tasks)

    def wait(self) -> Waiting:
        """Wait for the actors, and replace those that die."""
        return self._begun.wait()

    def close(self) -> None:
        """End the actors, and Ray if it was started here; within ``with`` only the busy ones."""
        if not self._kept:
            self._leave()
        elif self._crew is not None and self._pool is not None:
            for seat in list(self._crew.actors):
                if self._pool.busy(seat):
                    self._crew.dismiss(seat)
        if self._pool is not None:
            self._pool.close()
        self._pool = None

    @property
    def _begun(self) -> Pool:
        assert self._pool is not None, "begin() comes first"
        return self._pool

    def _hire(self) -> _Actors:
        """Find a Ray, or start one; see how many workers it has room for."""
        threads = self.threads
        if self._address is not None or not self._ray.is_initialized():
            self._started = not self._ray.is_initialized()
            _connect(self._ray, self._address, (self._n_workers or 1) * threads)
        room = sum(_room(node, threads, self._gpus) for node in self._ray.nodes())
        if room < (self._n_workers or 1):
            raise SettingsError(
                f"{self._n_workers or 1} workers of {threads} threads and {self._gpus:g} GPUs",
                expected=f"at most {room}, for which there is room on this Ray",
            )
        return _Actors(self._ray, self._n_workers or room, threads, self._gpus)

    def _leave(self) -> None:
        """Leave nothing running that was started here."""
        if self._crew is not None:
            for seat in list(self._crew.actors):
                self._crew.dismiss(seat)
            self._crew = None
        if self._started:
            self._ray.shutdown()
            self._started = False

    def __enter__(self) -> OnRay:
        """Keep idle actors from now on."""
        self._kept = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """End all actors, and Ray if it was started here."""
        self._kept = False
        self.close()


def _import_ray() -> Any:  # noqa: ANN401
    try:
        import ray
    except ImportError as error:
        raise SettingsError(
            "workers on Ray, which is not installed", do="pip install 'sfumato[ray]'"
        ) from error
    return ray


def _room(node: Mapping[str, Any], threads: int, gpus: float) -> int:
    """Return how many workers a machine of a cluster has room for."""
    has = node["Resources"] if node["Alive"] else {}
    room = int(has.get("CPU", 0.0) // threads)
    return min(room, int(has.get("GPU", 0.0) // gpus)) if gpus else room


def _connect(ray: Any, address: str | None, n_cpus: int) -> None:  # noqa: ANN401
    """Join a cluster, or start a Ray on this machine."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is not None:
        try:
            _knock(address)
            ray.init(address=address, ignore_reinit_error=True, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            raise SettingsError(
                f"no Ray at {address!r} ({error})",
                do="see that it runs (ray status); if it wants a token, set RAY_AUTH_MODE=token",
            ) from error
        return
    n_cpus = max(n_cpus, os.cpu_count() or 1)
    ray.init(address="local", include_dashboard=False, num_cpus=n_cpus, **quiet)


def _knock(address: str) -> None:
    """See that somebody listens there: Ray itself would go on trying for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()


class _Actor:
    """A bench at another place."""

    def __init__(self, packed: Packed, device: str, paths: Sequence[str]) -> None:
        # What the restorer is made of may lie beside the script that started it all.
        sys.path += [p for p in paths if p not in sys.path]
        self._device = device
        self._bench = Bench(packed, device)

    def begin(self, packed: Packed) -> None:
        """Take another restorer."""
        self._bench = Bench(packed, self._device)

    def restore(self, batch: Packed) -> Iterator[Answer]:
        """Restore a batch."""
        yield from self._bench.restore(batch)


class _Actors:
    """A crew of actors."""

    def __init__(self, ray: Any, n_seats: int, threads: int, gpus: float) -> None:  # noqa: ANN401
        self._ray = ray
        self.n_seats = n_seats
        self.actors: dict[int, Any] = {}
        #: The answers to the batches of each actor, as they come.
        self._streams: dict[int, deque[Any]] = {}
        self._device = "cuda" if gpus else "cpu"
        self._remote = ray.remote(_Actor).options(
            num_cpus=threads, num_gpus=gpus, max_restarts=0, max_task_retries=0
        )
        self._order: Packed | None = None
        self._put: Any = None

    def begin(self, order: Packed) -> None:
        """Fill the seats; those who sit there already are told what is new to them."""
        known = self._order is not None and self._order.equals(order)
        if not known:
            self._order, self._put = order, self._ray.put(order)
        for seat in range(self.n_seats):
            if seat not in self.actors:
                self.hire(seat)
            elif not known:
                self.actors[seat].begin.remote(self._put)

    def name(self, seat: int) -> str:
        return f"worker {seat + 1} of {self.n_seats}, on Ray,"

    def hire(self, seat: int) -> None:
        self._streams[seat] = deque()
        self.actors[seat] = self._remote.remote(self._put, self._device, sys.path)

    def send(self, seat: int, batch: Packed) -> None:
        restore = self.actors[seat].restore.options(num_returns="streaming")
        self._streams[seat].append(restore.remote(batch))

    def listen(self, seats: Collection[int]) -> Sequence[tuple[int, Answer | Died]]:
        first = {self._streams[seat][0]: seat for seat in seats}
        ready, _ = self._ray.wait(list(first), num_returns=1)
        return [(first[stream], self._hear(first[stream], stream)) for stream in ready]

    def _hear(self, seat: int, stream: Any) -> Answer | Died:  # noqa: ANN401
        lost = self._ray.exceptions
        try:
            answer: Answer = self._ray.get(next(stream))
        except (lost.RayActorError, lost.ObjectLostError, lost.OutOfMemoryError) as error:
            return Died(" ".join(str(error).split("\n")[0].split()))
        if answer.kind == "finished":
            self._streams[seat].popleft()
        return answer

    def dismiss(self, seat: int) -> None:
        self._streams.pop(seat)
        self._ray.kill(self.actors.pop(seat))
