"""Shapes and types are checked at the interfaces; examples are the same in every run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from hypothesis import settings

#: Examples are looked for in all modules; these all have one name.
collect_ignore_glob = ["*conftest.py"]

#: Not ``training``, ``zoo`` and ``cli``, whose settings are pydantic's to check.
_CHECKED = (
    "diffusion", "evaluation", "guidance", "io", "linalg", "metrics", "nn", "operators",
    "pipeline", "samplers", "tiling",
)  # fmt: skip
jaxtyping.install_import_hook([f"sfumato.{name}" for name in _CHECKED], "typechecker.check")

settings.register_profile("sfumato", deadline=None, derandomize=True)
settings.load_profile("sfumato")

# What a shell starts in the background is deaf to Ctrl-C, and so would be what a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of what tests start


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Let a test hand over what annotations forbid, to see sfumato's own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name objects without a text of their own by their class: names must not hold addresses."""
    return type(val).__name__ if type(val).__repr__ is object.__repr__ else None
