"""The app through its HTTP interface: what it plays, shows, edits and refuses."""

import http.client
import json
import threading
from contextlib import contextmanager
from dataclasses import replace

import hand_made
import numpy as np
import pytest
import torch
from browser import MISSING, browser
from hand_made import AVOIDS, COPIES, GOAL, TIME, WALL
from test_contexts import METHODS, untrained

from ad.cli import VERBS, exit_code
from ad.config.parser import load
from ad.evaluation.evaluate import load_model
from ad.interpret.analyses.attention import attention_sums
from ad.interpret.analyses.bank import BANK, Bank
from ad.interpret.analyses.reading import Reading, outputs, preferred, read_values
from ad.interpret.analyses.return_scan import ReturnScan
from ad.interpret.analysis import Subject
from ad.interpret.app.requests import App
from ad.interpret.app.server import AppServer
from ad.interpret.contexts import environments, rollout_contexts
from ad.interpret.labeled import LabeledArray
from ad.methods import build_method
from ad.rollout.tasks import policy_of, rollout_envs
from ad.runtime.run import Run
from ad.runtime.signals import Terminated


class Page:
    """What a page does: it posts JSON to its server."""

    def __init__(self, server: AppServer):
        self.server, self.port = server, server.server_address[1]

    def send(self, method: str, path: str, body: bytes | None = None, headers=None):
        """Return the status, the headers and the content of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def post(self, route: str, body, headers=None):
        """Return the status and the answer to a request in JSON."""
        headers = {"Content-Type": "application/json"} | (headers or {})
        status, _, content = self.send("POST", f"/{route}", json.dumps(body).encode(), headers)
        return status, json.loads(content)

    def ask(self, route: str, **body) -> dict:
        status, answer = self.post(route, body)
        assert status == 200, answer
        return answer

    def do(self, token: str, entry, **values) -> dict:
        """Add an entry: the number of an action, or what it does, with its values."""
        entry = entry if isinstance(entry, int) else {"do": entry, **values}
        return self.ask("do", token=token, entry=entry)

    def refused(self, route: str, **body) -> str:
        status, answer = self.post(route, body)
        assert status == 400 and list(answer) == ["error"], answer
        return answer["error"]


@contextmanager
def served(run: Run):
    with AppServer(lambda: App(run).answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Page(server)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def page(whole):
    """The page of a trained run."""
    with served(whole) as page:
        yield page


@pytest.fixture
def page_of(collected, monkeypatch):
    """page_of(*words) serves an untrained model of the method that `words` configure."""

    @contextmanager
    def serve(*words: str):
        small = ["--model.layers", "1", "--data.context_length", "8"]
        subject = Subject(*untrained(collected("app", *small, *words)))
        monkeypatch.setattr(Subject, "load", lambda run, step=None: subject)
        with served(subject.run) as page:
            yield page

    return serve


def without_token(answer: dict) -> dict:
    return {name: value for name, value in answer.items() if name != "token"}


def test_left_to_the_model_it_plays_the_rollout_of_the_evaluation(page, whole):
    config, task = whole.config, whole.split.held_out_tasks[1]
    new_policy = policy_of(config, build_method(config.method), load_model(whole))
    played = rollout_envs(config, [(3, task)], new_policy, 2, [0]).trajectory
    session = page.ask("start", task=1, seed=3)
    actions, rewards = [], []
    while session["episode"] < 2:
        session = page.ask("model", token=session["token"], until="step") | {
            "token": session["token"]
        }
        actions.append(session["last"][0]["action"])
        rewards.append(session["last"][0]["reward"])
    assert actions == played["action"][0].tolist() and rewards == played["reward"][0].tolist()
    ends = [page.ask("start", task=1, seed=3)["token"]] * 2
    again = [page.ask("model", token=token, until="episode") for token in ends][-1]
    assert without_token(again) == without_token(session)
    assert again["done"] and len(again["returns"]) == 2 and sum(again["lengths"]) == len(actions)


def test_it_shows_what_the_library_computes(page, whole):
    subject = Subject.load(whole)
    token = page.ask("start", task=0, seed=0)["token"]
    for _ in range(3):
        page.ask("model", token=token, until="step")
    shown = page.ask("model", token=token, until="step")
    config, method = whole.config, subject.method
    played = environments(config, method, whole.split.held_out_tasks[:1], 1)
    contexts = rollout_contexts(config, method, subject.model, played).select(slice(1))
    window = {name: values[:, :6] for name, values in contexts.window.items()}
    cut = {name: getattr(contexts, name)[:, :6] for name in ("episode", "decided", "cell")}
    cut["decided"] = np.arange(6)[None] == 5
    contexts = replace(contexts, window=window, **cut)
    out = outputs(subject.model, contexts)[0, -1]
    np.testing.assert_allclose(shown["outputs"], out, atol=1e-5)
    temperature = whole.config.evaluation.temperature
    np.testing.assert_allclose(
        shown["probabilities"], (out / temperature).softmax(0).numpy(), atol=1e-4
    )
    sums, counts = attention_sums(subject.model, contexts)
    masses = np.array(shown["attention"], float)
    np.testing.assert_allclose(np.nan_to_num(masses), sums.sum((0, 1)), atol=1e-5)
    assert (np.isnan(masses).all(0) == (counts.sum((0, 1)) == 0)).all()
    reading = Reading(subject.model, read_values(subject.model, contexts), preferred(out))
    np.testing.assert_allclose(shown["components"], reading.components()[0, -1], atol=1e-5)
    best, second = out.topk(2).indices.tolist()
    assert (shown["best"], shown["second"]) == (best, second)
    assert sum(shown["components"]) == pytest.approx(float(out[best] - out[second]), abs=1e-4)
    assert shown["context"][0]["observation"] == "(1, 1)"


def test_a_person_plays_and_the_same_requests_give_the_same_answers(page):
    def play() -> list[dict]:
        answers = [page.ask("start", split="train", task=2, seed=1)]
        token = answers[0]["token"]
        answers += [page.do(token, action) for action in (1, 3, 0)]
        answers.append(page.do(token, "change", index=1, reward=1.0))
        answers.append(page.ask("model", token=token, until="episode"))
        return [without_token(answer) for answer in answers]

    answers = play()
    assert answers == play()
    assert [answer["observation"] for answer in answers[:4]] == [
        *("(1, 1)", "(0, 1)", "(0, 0)", "(0, 0)"),
    ]
    assert answers[0]["actions"][1] == "up" and answers[3]["last"][0]["action"] == 0
    assert answers[3]["image"].startswith("data:image/png;base64,")
    assert answers[3]["image"] != answers[0]["image"]


def test_an_edit_shows_both_decisions_until_it_is_undone(page):
    token = page.ask("start")["token"]
    for action in (1, 1, 4):
        before = page.do(token, action)
    changed = page.do(token, "change", index=1, action=2, observation=[0, 2])
    assert changed["edited"] and changed["outputs_before"] == before["outputs"]
    assert changed["probabilities_before"] == pytest.approx(before["probabilities"], abs=1e-5)
    assert changed["probabilities"] != pytest.approx(before["probabilities"], abs=1e-5)
    assert changed["attention_before"] == before["attention"]
    first, second, _ = changed["context"]
    assert [step["edited"] for step in changed["context"]] == [True, True, False]
    assert second["action"] == 2 and first["next_observation"] == second["observation"] == "(0, 2)"
    assert [step["time"] for step in page.do(token, "remove", index=1)["context"]] == [0, 1]
    further = page.do(token, 0)
    assert [step["action"] for step in further["context"]] == [1, 4, 0] and further["time"] == 4
    assert page.do(token, "forget", episode=0)["context"] == []
    assert page.ask("undo", token=token) == further
    restored = page.do(token, "restore")
    assert not restored["changed"] and len(restored["context"]) == 4
    assert restored["outputs"] == further["outputs_before"]


def test_a_checkpoint_is_chosen_from_the_list(page):
    last, other = (page.ask("start", checkpoint=step)["outputs"] for step in (8, 6))
    assert page.ask("start")["outputs"] == last != other
    assert page.ask("run")["checkpoints"] == [8, 6]
    assert "only of: 6, 8" in page.refused("start", checkpoint=7)


@pytest.mark.parametrize(
    ("route", "body", "name"),
    [
        ("start", {"split": "test"}, "split"),
        ("start", {"task": 9999}, "task"),
        ("start", {"checkpoint": "../../other/checkpoints/step_0000008.pt"}, "checkpoint"),
        ("start", {"entries": "0"}, "entries"),
        ("start", {"entries": [0, {"do": "ask", "value": -1}]}, "stale: entry 1: the model is not"),
        ("unfold", {"part": "all"}, "part must be one of"),
        ("do", {"entry": 5}, "action"),
        ("do", {"entry": None}, "an entry is"),
        ("do", {"entry": {"do": "reset"}}, "an entry is"),
        ("do", {"token": {}, "entry": 0}, "session"),
        ("model", {"until": "tomorrow"}, "until"),
        ("look", {"direction": "up - upp"}, "no action 'upp'"),
        ("scan", {"low": 0, "high": 1}, "is not asked for a return"),
        ("do", {"entry": {"do": "ask", "value": float("nan")}}, "value"),
        ("do", {"entry": {"do": "remove", "index": 1}}, "index"),
        ("do", {"entry": {"do": "remove", "index": 0, "all": True}}, "has no all"),
        ("do", {"entry": {"do": "change", "index": 0, "action": 9}}, "action"),
        ("do", {"entry": {"do": "change", "index": 0, "observation": [3, 0]}}, "observation"),
        ("do", {"entry": {"do": "put", "thing": "wall", "x": 1, "y": 1}}, "no wall can be put"),
        ("do", {"entry": {"do": "ablate", "components": ["7.0"]}}, "no component 7.0"),
        ("do", {"entry": {"do": "ablate", "components": ["0.0"], "kind": "most"}}, "kind"),
        ("do", {"entry": {"do": "steer", "point": "hook_embed", "coefficient": 1}}, "A and B"),
        ("do", {"entry": {"do": "steer", "point": "hook_*", "coefficient": 1}}, "no point hook_*"),
        ("do", {"entry": {"do": "time", "time": 5}}, "time must be a whole number from 0 to 4"),
        ("../run", {}, "/../run"),
    ],
)
def test_a_bad_request_is_refused_and_changes_nothing(page, route, body, name):
    token = page.ask("start")["token"]
    before = page.do(token, 1)
    assert name in page.refused(route, **({"token": token} | body))
    assert page.ask("look", token=token) == before


def test_a_request_that_is_no_json_object_is_one_sentence(page):
    sent = {"Content-Type": "application/json"}
    for body, headers in [
        *((b"{", sent), (b"[]", sent), (b"", sent), (b"[" * 60000, sent), (b"\xff", sent)),
        *((b"{}", {}), (b"{}", {"Content-Type": "text/plain"})),
        *((b"{}", {"Content-Type": "application/x-www-form-urlencoded"}),),
        (b"{}", sent | {"Content-Length": str(10**9)}),
        (b"{}", sent | {"Content-Length": "-1"}),
    ]:
        status, _, content = page.send("POST", "/run", body, headers)
        assert status == 400 and json.loads(content)["error"].startswith("a request must")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "", "[::1]"])
def test_another_host_is_refused(page, host):
    host = host.format(port=page.port)
    for method, path in (("GET", "/"), ("POST", "/run")):
        headers = {"Host": host, "Content-Type": "application/json"}
        status, _, content = page.send(method, path, b"{}", headers)
        assert status == 403 and "this machine only" in json.loads(content)["error"]


def test_another_pages_origin_is_refused_and_its_own_is_not(page):
    for origin, expected in [
        ("http://evil.example", 403),
        ("null", 403),
        (f"http://127.0.0.1:{page.port + 1}", 403),
        (f"http://127.0.0.1:{page.port}", 200),
    ]:
        assert page.post("run", {}, {"Origin": origin})[0] == expected
    status, headers, _ = page.send("OPTIONS", "/run")
    assert status == 501 and "Access-Control-Allow-Origin" not in headers


def test_only_the_files_of_the_page_are_served(page):
    for path, kind, word in [
        ("/", "text/html", b"<h1"),
        ("/app.js", "text/javascript", b"fetch"),
        ("/charts.js", "text/javascript", b"function chart"),
        ("/app.css", "text/css", b"main"),
    ]:
        status, headers, content = page.send("GET", path)
        assert status == 200 and word in content
        assert headers["Content-Type"] == f"{kind}; charset=utf-8"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
    for path in ("/../server.py", "/%2e%2e/server.py", "//etc/passwd", "/app.js/..", "/run", "/?"):
        assert page.send("GET", path)[0] == 404


def test_a_recurrent_model_is_played_beside_and_says_why_it_is_not_looked_inside(page_of):
    with page_of("--model.memory", "gru") as page:
        session = page.ask("model", token=page.ask("start")["token"], until="step")
        assert session["removable"] == [] and session["last"][0]["action"] in range(5)
        assert session["inside"].endswith(
            "the memory of the model is a GRU, which has no attention."
        )


def test_an_asked_return_is_chosen(page_of):
    with page_of(*METHODS["decision transformer"]) as page:
        first = page.ask("start")
        token = first["token"]
        usual = first["asked"].pop("value")
        assert usual == pytest.approx(0.9) and first["asked"] == {"low": 0, "high": 1}
        page.do(token, 1)
        before = page.do(token, 1)
        lower = page.do(token, "ask", value=0.25)
        assert lower["asked"]["value"] == 0.25 and lower["outputs"] != before["outputs"]
        assert lower["context"] == before["context"] and not lower["changed"]
        assert page.do(token, "ask", value=usual)["outputs"] == before["outputs"]


def test_actions_that_a_task_lacks_are_not_taken(page_of):
    words = ["--env.id", "tests/worlds.py:Bandit", "--env.kwargs", "{pulls: 3}"]
    words += ["--split.num_train_tasks", "12", "--source.algorithm", "a2c"]
    with page_of(*words) as page:
        shown = page.ask("start", task=0)
        assert shown["allowed"].count(False) and shown["image"] is None
        lacking = shown["allowed"].index(False)
        assert shown["probabilities"][lacking] == 0 and shown["actions"][0] == "action 0"
        sentence = f"the task has no action {lacking}"
        assert page.refused("do", token=shown["token"], entry=lacking) == sentence


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """The app of the hand-made decision transformer in Dynamic Obstacles, which looks ahead."""
    config = load(["--config_path", "configs/dynamic_obstacles.yaml", "--root", str(tmp_path)])
    subject = Subject(Run(config), build_method(config.method), hand_made.conditioned())
    monkeypatch.setattr(Subject, "load", lambda run, choice=None: subject)
    with served(subject.run) as page:
        yield page


def arrays(page, token, part) -> dict:
    """The arrays of a section by name, as LabeledArray."""
    found = page.ask("unfold", token=token, part=part)["arrays"]
    axes = {one["name"]: dict(one["axes"]) for one in found}
    return {
        one["name"]: LabeledArray(
            np.array(one["values"], float).reshape(
                [len(own) for own in axes[one["name"]].values()]
            ),
            axes[one["name"]],
            one["about"],
        )
        for one in found
    }


THERE = {"direction": "forward - turn right"}


def wall_ahead(page) -> str:
    """Begin a game, asked for 0.5, with a wall put in front of the agent in what it sees."""
    token = page.ask("start", **THERE)["token"]
    page.do(token, "ask", value=0.5)
    page.do(token, "put", thing="wall", x=3, y=5, view=True)
    return token


def test_what_a_person_changes_has_the_effects_worked_out_by_hand(grid):
    token = wall_ahead(grid)
    before = grid.ask("look", token=token)
    assert before["outputs"] == pytest.approx([0, 0, WALL + AVOIDS + COPIES / 2], abs=1e-5)
    ablated = grid.do(token, "ablate", components=["0.0"])
    assert ablated["outputs"][2] == pytest.approx(WALL + COPIES / 2, abs=1e-5)
    assert ablated["outputs_before"][2] == pytest.approx(COPIES / 2)  # nothing is really in front
    without = grid.do(token, "ablate", components=["neuron 0.0"])  # one of AVOIDS
    assert without["changed"] and grid.ask("undo", token=token)["changed"]
    grid.ask("undo", token=token)
    late = grid.do(token, "time", time=150)
    assert late["outputs"][0] == pytest.approx(TIME / 2, abs=1e-5)
    grid.do(token, "time", time=None)
    grid.do(token, "mark", name="A")
    grid.do(token, "put", thing="goal", x=3, y=5, view=True)
    goal = grid.do(token, "mark", name="B")
    steered = grid.do(token, "steer", point="blocks.0.hook_resid_post", coefficient=2)
    moved = np.array(steered["outputs"]) - goal["outputs"]
    assert moved == pytest.approx([0, 0, 2 * (GOAL - WALL)], abs=1e-5)
    again = grid.ask("start", entries=steered["entries"], **THERE)  # as a link does
    assert without_token(again) == steered
    played = grid.ask("rollout", token=token, number=0)
    assert len(played["intact"]["actions"]) <= 300 and played["changed"] != played["intact"]


def test_the_sections_have_the_numbers_that_were_set(grid):
    token = wall_ahead(grid)
    shown = grid.do(token, "time", time=150)
    cells = arrays(grid, token, "cells")
    own = cells["state x view"]
    assert own.at(channel="object", cell="5-3", **THERE) == pytest.approx(WALL)
    assert np.count_nonzero(own.values) == 1
    parts = dict(zip(shown["component_names"], shown["components"], strict=True))
    assert cells["sums"].values.sum() == pytest.approx(parts["state"] + parts["time"], abs=1e-5)
    assert cells["sums by word"].at(word="object wall") == pytest.approx(WALL)
    left = {"direction": "turn left - turn right"}
    grid.ask("look", token=token, **left)
    curve = arrays(grid, token, "cells")["time"]
    assert curve.at(position=150, **left) == pytest.approx(TIME / 2, abs=1e-4)
    grid.ask("look", token=token, **THERE)
    heads = arrays(grid, token, "heads")
    terms = heads["ov_terms"].at(head="0.0", term="every state", **THERE)
    assert terms == pytest.approx(AVOIDS) and heads["qk_return"].axes["asked return"] == [0.5]
    assert heads["in_front"].axes["head"] == ["0.0", "0.1"]
    assert np.isfinite(arrays(grid, token, "gradients")["attributed"].values).all()


def test_the_scan_has_the_numbers_of_the_analysis(grid):
    token = wall_ahead(grid)
    scanned = grid.ask("scan", token=token, low=-1, high=0.95)
    session = grid.server.answer.__self__.sessions[token]
    subject = session.chosen()
    subject.__dict__["contexts"] = session.contexts()
    found = ReturnScan().run(subject)
    expected = found["contribution"].at(action=2) - found["contribution"].at(action=1)
    own = np.array(scanned["contribution"], float)[::5]
    np.testing.assert_allclose(own[:, 1:], expected[::2], atol=1e-5)
    np.testing.assert_allclose(
        scanned["asked"][::5], found["contribution"].axes["asked return"][::2]
    )
    assert scanned["correlation"][scanned["components"].index("0.1")] == pytest.approx(1)


def test_a_saved_situation_comes_back_from_the_bank_and_a_damaged_bank_is_a_sentence(grid):
    token = wall_ahead(grid)
    for _ in range(2):
        assert "wall in front" in grid.ask("save", token=token)["situations"]
    session = grid.server.answer.__self__.sessions[token]
    path = session.run.folder / "inspect" / BANK
    kept = {one.situation: one for one in Bank.load(path, session.model).kept}["wall in front"]
    assert kept.source == "edited" and len(kept.contexts) == 2
    windows = kept.contexts.select([1]).window, session.contexts().window
    torch.testing.assert_close(*windows, equal_nan=True)
    shown = grid.ask("look", token=token)["probabilities"]  # nothing is ablated
    assert kept.probability.tolist() == [pytest.approx(shown, abs=1e-5)] * 2
    path.write_bytes(damaged := path.read_bytes()[:-100])
    assert "is damaged" in grid.refused("save", token=token)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(("words", "named"), [([], "`ad train`"), (["--port", "65536"], "--port")])
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, capsys, words, named):
    assert exit_code(VERBS["app"], ["--root", str(tmp_path), *words]) == 2
    assert named in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_verb_says_where_the_app_is_and_ends_with_a_signal(whole, capsys, monkeypatch):
    def interrupted(server):
        assert server.answer("run", {})["name"] == whole.config.name
        raise Terminated

    monkeypatch.setattr(AppServer, "serve_forever", interrupted)
    words = ["--config_path", str(whole.folder / "config.yaml"), "--port", "0"]
    assert exit_code(VERBS["app"], words) == 0
    said = capsys.readouterr()
    assert f"the app of {whole.config.name}: http://127.0.0.1:" in said.out and not said.err


def test_a_port_in_use_is_a_sentence_and_exit_code_3(page, whole, capsys):
    words = ["--config_path", str(whole.folder / "config.yaml"), "--port", str(page.port)]
    assert exit_code(VERBS["app"], words) == 3
    assert f"port {page.port} cannot be used" in capsys.readouterr().err


@pytest.mark.skipif(bool(MISSING), reason=f"there is no {' and no '.join(MISSING)} on PATH")
def test_a_browser_plays_an_episode_by_clicks_and_shows_what_the_server_answers(page):
    with browser("--window-size=1400,1000") as chromium:
        chromium.open(f"http://127.0.0.1:{page.port}/")
        chromium.wait("shown && !busy")
        while chromium.script("return shown.episode") == 0:
            chromium.click("#buttons button[data-action='1']")
            chromium.wait("!busy")
        assert chromium.script("return document.activeElement.dataset.action") == "1"
        token = chromium.script("return token")
        shown = page.ask("look", token=token)
        assert len(shown["returns"]) == 1 and shown["time"] == 0
        chromium.click("button[data-until='step']")
        chromium.wait("!busy && shown.time + (shown.lengths[1] || 0) === 1")
        chromium.click("#context button")  # change the newest
        chromium.script("document.querySelector('#context input[type=number]').value = 1")
        chromium.click("#context button")  # done
        chromium.wait("!busy && shown.edited")
        state = chromium.script("return shown")
        cells = "return [...document.querySelectorAll(arguments[0])].map((cell) => cell.innerText)"
        numbers = chromium.script(cells, "#probabilities tbody td:nth-child(3)")
        assert [float(text.rstrip(" %")) for text in numbers] == pytest.approx(
            [100 * share for share in state["probabilities"]], abs=0.51
        )
        added = chromium.script(cells, "#components tbody td:nth-child(3)")
        assert [float(text.replace("−", "-")) for text in added] == pytest.approx(
            state["components"], abs=0.006
        )
        assert state["context"][-1]["reward"] == 1 and state["context"][-1]["edited"]
        rows = chromium.script("return document.querySelectorAll('#context tbody tr').length")
        assert rows == len(state["context"])
        link = chromium.script("return location.href")
        chromium.click("#undo")
        chromium.wait("!busy && !shown.edited")
        chromium.open("about:blank")
        chromium.open(link)
        chromium.wait("typeof shown !== 'undefined' && shown && !busy")
        again = chromium.script("return shown")
        assert again["entries"] == state["entries"] and again["outputs"] == state["outputs"]
        chromium.script("location.hash = '#%7Bbroken'")
        chromium.wait("!busy && shown.entries.length === 0")
        said = chromium.script("return document.getElementById('message').textContent")
        assert said == "The link is damaged: a new game begins."
        assert not chromium.errors()
