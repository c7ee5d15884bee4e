"""The page works in a real browser, from its start to the saved file."""

import json
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from browser import addresses, chromium, complaints
from made_up_study import write_pictures
from sfumato.evaluation.study import Rules, StudySettings, collect, make_study, rates

SECONDS = 0.4


def made(tmp_path, **more):
    write_pictures(tmp_path)
    settings = StudySettings(seconds=SECONDS, break_every=2, **more)
    return make_study(
        tmp_path / "results",
        tmp_path / "references",
        tmp_path / "study",
        settings,
        inputs=tmp_path / "inputs",
    )


def wait_for(driver, condition, seconds=20):
    end = time.monotonic() + seconds
    while not (found := driver.execute_script(f"return {condition}")):
        assert time.monotonic() < end, f"{condition} does not come"
        time.sleep(0.02)
    return found


def press(driver, key):
    driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyDown", "key": key, "code": key})
    driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyUp", "key": key, "code": key})


def click(driver, selector):
    driver.find_element("css selector", selector).click()


def answer_all(driver, key_of):
    """Go from the consent to the end, with a key for each pair; return the pairs' addresses."""
    click(driver, ".jspsych-btn")
    wait_for(driver, "!!document.querySelector('#jspsych-instructions-next')")
    click(driver, "#jspsych-instructions-next")
    seen = []
    state = (
        "document.querySelector('#saved') ? 'end' :"
        "document.querySelector('.pair button:not(.hidden)') ? 'choice' :"
        "document.querySelector('.pair') ? 'shown' :"
        "document.querySelector('.jspsych-btn') ? 'words' : ''"
    )
    while (now := wait_for(driver, state)) != "end":
        if now == "choice":
            sources = driver.execute_script(
                "return [...document.querySelectorAll('.pair img')].map(i => i.src)"
            )
            hidden = driver.execute_script(
                "return [...document.querySelectorAll('.pair img')]"
                ".every(i => getComputedStyle(i).visibility === 'hidden')"
            )
            assert hidden, "pictures are gone while one chooses"
            seen.append([source.rsplit("study/", 1)[1] for source in sources])
            press(driver, key_of(seen[-1]))
            gone = f"document.querySelector('.pair img')?.src !== {json.dumps(sources[0])}"
            wait_for(driver, gone)
        elif now == "words":
            click(driver, ".jspsych-btn")
        time.sleep(0.02)
    return seen


@pytest.mark.slow
def test_from_start_to_the_saved_file(tmp_path):
    study = made(tmp_path, tasks=(1, 2), images=3, n_checks=1)
    facts = json.loads((tmp_path / "study/study.json").read_text())
    wrong = {c["spoilt"] for c in facts["checks"]}
    generated = {p["results"]["ddnm"] for p in facts["pictures"]}

    def key_of(sources):  # is fooled by ddnm always, by nothing else
        sides = {sources[0]: "ArrowLeft", sources[-1]: "ArrowRight"}
        chosen = [s for s in sides if s in generated]
        right = [s for s in sides if s in {p["reference"] for p in facts["pictures"]}]
        assert len(right) == 1
        return sides[chosen[0] if chosen else right[0]]

    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with chromium(tmp_path / "profile", downloads=downloads) as driver:
        driver.get((tmp_path / "study/index.html").as_uri() + "?subject=ada")
        seen = answer_all(driver, key_of)
        saved = downloads / f"study-{study.id}-ada.json"
        end = time.monotonic() + 20
        while not saved.exists() and time.monotonic() < end:
            time.sleep(0.05)
        asked = [url for url in addresses(driver) if not url.startswith(("file://", "chrome"))]
        assert asked == []
        assert complaints(driver) == []

    assert len(seen) == 8
    assert [len(sources) for sources in seen] == [2] * 4 + [3] * 4
    collected = collect([saved], Rules(study=str(tmp_path / "study")))
    (answers,) = collected.answers
    assert (answers.subject, answers.failed_checks) == ("ada", 0)
    assert len(wrong & {s for sources in seen for s in sources}) == 2
    pairs = [t for t in answers.trials if t.kind == "pair"]
    assert [t.task for t in pairs] == [2] * 3 + [1] * 3
    assert len({t.picture for t in pairs}) == 6
    assert all(abs(t.shown_ms - 1000 * SECONDS) < 60 for t in answers.trials if t.counts)
    found = {(r.task, r.name): r.rate for r in rates(collected.answers) if r.group == "method"}
    assert found == {(t, m): float(m == "ddnm") for t in (1, 2) for m in ("ddnm", "bicubic")}


