"""Work in other processes of this machine."""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import socket
import struct
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, TypeAlias, final

import numpy as np
import torch

from sfumato.errors import SettingsError
from sfumato.tiling.executor import Waiting
from sfumato.tiling.pool import Answer, Bench, Died, Pool, order
from sfumato.tiling.tasks import Restorer, TileTask
from sfumato.tiling.wire import Bytes, Packed, pack
from sfumato.zoo.prior import as_device

#: What a message is, and its content.
_Message: TypeAlias = tuple[Any, Packed]

#: Bytes that a socket holds: about a batch, so that nobody waits for the other one to read.
_SOCKET_BYTES = 1 << 22
#: Seconds that a process whose socket is closed has to end by itself.
_SECONDS_TO_END = 5.0


@final
class Processes:
    """Work in other processes of this machine, one for each of ``devices``.

    A device may be named several times. ``threads`` are those of each process; None takes as many
    as this one has, so that results have the same bits. Tensors on the restorer's device go to the
    worker's; where the restorer's is not the CPU, what is on the CPU stays there.

    ``close`` ends what ``begin`` has started. Within ``with``, processes that are idle stay for
    the next ``begin``, and end with the block.

    A process that dies is replaced, its batches are restored again, and ``warned`` gets a line.
    Raises WorkerError when three in a row died without a finished batch. What a task raises,
    ``wait`` raises; what it warns of, ``wait`` warns of.

    As always with spawned processes, they import the script that they were started from: it works
    under ``if __name__ == "__main__":``, and what it gives to the restorer has a name in a module.
    """

    def __init__(
        self,
        devices: Sequence[str] = ("cpu",),
        threads: int | None = None,
        *,
        warned: Callable[[str], None] = warnings.warn,
    ) -> None:
        if not devices:
            raise SettingsError("no devices for workers", expected="at least one, as cpu")
        self._crew = _Processes([str(as_device(d)) for d in devices])
        self._threads = threads
        self._warned = warned
        self._pool: Pool | None = None
        self._kept = False

    @property
    def threads(self) -> int:
        """Those of each of the processes."""
        return self._threads or torch.get_num_threads()

    def begin(self, restorer: Restorer) -> None:
        """Start the processes, and give each a copy of the restorer."""
        self.close()
        try:
            self._crew.begin(order(restorer, self._threads))
        except BaseException:
            self._crew.dismiss_all()
            raise
        self._pool = Pool(self._crew, len(self._crew.devices), restorer, self._warned)

    def free(self) -> int:
        """Return how many batches more the processes can hold."""
        return self._begun.free()

    def submit(self, tasks: Sequence[TileTask]) -> None:
        """Send a batch to the process that will be the first to begin it."""
        self._begun.submit(tasks)

    def wait(self) -> Waiting:
        """Wait for the processes, and replace those that die."""
        return self._begun.wait()

    def close(self) -> None:
        """End the processes at once; within ``with`` only those that have a batch."""
        for seat in list(self._crew.workers):
            if not self._kept or (self._pool is not None and self._pool.busy(seat)):
                self._crew.dismiss(seat)
        if self._pool is not None:
            self._pool.close()
        self._pool = None

    @property
    def _begun(self) -> Pool:
        assert self._pool is not None, "begin() comes first"
        return self._pool

    def __enter__(self) -> Processes:
        """Keep idle processes from now on."""
        self._kept = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """End all processes."""
        self._kept = False
        self.close()


class _Processes:
    """A crew of processes."""

    def __init__(self, devices: Sequence[str]) -> None:
        self.devices = devices
        self.workers: dict[int, _Worker] = {}
        self._order: Packed | None = None

    def begin(self, order: Packed) -> None:
        """Fill the seats; those who sit there already are told what is new to them."""
        known = self._order is not None and self._order.equals(order)
        self._order = order
        for seat in range(len(self.devices)):
            if seat not in self.workers:
                self.hire(seat)
            elif not known:
                self.workers[seat].send("begin", order)

    def name(self, seat: int) -> str:
        return f"worker {seat + 1} of {len(self.devices)}, on {self.devices[seat]},"

    def hire(self, seat: int) -> None:
        assert self._order is not None, "begin() comes first"
        self.workers[seat] = worker = _Worker(self.devices[seat])
        worker.send("begin", self._order)

    def send(self, seat: int, batch: Packed) -> None:
        self.workers[seat].send("restore", batch)

    def listen(self, seats: Collection[int]) -> Sequence[tuple[int, Answer | Died]]:
        with selectors.DefaultSelector() as ready:
            for seat in seats:
                ready.register(self.workers[seat].socket, selectors.EVENT_READ, seat)
            heard = [(key.data, self.workers[key.data].hear()) for key, _ in ready.select()]
        return [(seat, said) for seat, said in heard if said is not None]

    def dismiss(self, seat: int) -> None:
        self.workers.pop(seat).stop()

    def dismiss_all(self) -> None:
        """End all."""
        for seat in list(self.workers):
            self.dismiss(seat)


