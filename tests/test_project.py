"""Rules that the project holds itself to."""

import importlib
import inspect
import os
import pkgutil
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sfumato

ROOT = Path(__file__).parents[1]
SFUMATO = shutil.which("sfumato", path=str(Path(sys.executable).parent))
HEAVY = ("torch", "pyvips", "pydantic", "numpy", "scipy")
PACKAGES = ["sfumato"] + [
    f"sfumato.{m.name}" for m in pkgutil.iter_modules(sfumato.__path__) if m.ispkg
]


@pytest.mark.parametrize("module", ["sfumato", "sfumato.cli", "sfumato.zoo"])
def test_importing_is_light(module):
    code = f"import sys, {module}; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def cpu_seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.skipif(SFUMATO is None, reason="sfumato is not installed beside this python")
def test_help_is_quick():
    assert min(cpu_seconds([SFUMATO, "--help"]) for _ in range(5)) < 0.5


def tracked_files():
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run([git, "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True)
    paths = [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_file_names_a_place_on_one_machine():
    # Written so that this file is not found itself.
    place = re.compile(rb"(?<![\w.])/" + rb"(?:work|root|home/\w+)/")
    named = [p for p in tracked_files() if place.search(p.read_bytes())]
    assert [str(p.relative_to(ROOT)) for p in named if p.suffix != ".safetensors"] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_resolve_and_are_documented(package):
    module = importlib.import_module(package)
    assert module.__doc__
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert inspect.getdoc(value), f"{package}.{name} has no docstring"
