"""What a restoration in memory keeps in its job, so that it goes on after a kill."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sfumato._typing import Images
from sfumato.io import load_checkpoint, save_checkpoint
from sfumato.io.job import JSON, Job
from sfumato.samplers import Past, Position

#: A walk is kept about this often, in seconds, and never for more than a part of the time.
_SECONDS = 5.0
_PART = 0.05


@contextmanager
def kept_in(
    folder: str | Path, plan: Mapping[str, JSON], *, device: str, restart: bool, keep_job: bool
) -> Iterator[Kept]:
    """Open a job, or go on with it; its folder goes at success, or if there is nothing in it."""
    with Job.open(folder, plan, restart=restart) as job:
        kept = Kept(job, device)
        try:
            yield kept
        except BaseException:
            if kept.empty:
                job.remove()
            raise
        if not keep_job:
            job.remove()


class Kept:
    """The images that are finished, and the walk that is under way, in a job's folder.

    Each is named after its sample and level. ``device`` is where they are given back.
    """

    def __init__(self, job: Job, device: str | torch.device = "cpu") -> None:
        self.job, self.device = job, device
        self._pause = _SECONDS
        self._last = time.monotonic()

    @property
    def seconds(self) -> float:
        """The seconds worked in all runs of the job."""
        return self.job.seconds

    @property
    def threads(self) -> int:
        """The threads that the job was begun with."""
        threads = self.job.plan["threads"]
        assert isinstance(threads, int), "it is in every plan"
        return threads

    @property
    def empty(self) -> bool:
        """Whether nothing was kept yet."""
        return not self.job.notes("kept")

    def image(self, name: str) -> Images | None:
        """Return a finished image, if it was kept."""
        found = self.load(name)
        return found[0]["x"].to(self.device) if found else None

    def finished(self, name: str, x: Images) -> None:
        """Keep a finished image instead of its walk, if a while has passed."""
        if self.due():
            self.save(name, {"x": x}, {})
            self.job.drop(f"{name}.walk.safetensors")

    def walk(self, name: str) -> Walk:
        """Return the keeper of a walk."""
        return Walk(self, f"{name}.walk")

    def due(self) -> bool:
        """Say whether it is time to keep something."""
        return time.monotonic() - self._last > self._pause

    def load(self, name: str) -> tuple[dict[str, Tensor], dict[str, object]] | None:
        """Return what was saved under a name, if anything."""
        path = self.job.load(f"{name}.safetensors")
        return load_checkpoint(path) if path else None

    def save(self, name: str, tensors: dict[str, Tensor], config: dict[str, object]) -> None:
        """Write a file of the job, durably and whole or not at all."""
        began = time.monotonic()
        write = partial(save_checkpoint, tensors=tensors, config=config)
        self.job.save(f"{name}.safetensors", write)
        self.job.note("kept", {"name": name})
        self._last = time.monotonic()
        self._pause = max(_SECONDS, (self._last - began) / _PART)


class Walk:
    """Keeps where a walk stands, and what its sampler remembers. See ``Keeper``."""

    def __init__(self, kept: Kept, name: str) -> None:
        self._kept, self._name = kept, name

    def last(self) -> Position | None:
        """Return what was kept last, if anything."""
        found = self._kept.load(self._name)
        if found is None:
            return None
        tensors, config = found
        tensors = {k: t.to(self._kept.device) for k, t in tensors.items()}
        made, sigmas = config["made"], config["sigmas"]
        assert isinstance(made, int), "it was kept by this class"
        assert isinstance(sigmas, list), "it was kept by this class"
        past = tuple(Past(s, tensors[f"past {i}"]) for i, s in enumerate(sigmas))
        return Position(made, tensors["x"], (past,))

    def keep(self, at: Position) -> None:
        """Keep this instead, if a while has passed."""
        if not self._kept.due():
            return
        (past,) = at.past
        tensors = {"x": at.x} | {f"past {i}": p.x_0 for i, p in enumerate(past)}
        config: dict[str, object] = {"made": at.made, "sigmas": [p.sigma for p in past]}
        self._kept.save(self._name, tensors, config)