class _Worker:
    """A process, as its parent sees it."""

    def __init__(self, device: str) -> None:
        self.socket, theirs = _socket_pair()
        self._process = get_context("spawn").Process(
            target=_serve, args=(theirs, device), name=f"sfumato on {device}", daemon=True
        )
        #: Messages to send as soon as it listens; None from then on.
        self._waiting: list[_Message] | None = []
        with theirs, _deaf_to_interrupts():
            self._process.start()

    def send(self, kind: str, packed: Packed) -> None:
        """Send a message, now or as soon as it listens."""
        if self._waiting is not None:
            self._waiting.append((kind, packed))
            return
        with suppress(BrokenPipeError, ConnectionResetError):  # hear() will tell.
            _write(self.socket, kind, packed)

    def hear(self) -> Answer | Died | None:
        """Return what it says, or None if that is only that it listens."""
        try:
            kind, packed = _read(self.socket)
        except (EOFError, ConnectionResetError):
            return Died(self._end())
        if kind != "ready":
            return Answer(kind, packed)
        waiting, self._waiting = self._waiting or [], None
        for message in waiting:
            self.send(*message)
        return None

    def _end(self) -> str:
        """Say how it ended."""
        self._process.join(_SECONDS_TO_END)
        code = self._process.exitcode
        if code is None:
            return "its connection was lost"
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        early = "" if self._waiting is None else " before it began: see its own message"
        return f"with exit status {code}{early}"

    def stop(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self.socket.close()


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
    return pair


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Start what never hears Ctrl-C: a terminal sends it to all, and the parent answers it."""
    if sys.platform == "win32":
        yield
        return
    # Started before, because its start unblocks the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(theirs: socket.socket, device: str) -> None:
    """Be a worker. Reading and writing have threads of their own: the work waits for neither."""
    inbox: SimpleQueue[_Message] = SimpleQueue()
    outbox: SimpleQueue[_Message] = SimpleQueue()
    for target, box in ((_read_all, inbox), (_write_all, outbox)):
        Thread(target=target, args=(theirs, box), daemon=True).start()
    outbox.put(("ready", pack(None)))
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(device)
    bench: Bench | None = None
    while True:
        kind, packed = inbox.get()
        if kind == "begin":
            bench = Bench(packed, device)
            continue
        assert bench is not None, "the restorer comes first"
        for answer in bench.restore(packed):
            outbox.put((answer.kind, answer.packed))


def _read_all(theirs: socket.socket, inbox: SimpleQueue[_Message]) -> None:
    """Read what comes. When the parent is gone, this process ends, whatever it is doing."""
    try:
        while True:
            inbox.put(_read(theirs))
    except (EOFError, ConnectionResetError):
        os._exit(0)


def _write_all(theirs: socket.socket, outbox: SimpleQueue[_Message]) -> None:
    """Write what is to go, until the parent is gone: the other thread acts on that."""
    with suppress(BrokenPipeError, ConnectionResetError):
        while True:
            _write(theirs, *outbox.get())


_LENGTH = struct.Struct("<Q")


def _write(to: socket.socket, kind: str, packed: Packed) -> None:
    head = pickle.dumps((kind, packed.stream, [t.nbytes for t in packed.tensors]))
    to.sendall(_LENGTH.pack(len(head)) + head)
    for t in packed.tensors:
        to.sendall(t.data)


def _read(source: socket.socket) -> _Message:
    (length,) = _LENGTH.unpack(_exactly(source, _LENGTH.size).data)
    kind, stream, sizes = pickle.loads(_exactly(source, length).data)  # noqa: S301
    return kind, Packed(stream, tuple(_exactly(source, n) for n in sizes))


def _exactly(source: socket.socket, n: int) -> Bytes:
    """Read ``n`` bytes; EOFError where the other end is closed before."""
    read = np.empty(n, np.uint8)
    rest = read.data
    while rest:
        got = source.recv_into(rest)
        if not got:
            raise EOFError
        rest = rest[got:]
    return read
