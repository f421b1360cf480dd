"""The verb doctor: it names the cause of broken experiments, and finds nothing in a healthy one."""

from pathlib import Path

import pytest

from ad.config.parser import load
from ad.doctor import doctor, gather
from ad.findings import findings

WORLDS = Path(__file__).parent / "worlds.py"
HEALTHY = """
env: {kwargs: {size: 5}, episode_length: 12}
split: {num_train_tasks: 16}
source: {algorithm: a2c, env_steps: 40_000, num_envs: 4, settings: {learning_rate: 3e-3}}
data: {history_stride: 20, context_length: 48}
model: {width: 32, layers: 2, heads: 2, feed_forward: 64}
training: {steps: 200, batch_size: 16, warmup_steps: 30}
evaluation: {episodes: 30}
threads: 1
"""
RING = "--model.encoder table --source.algorithm q_learning --source.env_steps 4000"
RING += f" --split.num_train_tasks 3 --env.episode_length 6 --env.id {WORLDS}"
FAR = "--env.kwargs {size:\xa031} --env.episode_length 60 --split.num_train_tasks 3"
QUICK = {  # name of a finding -> overrides of the healthy experiment whose first finding it is
    "rewards_are_equal": f"{RING}:Timed",
    "tasks_are_equal": f"{RING}:Paying",
    "held_out_tasks_are_train_tasks": f"{RING}:Silent",
}
SLOW = {
    "rewards_are_rare": f"{FAR} --split.num_held_out 3 --data.context_length 120 "
    "--source.env_steps 6000",
    "random_actions_are_as_good": "--env.kwargs {size:\xa03} --env.episode_length 100 "
    "--split.num_train_tasks 5 --data.context_length 200",
    "episodes_are_too_short": "--env.kwargs {size:\xa07} --env.episode_length 3",
    "observation_tells_the_task": f"{RING}:Named",
    "context_is_too_short": "--data.context_length 8",
    "rewards_are_not_read": "--model.reward none",
    "source_does_not_improve": "--source.settings {learning_rate:\xa01e-9}",
    "stride_is_too_large": "--data.history_stride 400",
    "stride_is_too_small": "--data.history_stride 1 --data.context_length 24 "
    "--source.settings {learning_rate:\xa05e-4}",
    "loss_does_not_fall": "--training.learning_rate 30 --training.warmup_steps 0",
    "actions_are_certain": "--evaluation.action greedy",
    "actions_are_uniform": "--evaluation.temperature 50",
    "histories_cover_little": "--source.algorithm noise_distillation --split.num_train_tasks 1 "
    "--split.num_held_out 10",
}
CASES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def configured(folder: Path, line: str = ""):
    """Return the healthy experiment with the overrides of a line of words."""
    path = folder / "experiment.yaml"
    path.write_text(HEALTHY)
    words = [word.replace("\xa0", " ") for word in line.split(" ") if word]
    return load([str(path), "--root", str(folder), *words])


@pytest.mark.parametrize("name", CASES)
def test_the_first_finding_is_the_cause(name, tmp_path):
    (tmp_path / "work").mkdir()
    config = configured(tmp_path, (QUICK | SLOW)[name])
    found = findings(gather(config, tmp_path / "work"))
    assert next(iter(found), "") == name
    assert all(part in found[name] for part in ("saw: ", "; likely: ", "; change: "))


def test_a_healthy_experiment_has_no_finding_and_writes_nothing(tmp_path, capsys):
    doctor(configured(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("saw: random actions have a return of 0.227, the source 0.2")
    assert len(lines) == 3 and lines[2].startswith("nothing is wrong that a short look can tell")
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.yaml"]
