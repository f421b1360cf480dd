"""kill -9 at random moments of training and evaluation: the same weights, log and results."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from killing import Killer, campaign

from ad import checkpoints
from ad.runs import Run
from scripts import evaluate, train

LONGER = {
    "training.steps": "60",
    "training.checkpoint_every": "4",
    "training.log_every": "3",
    "training.eval_every": "20",
    "training.precision": "float32",
    "model.dropout": "0.1",
    "evaluation.episodes": "40",
}


@pytest.fixture(scope="module")
def untouched(collected):
    """The configuration of a run without faults, trained and evaluated; only to be read."""
    config = collected("untouched", *(w for path, v in LONGER.items() for w in (f"--{path}", v)))
    train.main(config)
    evaluate.main(config)
    return config


@pytest.fixture
def begin(untouched, tmp_path):
    """begin(number): the words of the same row in a folder that has only the histories."""

    def build(number: int) -> list[str]:
        root = tmp_path / str(number)
        shutil.copytree(Path(untouched.root) / "histories", root / "histories")
        path = Path(untouched.root) / "logs" / untouched.name / "config.yaml"
        return ["--config_path", str(path), "--root", str(root)]

    return build


def fingerprints(folder: Path) -> dict[str, str]:
    """Hashes of the final weights, of the log without its speeds, and of results.csv."""
    content = checkpoints.load(checkpoints.newest(folder / "checkpoints"))
    weights = hashlib.sha256(str(content["step"]).encode())
    for name, tensor in content["model"].items():
        weights.update(name.encode() + tensor.numpy().tobytes())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{tag: v for tag, v in line.items() if "per_second" not in tag} for line in lines]
    return {
        "weights": weights.hexdigest(),
        "log": hashlib.sha256(json.dumps(kept).encode()).hexdigest(),
        "results": hashlib.sha256((folder / "results.csv").read_bytes()).hexdigest(),
    }


def fire(untouched, begin, kills: int, seed: int) -> tuple[int, int, int]:
    """(tried, survived, lost) of at least `kills` kills of train and evaluate."""
    killer = Killer(np.random.default_rng(seed))
    expected = fingerprints(Run(untouched).folder)
    warm_up = begin(-1)
    seconds = {verb: killer.run(verb, warm_up) for verb in ("train", "evaluate")}

    def trial(number: int) -> list[str]:
        words = begin(number)
        for verb, most in (("train", 3), ("evaluate", 2)):
            most = min(most, max(kills - killer.tried, 0))
            killer.run_under_fire(verb, words, 0.7 * seconds[verb], most)
        folder = Path(words[-1]) / "logs" / untouched.name
        found = fingerprints(folder)
        leftovers = [path.name for path in folder.rglob(".*.tmp")]
        return [name for name in expected if found[name] != expected[name]] + leftovers

    survived, lost = campaign(killer, kills, trial)
    verbs = ", ".join(f"{verb} {count}" for verb, count in killer.by_verb.items())
    print(f"{killer.tried} kills tried ({verbs}), {survived} survived, {lost} lost")
    return killer.tried, survived, lost


def test_a_few_kills_of_training_and_evaluation_lose_nothing(untouched, begin):
    tried, survived, lost = fire(untouched, begin, kills=4, seed=0)
    assert (tried, survived, lost) == (4, 4, 0)


@pytest.mark.faults
def test_many_kills_of_training_and_evaluation_lose_nothing(untouched, begin):
    tried, survived, lost = fire(untouched, begin, kills=30, seed=1)
    assert tried >= 30 and survived == tried and lost == 0


def test_a_checkpoint_for_which_there_is_no_room_is_exit_code_3_and_costs_no_bit(untouched, begin):
    killer, words = Killer(np.random.default_rng(0)), begin(0)
    folder = Path(words[-1]) / "logs" / untouched.name
    killer.run("train", words, code=3, largest=20_000)
    assert list((folder / "checkpoints").iterdir()) == []
    for verb in ("train", "evaluate"):
        killer.run(verb, words)
    assert fingerprints(folder) == fingerprints(Run(untouched).folder)
