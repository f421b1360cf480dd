"""The page in which a frozen model plays: its numbers are PyTorch's, and a person can use it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import MISSING, browser
from conftest import SMOKE
from test_contexts import untrained

from ad.cli import VERBS, exit_code
from ad.config.parser import load
from ad.config.world import make_envs
from ad.reporting import demo
from ad.reporting.demo import PAGE, UnsupportedError, demo_html, write_demo
from ad.rollout.rollout import rollout, sampled
from ad.rollout.tasks import policy_of, sampling_temperature

QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
SMALL = ["--data.context_length", "13", "--evaluation.episodes", "4", "--source.env_steps", "320"]
MODELS = {  # settings of worlds and models that the page plays
    "two temperatures": ["--evaluation.temperature_known", "0.4"],
    "dense": [
        *("--env.kwargs", "{size: 3, terminate: false}", "--model.encoder", "table"),
        *("--model.position", "window", "--model.reward", "projection", "--model.heads", "4"),
        *("--model.next_observation", "false", "--data.context_length", "6"),
    ],
    "paid once": [
        *("--env.kwargs", "{size: [3, 4], start: corner, reward: once, terminate: false}"),
        *("--model.position", "history", "--model.positions", "20", "--model.layers", "3"),
        *("--model.width", "18", "--model.encoder", "offsets", "--evaluation.action", "greedy"),
    ],
}
TAB, ENTER, SPACE, RIGHT, DOWN = "\ue004", "\ue007", " ", "\ue014", "\ue015"
TEXT = "return document.getElementById(arguments[0]).textContent"
REPLAY = """
const [goal, actions] = arguments, player = new Player(world, goal, new Agent(model), () => 0);
return actions.map((action) => {
  if (player.over) player.begin();
  const { cell, time } = player, probabilities = [...player.decide()];
  const { logits } = player.policy, reward = player.take(action);
  return { cell, time, probabilities, logits: [...logits], reward, next: player.cell };
});
"""


def in_chromium(page: Path, *arguments) -> list[dict]:
    with browser() as chromium:
        chromium.open(page.as_uri())
        played = chromium.script(REPLAY, *arguments)
        assert not chromium.errors()
    return played


def in_node(page: Path, *arguments) -> list[dict]:
    data = re.search(r'id="data">(.*)</script>', page.read_text())[1]
    code = (Path(demo.__file__).with_name("demo_model.js")).read_text()
    call = f"(function () {{{REPLAY}}})(...{json.dumps(arguments)})"
    code += f"\nconst {{ model, world }} = {data};\nconsole.log(JSON.stringify({call}));"
    done = subprocess.run(["node"], input=code, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


needs_chromium = pytest.mark.skipif(
    bool(MISSING), reason=f"there is no {' and no '.join(MISSING)} on PATH"
)
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node on PATH")
ENGINES = [pytest.param(in_chromium, marks=needs_chromium), pytest.param(in_node, marks=needs_node)]


def random_model(config):
    """The run of `config`, its method, and a model all of whose weights are far from 0 and 1."""
    run, method, model = untrained(config)
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return run, method, model


def page_of(run, model, folder: Path) -> Path:
    page = folder / PAGE
    page.write_text(demo_html(run, model))
    return page


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("words", MODELS.values(), ids=MODELS)
def test_the_page_computes_the_logits_of_a_rollout(smoke, tmp_path, words, engine):
    run, method, model = random_model(smoke(tmp_path, *SMALL, *words))
    logits, divided, task = [], [], run.split.held_out_tasks[:1]
    hook = lambda module, inputs, output: logits.append(output[0].tolist())  # noqa: E731
    model.head.register_forward_hook(hook)

    def select_action(values, u):  # nearly any action, to come to the goal
        divided.append(values[0])
        return sampled(20.0)(values, u)

    policy = policy_of(run.config, method, model)(1)
    env = make_envs(run.config.env, task)
    steps = rollout(policy, env, [1], 15, select_action, record=[0]).trajectory
    steps = {name: values[0] for name, values in steps.items()}
    goal = int(task[0] @ [run.world.shape[1], 1])
    played = engine(page_of(run, model, tmp_path), goal, steps["action"].tolist())
    assert len(played) == len(logits) > 3 * run.config.data.context_length
    for name, expected in {"cell": "observation", "time": "time", "reward": "reward"}.items():
        assert [step[name] for step in played] == steps[expected].tolist()
    assert [step["next"] for step in played] == steps["next_observation"].tolist()
    np.testing.assert_allclose([step["logits"] for step in played], logits, atol=1e-4)
    assert np.ptp(logits, axis=1).mean() > 1 and 1 in steps["reward"]
    if run.config.evaluation.action == "greedy":
        chosen = np.eye(5)[np.argmax(logits, 1)]
    else:
        temperature = sampling_temperature(run.config.evaluation)
        chosen = torch.tensor(np.array(divided) / temperature).softmax(1)
    np.testing.assert_allclose([step["probabilities"] for step in played], chosen, atol=1e-4)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory) -> Path:
    """The page of an untrained model of the quickstart's size."""
    root = tmp_path_factory.mktemp("quickstart")
    words = ["--config_path", str(QUICKSTART), "--root", str(root)]
    run, _, model = untrained(load([*words, "--device", "cpu"]))
    return page_of(run, model, root)


