"""Who is compared is read from text; what cannot be meant is refused in one line."""

import pytest

from sfumato.errors import ModelError, SettingsError
from sfumato.evaluation.baselines import BASELINES
from sfumato.evaluation.contenders import contender, method_parts
from sfumato.evaluation.own import Models, Restoring
from sfumato.evaluation.posed import pose
from sfumato.evaluation.recipe import MethodPart, load_recipe
from sfumato.guidance import METHODS

RECIPE = load_recipe("set14-x4")


def read(*words):
    return {part.name: part for part in method_parts(words, RECIPE)}


def test_lists():
    own = {part.name for part in RECIPE.methods}
    assert set(read("recipe")) == own
    assert set(read("baselines")) == set(BASELINES)
    assert set(read("all")) == own | set(BASELINES) | set(METHODS)
    assert list(read("bicubic sr3", "dps:zeta=3")) == ["bicubic", "sr3", "dps-zeta-3"]
    assert read("sr3")["sr3"].model == "sr3"


def test_settings_of_a_method(tmp_path):
    part = read("ddnm@steps=3,objective=perception")["ddnm-steps-3-objective-perception"]
    told = contender(part, Models()).identity("x")
    assert (told["settings"]["steps"], told["settings"]["method"]) == (3, "ddnm")
    with pytest.raises(SettingsError, match="stpes is no setting; did you mean steps"):
        contender(read("ddnm@stpes=3")["ddnm-stpes-3"], Models())
    with pytest.raises(SettingsError, match="seed is no setting"):
        contender(read("ddnm@seed=3")["ddnm-seed-3"], Models())
    with pytest.raises(SettingsError, match="steps = '0'"):
        contender(read("ddnm@steps=0")["ddnm-steps-0"], Models())


def test_a_schedule_may_be_written_as_on_the_command_line():
    settings = {"objective": "perception", "schedule": "2,1,0.5"}
    told = Restoring("x", "default", Models(), settings=settings).identity("")["settings"]
    assert told["schedule"] == [2.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("bicbuic", "there is no method bicbuic.*did you mean bicubic"),
        ("command:mine:cp {input}", "expected {input} and {output}"),
        ("command:mine:cp {input} {output} {mask}", "expected {input} and {output}"),
        ("command:mine", "the method command:mine; expected command:NAME"),
        ("folder:mine:nowhere", "there is no folder nowhere"),
        ("back-projection:round=2", "option round of back-projection; expected rounds"),
        ("back-projection:rounds=0.5", "back-projection:rounds=0.5; expected a whole number"),
    ],
)
def test_what_cannot_be_meant(word, said):
    with pytest.raises(SettingsError, match=said):
        [contender(part, Models()) for part in method_parts([word], RECIPE)]


def test_weights_that_are_not_there():
    with pytest.raises(ModelError, match="there is no checkpoint BSRGAN"):
        contender(read("rrdb:BSRGAN.pth")["bsrgan"], Models())


def test_a_model_that_was_not_brought_is_named(photo):
    wanted = {"faces": "an SR3 model of faces"}
    part = MethodPart(name="sr3", model="faces")
    posed = pose("average_pool:4", "x", photo, 0)
    with pytest.raises(SettingsError, match="an SR3 model of faces; give -n faces=PATH"):
        contender(part, Models(), wanted=wanted).answer(posed)
    command = MethodPart(name="c", use="command:c:make [faces] {input} {output}")
    with pytest.raises(SettingsError, match="give -n faces=PATH"):
        contender(command, Models(), wanted=wanted).answer(posed)
    brought = contender(command, Models(roles={"faces": "a b.pt"}), wanted=wanted)
    assert brought.identity("x") == {"command": "make 'a b.pt' {input} {output}"}