@pytest.mark.slow
def test_answers_are_sent_too(tmp_path):
    got = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()

        def log_message(self, *words):
            del words

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        made(tmp_path, images=2, n_checks=0, post=f"http://127.0.0.1:{server.server_port}/")
        with chromium(tmp_path / "profile", downloads=tmp_path / "d") as driver:
            driver.get((tmp_path / "study/index.html").as_uri())
            answer_all(driver, lambda sources: "ArrowLeft")
            said = wait_for(driver, "document.querySelector('#sent')?.textContent")
            end = time.monotonic() + 20
            while said.startswith("Sending") and time.monotonic() < end:
                time.sleep(0.05)
                said = driver.find_element("id", "sent").text
        server.shutdown()
    assert said.startswith("The answers were also sent.")
    assert [len(facts["trials"]) for facts in got] == [2]


@pytest.mark.slow
def test_plans_are_fair_and_repeat(tmp_path):
    made(tmp_path, tasks=(1, 2), images=3, n_checks=2)
    plan = """
        const run = (subject) => {
            const { randomization } = initJsPsych();
            randomization.setSeed(subject);
            return planStudy(STUDY, randomization.shuffle);
        };
        return Array.from({ length: 400 }, (_, k) => run(`s${k % 399}`));
    """
    with chromium(tmp_path / "profile") as driver:
        driver.get((tmp_path / "study/index.html").as_uri())
        plans = driver.execute_script(plan)
    assert plans[0] == plans[399]
    assert plans[0] != plans[1]
    pairs = [t for plan in plans[:399] for block in plan for t in block if t["kind"] == "pair"]
    assert len(pairs) == 399 * 6
    for plan in plans:
        names = [t["picture"] for block in plan for t in block if t["kind"] == "pair"]
        assert len(set(names)) == 6
        for block in plan:
            assert [t["kind"] for t in block].count("check") == 2
            sides = [t["side"] for t in block if t["kind"] == "pair"]
            assert abs(sides.count("left") - sides.count("right")) <= 1
    for name, values in (("side", 2), ("method", 2), ("picture", 6)):
        found = [t[name] for t in pairs]
        for value in set(found):  # within five standard deviations of its share
            share = 1 / values
            spread = (share * (1 - share) / len(pairs)) ** 0.5
            assert abs(found.count(value) / len(pairs) - share) < 5 * spread


@pytest.mark.slow
def test_a_small_window_waits_and_who_declines_saves_nothing(tmp_path):
    made(tmp_path, zoom=8)
    with chromium(tmp_path / "profile", width=500, height=500, downloads=tmp_path) as driver:
        driver.get((tmp_path / "study/index.html").as_uri())
        wait_for(driver, "document.querySelector('.jspsych-btn')?.disabled")
        assert "712 × 604" in driver.find_element("tag name", "body").text
        size = {"width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wait_for(driver, "!document.querySelector('.jspsych-btn').disabled")
        click(driver, ".jspsych-btn")
        wait_for(driver, "document.querySelectorAll('.jspsych-btn').length === 2")
        click(driver, ".jspsych-btn[data-choice='1']")
        wait_for(driver, "document.body.textContent.includes('Nothing was saved')")
        driver.get((tmp_path / "study/index.html").as_uri() + "?subject=a/b")
        wait_for(driver, "document.body.textContent.includes('name of the subject')")
    assert list(tmp_path.glob("*.json")) == []
