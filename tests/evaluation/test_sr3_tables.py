"""The tables of SR3 that make images from nothing: whole, with networks that know nothing."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stand_in_sr3 import write_model

from sfumato.io import Picture, read_picture, write_picture
from sfumato.testing import adm_state_dict

pytestmark = pytest.mark.slow

#: As a user would cut a published recipe down to what is at hand.
RECIPE = """
base = "sr3-table-{table}"
measures = ["fid", "alexnet-frechet"]
data = {{ name = "Tiny", grey = "repeat", side = 128 }}
"""


@pytest.fixture
def place(tmp_path):
    pytest.importorskip("stlpips_pytorch", reason="the distance of sets needs the extra lpips")
    for k, name in enumerate(["ant", "bee", "bee"]):
        g = torch.Generator().manual_seed(k)
        coarse = torch.rand(1, 3, 14, 15, generator=g)
        x = torch.nn.functional.interpolate(coarse, scale_factor=10, mode="bicubic").clamp(0, 1)
        folder = tmp_path / "data" / "tiny" / name
        folder.mkdir(parents=True, exist_ok=True)
        write_picture(Picture(x[0]), folder / f"img_{k}.png")
    network = adm_state_dict(width=32, mult=(1, 2), attention=(2,), n_classes=3)
    torch.save(network, tmp_path / "classes.pt")
    options = {"num_heads": 2, "image_size": 32, "classes": ["ant", "bee", "cat"]}
    (tmp_path / "classes.json").write_text(json.dumps(options))
    return tmp_path


def bench(place, *models):
    """Run it as a user would, who has the program on the path that the recipe looks for it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words = [sys.executable, "-m", "sfumato", "bench", "mine.toml", "--data", "data", *models]
    done = subprocess.run(
        words, cwd=place, env=os.environ | {"PATH": path}, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("table", "roles"), [(4, ["sr3"]), (5, ["blur", "no-blur", "l2"])], ids=["table-4", "table-5"]
)
def test_images_from_nothing_are_compared_as_sets(place, table, roles):
    (place / "mine.toml").write_text(RECIPE.format(table=table))
    models = ["-n", "generator=classes.pt"]
    for role in roles:
        models += ["-n", f"{role}={write_model(place / f'{role}.safetensors').name}"]
    said = bench(place, *models)
    assert "not measured: fid" in said
    out = place / "bench" / "mine"
    records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert [r["refused"] for r in records] == [""] * 3 * len(roles)
    for record in records:
        assert read_picture(out / record["result"]).pixels.shape == (3, 128, 128)
    rows = [r for r in json.loads((out / "table.json").read_text())["rows"] if not r["source"]]
    assert len(rows) == len(roles)
    assert all(math.isfinite(r["values"]["AlexNet-Fréchet"]["mean"]) for r in rows)
    assert bench(place, *models) == said
