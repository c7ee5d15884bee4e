"""Other programs: what they are given, what is taken from them, and what is told of failures."""

import sys
import time
from pathlib import Path

import pytest
import torch

from sfumato.errors import ImageError, SettingsError, SfumatoError
from sfumato.evaluation.others import Command, Folder
from sfumato.evaluation.posed import pose
from sfumato.io import Picture, write_picture

#: Enlarges by repeating pixels, with nothing but the standard library and pyvips.
REPEAT = (
    "import sys, pyvips; n = int(sys.argv[3]); "
    "pyvips.Image.new_from_file(sys.argv[1]).zoom(n, n).write_to_file(sys.argv[2])"
)


def command(code, fields="{input} {output} {scale}", **options):
    return Command("mine", f"{sys.executable} -c '{code}' {fields}", **options)


def test_a_command_sees_the_measurement(photo):
    posed = pose("average_pool:2", "x", photo, 0)
    x = command(REPEAT).answer(posed).x
    assert torch.equal(x, posed.y.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_seed_and_folder_are_told(photo, tmp_path):
    said = tmp_path / "said"
    code = f'import sys, shutil; open("{said}", "w").write(sys.argv[3] + sys.argv[4]); '
    code += "shutil.copy(sys.argv[1], sys.argv[2])"
    posed = pose("identity", "x", photo, 12)
    command(code, "{input} {output} {seed} {folder}").answer(posed)
    assert said.read_text() == "12"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('import sys; sys.exit("one\\ntwo")', r"failed \(1\): two"),
        ("import sys; sys.exit(3)", r"failed \(3\): it said nothing"),
        ("pass", "wrote no {output}"),
        ('import sys; open(sys.argv[2], "w").write("x")', "output.png"),
        (REPEAT.replace("int(sys.argv[3])", "1"), "a result of 20 x 24 pixels; expected 40 x 48"),
    ],
)
def test_a_failure_is_told_in_one_line(code, said, photo):
    with pytest.raises(SfumatoError, match=said) as told:
        command(code).answer(pose("average_pool:2", "x", photo, 0))
    assert "\n" not in str(told.value)


def test_no_shell_reads_a_command(photo, tmp_path):
    made = tmp_path / "made"
    with pytest.raises(ImageError):
        Command("mine", f"false {{input}} {{output}}; touch {made}").answer(
            pose("identity", "x", photo, 0)
        )
    assert not made.exists()
    with pytest.raises(ImageError, match="nowhere: No such file"):
        Command("mine", "nowhere {input} {output}").answer(pose("identity", "x", photo, 0))


def test_a_command_that_takes_too_long_is_ended_with_its_children(photo, tmp_path):
    lives, script = tmp_path / "lives", tmp_path / "child.py"
    script.write_text(
        "import os, sys, time\nopen(sys.argv[1], 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
    )
    code = f'import subprocess, sys; subprocess.run([sys.executable, "{script}", "{lives}"])'
    began = time.monotonic()
    with pytest.raises(ImageError, match="took more than 3 s; give it a longer --timeout"):
        command(code, timeout=3).answer(pose("identity", "x", photo, 0))
    assert time.monotonic() - began < 30
    state = Path("/proc", lives.read_text(), "stat")
    for _ in range(100):
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the child outlives its parent")


def test_coefficients_are_no_picture_to_give(photo):
    with pytest.raises(SettingsError, match="expected a picture for an input"):
        command(REPEAT).answer(pose("walsh_hadamard:0.25", "x", photo, 0))


def test_a_folder_holds_results_by_name(photo, tmp_path):
    write_picture(Picture(1 - photo), tmp_path / "a.webp")
    write_picture(Picture(photo), tmp_path / "box" / "a.png")
    posed = pose("average_pool:2", "a", photo, 0)
    results = Folder("theirs", tmp_path)
    assert torch.allclose(results.answer(posed).x, 1 - photo, atol=1e-6)
    assert torch.equal(results.at("box").answer(posed).x, photo)
    assert results.at("bicubic") is results
    assert results.identity("a") != results.at("box").identity("a")
    with pytest.raises(ImageError, match="there is no b in"):
        results.answer(pose("average_pool:2", "b", photo, 0))


def test_a_result_of_another_size_is_refused(photo, tmp_path):
    write_picture(Picture(photo[:, :-1]), tmp_path / "a.png")
    with pytest.raises(SfumatoError, match="a result of 40 x 47 pixels; expected 40 x 48"):
        Folder("theirs", tmp_path).answer(pose("average_pool:2", "a", photo, 0))
