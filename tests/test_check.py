"""The verb check: what works is fine, and each broken component is named with what it breaks."""

import pytest
from test_config import CONFIGS
from test_contracts import ARMS, CASES, HERE, configured

from ad.check import _small, check
from ad.config.parser import load_file
from ad.errors import ConfigError

BROKEN = f"{HERE}/broken.py"
RING = ["--env.episode_length", "6", "--model.encoder", "table"]
DRIFT = ["--env.id", "BernoulliBandit-v0", "--env.kwargs", '{"drift": 0.1, "pulls": 60}']
DRIFT += ["--env.episode_length", "7", "--evaluation.env_steps", "60", "--model.encoder", "table"]
DRIFT += ["--source.env_steps", "240"]
GOOD = {
    "drift": [*DRIFT, "--source.algorithm", "ucb"],
    "arms": [*ARMS, "--split.num_train_tasks", "6"],
    "pictures": CASES["pictures"],
    "the ends of histories": [
        *("--method.name", "expert_distillation", "--method.settings.expert_fraction", "0.1"),
        *("--env.episode_length", "20", "--source.env_steps", "1200"),
    ],
    "averages and a critic": [
        *("--model.memory", f"{HERE}/components.py:Averages"),
        *("--method.name", f"{HERE}/components.py:Critic"),
    ],
    "planning": ["--method.name", "in_context_planning"],
    "retrieval": ["--model.memory", "retrieval"],
}
WRONG = {
    "world: the same seeds and actions give another reward": ["--env.id", f"{BROKEN}:Unseeded"],
    "another reward at step . alone than in a batch": ["--env.id", f"{BROKEN}:Neighbors"],
    r"random_return is above optimal_return in \(0\)": ["--env.id", f"{BROKEN}:Optimist"],
    "source: a task has another action": ["--source.algorithm", f"{BROKEN}:Drawn"],
    "no gradient reaches .*unused": ["--model.encoder", f"{BROKEN}:Untrained"],
    "model: logits of a rollout differ by": ["--model.memory", f"{BROKEN}:Forgets"],
    "entries of the window that are not `valid`": ["--method.name", f"{BROKEN}:Padded"],
    "with what other environments play beside it": ["--method.name", f"{BROKEN}:Mixing"],
    r"it raises KeyError at .*broken\.py:\d+: 'rewards'": ["--method.name", f"{BROKEN}:Crashing"],
}


@pytest.mark.parametrize("words", GOOD.values(), ids=GOOD)
def test_what_keeps_its_contract_is_fine(words, tmp_path, capsys):
    check(configured(tmp_path, *words))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["fine"] * 5
    assert not any(tmp_path.iterdir())


RL2 = ("--method.name", "rl2", "--env.change", "2", "--method.settings.trial_steps")


@pytest.mark.parametrize("words", [("--method.name", "source"), (*RL2, "40")])
def test_only_the_world_of_a_method_that_learns_in_it_is_tried(words, tmp_path, capsys):
    check(configured(tmp_path, "--data.context_length", "40", *words))
    assert capsys.readouterr().out == "world: fine\n"


@pytest.mark.parametrize("sentence", WRONG)
def test_what_breaks_its_contract_is_named(sentence, tmp_path):
    words = WRONG[sentence]
    with pytest.raises(ConfigError, match=sentence):
        check(configured(tmp_path, *words, *(RING if words[0] == "--env.id" else [])))


@pytest.mark.parametrize("path", CONFIGS)
def test_every_experiment_of_the_repository_has_a_small_one(path, tmp_path):
    config = load_file(path)
    small = _small(config, tmp_path)
    assert small.source.env_steps <= 3000 * small.source.num_envs
    assert small.method == config.method and small.env == config.env