def test_the_page_is_one_small_file(quickstart):
    text = quickstart.read_text()
    assert len(text.encode()) < 2_000_000 and "211,717 weights" in text
    assert set(re.findall(r"https?://[^\"' ]*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<img|<iframe|<script[^>]* src|url\(|@import|fetch\(", text)


@needs_chromium
def test_a_person_plays_by_the_keyboard_alone_on_a_narrow_page(quickstart):
    with browser() as chromium:
        chromium.resize(400, 800)
        chromium.open(quickstart.as_uri())
        chromium.press(TAB)
        assert chromium.script("return document.activeElement.id") == "room"
        first = chromium.script("return game.goal")
        for cell, kind in ((first + 1, "trained on"), (first + 10, "held out")):
            steps = [RIGHT] if cell == first + 1 else [DOWN]
            chromium.press(*steps, ENTER)
            assert chromium.script("return game.goal") == cell
            assert kind in chromium.script(TEXT, "goal")
        chromium.press(TAB, ENTER)  # play
        chromium.wait("playing && game.episodes >= 2")
        chromium.press(ENTER)  # pause
        time, over = chromium.script("return [playing || game.player.time, game.player.over]")
        chromium.press(TAB, ENTER)  # one step
        assert chromium.script("return game.player.time") == (1 if over else time + 1)
        episodes = chromium.script("return game.episodes")
        chromium.press(TAB, ENTER)  # one episode
        assert chromium.script("return game.episodes") == episodes + 1
        bars = "return document.querySelectorAll('#strip .bar').length"
        assert chromium.script(bars) == chromium.script("return agent.length") > 20
        assert chromium.script("return attention().reduce((a, b) => a + b)") == pytest.approx(1)
        chromium.press(TAB, TAB, TAB, ENTER)  # past speed and new game: erase the memory
        assert chromium.script("return agent.length") == chromium.script(bars) == 0
        chromium.press(TAB, SPACE)  # forget after each episode
        chromium.script("advance(0)")
        assert "Memory: 0 steps" in chromium.script(TEXT, "status")
        lengths, curves = chromium.script("return [game.lengths, game.curves.length]")
        assert [len(own) for own in lengths] == [episodes + 2] * 2 and curves == 2
        page = "const page = document.documentElement; return page.scrollWidth <= page.clientWidth"
        assert chromium.script(page)
        assert not chromium.errors()


REFUSED = {
    "a GRU": (["--model.memory", "gru"], "model.memory is gru"),
    "another world": (["--env.id", "DarkRoomPermuted-v0"], "env.id is DarkRoomPermuted-v0"),
    "another policy": (["--method.name", "dpt"], "method.name is dpt"),
    "three tokens": (["--model.tokenizer", "separate"], "model.tokenizer is separate"),
    "angles": (["--model.position", "rotary"], "model.position is rotary"),
    "no training": ([], "run `ad train` first"),
}


@pytest.mark.parametrize(("words", "named"), REFUSED.values(), ids=REFUSED)
def test_what_it_cannot_play_is_one_sentence_and_exit_code_2(smoke, tmp_path, capsys, words, named):
    config = smoke(tmp_path, *words)
    given = ["--config_path", str(SMOKE), "--root", str(tmp_path), "--device", "cpu", *words]
    assert exit_code(VERBS["demo"], given) == 2
    *warnings, sentence = capsys.readouterr().err.splitlines()
    assert named in sentence and all(line.startswith("warning:") for line in warnings)
    assert not (config.folder / PAGE).exists()


def test_a_page_that_is_too_large_is_not_written(trained, monkeypatch):
    monkeypatch.setattr(demo, "MOST_BYTES", 50_000)
    with pytest.raises(UnsupportedError, match=r"would have 0\.\d MB, and the most is 0\.05 MB"):
        write_demo(trained)
    assert not (trained.folder / PAGE).exists()
