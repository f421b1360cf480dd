"""kill -9 at random moments and before every change of files: the bytes of a run without it."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import processes
import pytest
from killing import Crash, Killer, campaign
from training_run import words_of

from ad import pipeline
from ad.collection.collect import collect
from ad.data.load import VERIFIED
from ad.reporting.verify import verify
from ad.runtime.run import Run
from ad.training import checkpoints

FULL = pytest.mark.faults
LONGER = {
    "source.algorithm": "a2c",
    "source.env_steps": "8800",
    "source.state_every": "0",
    "training.steps": "24",
    "training.checkpoint_every": "8",
    "training.log_every": "3",
    "training.eval_every": "12",
    "training.precision": "float32",
    "model.dropout": "0.1",
    "evaluation.episodes": "20",
}
OBSTACLES = ["--env.id", "MiniGrid-Dynamic-Obstacles-6x6-v0", "--env.kwargs", "{}"]
OBSTACLES += ["--env.tasks", "[{}, {seed: 1}, {size: 5}]", "--env.episode_length", "40"]
OBSTACLES += ["--split.num_train_tasks", "2", "--model.encoder", "one_hot"]
OBSTACLES += ["--model.reward", "projection", "--source.algorithm", "stable_baselines3"]
OBSTACLES += ["--source.settings.arguments", "{n_steps: 50, batch_size: 200, n_epochs: 1}"]
OBSTACLES += ["--source.env_steps", "8000", "--source.state_every", "0"]
VERBS = ("collect", "train", "evaluate")


@pytest.fixture(scope="module")
def untouched(smoke, tmp_path_factory):
    """The configuration of a run without faults, from histories to results; tests only read it."""
    root = tmp_path_factory.mktemp("untouched")
    config = smoke(root, *words_of(LONGER))
    run = Run.open(config)
    collect(run)
    pipeline.train(run)
    pipeline.evaluate(run)
    return config


@pytest.fixture(scope="module")
def obstacles(smoke, tmp_path_factory):
    """The configuration of a collection on MiniGrid without faults; tests only read it."""
    config = smoke(tmp_path_factory.mktemp("obstacles"), *OBSTACLES)
    collect(Run.open(config))
    return config


@pytest.fixture
def begin(untouched, tmp_path):
    """begin(verb, number): the words of the same row where all that comes before `verb` is done."""
    there, name = Path(untouched.root), untouched.name

    def build(verb: str, number: int) -> list[str]:
        root = tmp_path / str(number)
        root.mkdir()
        if verb != "collect":
            shutil.copytree(there / "histories", root / "histories")
        if verb == "evaluate":
            shutil.copytree(there / "logs", root / "logs")
            for file in ("results.csv", "results.json", "trajectories.npz"):
                (root / "logs" / name / file).unlink()
        config_path = there / "logs" / name / "config.yaml"
        return ["--config_path", str(config_path), "--root", str(root)]

    return build


def fingerprints(config, root: Path, verb: str) -> dict[str, str]:
    """Return hashes of the histories, the final weights, the log without speeds, and the results.

    `verb` is the last one that has run.
    """
    folder = root / "logs" / config.name
    found = {}
    for path in sorted((root / "histories").rglob("*")):
        if path.is_file() and path.name != VERIFIED:  # which has the times of the files
            found[str(path.relative_to(root))] = sha256(path.read_bytes())
    if verb in ("train", "evaluate"):
        content = checkpoints.load(checkpoints.newest(folder / "checkpoints"))
        tensors = (name.encode() + t.numpy().tobytes() for name, t in content["model"].items())
        found["weights"] = sha256(f"{content['step']}".encode(), *tensors)
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        kept = [{tag: v for tag, v in line.items() if "per_second" not in tag} for line in lines]
        found["log"] = sha256(json.dumps(kept).encode())
    if verb == "evaluate":
        found |= {n: sha256((folder / n).read_bytes()) for n in ("results.csv", "trajectories.npz")}
    return found


def sha256(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def lost(config, verb: str, words: list[str], killer: Killer) -> list[str]:
    """Finish `verb`; return what differs from the run without faults or was left unfinished."""
    root = Path(words[-1])
    killer.run(verb, words)
    verify(Run(replace(config, root=str(root))))
    expected, found = (fingerprints(config, Path(r), verb) for r in (config.root, root))
    different = [name for name in expected | found if expected.get(name) != found.get(name)]
    rest = [path for pattern in (".*.tmp", ".partial-*", ".*.lock") for path in root.rglob(pattern)]
    shutil.rmtree(root)
    return different + [str(path.relative_to(root)) for path in rest]


@FULL
def test_a_process_that_compiles_and_one_that_loads_the_cache_write_the_same_bytes(
    untouched, begin, tmp_path, ledger
):
    kind = "a collection with code from numba's cache, and without"
    found = []
    for number in range(2):
        words = begin("collect", number)
        env = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        code, err = processes.run("collect", Path(words[1]), Path(words[-1]), env=env)
        assert code == 0, err
        found.append(fingerprints(untouched, Path(words[-1]), "collect"))
        ledger.count(kind, [name for name in found[0] if found[0][name] != found[-1][name]])
    assert not ledger.lost(kind)


@pytest.mark.parametrize(
    "kills", [pytest.param(2, marks=pytest.mark.slow), pytest.param(25, marks=FULL)]
)
@pytest.mark.parametrize("verb", VERBS)
def test_kills_at_random_moments_lose_nothing(untouched, begin, ledger, verb, kills):
    killer, kind = Killer(seed=kills), f"kill -9 at a random moment of {verb}"
    words = begin(verb, -1)
    seconds = killer.run(verb, words)

    def trial(number: int) -> tuple[int, object]:
        words = begin(verb, number)
        hits = killer.run_with_kills(verb, words, 0.9 * seconds, 3)
        return hits, lost(untouched, verb, words, killer)

    campaign(ledger, kind, kills, trial)
    assert not ledger.lost(kind)


@pytest.mark.parametrize(
    "kills", [pytest.param(2, marks=pytest.mark.slow), pytest.param(25, marks=FULL)]
)
def test_kills_at_random_moments_of_a_collection_on_minigrid_lose_nothing(
    obstacles, tmp_path, ledger, kills
):
    killer, kind = Killer(seed=kills), "kill -9 at a random moment of a collection on MiniGrid"
    config_path = Path(obstacles.root) / "logs" / obstacles.name / "config.yaml"

    def begin(number: int) -> list[str]:
        (tmp_path / str(number)).mkdir()
        return ["--config_path", str(config_path), "--root", str(tmp_path / str(number))]

    seconds = killer.run("collect", begin(-1))

    def trial(number: int) -> tuple[int, object]:
        words = begin(number)
        hits = killer.run_with_kills("collect", words, 0.9 * seconds, 3)
        return hits, lost(obstacles, "collect", words, killer)

    campaign(ledger, kind, kills, trial)
    assert not ledger.lost(kind)


@pytest.mark.parametrize("every", [29, pytest.param(1, marks=FULL)])
@pytest.mark.parametrize("verb", VERBS)
def test_a_kill_before_any_change_of_files_loses_nothing(
    untouched, begin, ledger, tmp_path, verb, every
):
    killer, kind = Killer(seed=0), f"kill -9 before a rename, removal or new folder of {verb}"
    words = begin(verb, 0)
    log = tmp_path / "changes"
    points = killer.changes(verb, words, Crash(Path(words[-1]), log))
    assert any("os.rename" in point for point in points)
    for number in range(1 + every // 2, len(points) + 1, every):
        words = begin(verb, number)
        killer.changes(verb, words, Crash(Path(words[-1]), log, number))
        ledger.count(kind, lost(untouched, verb, words, killer))
    assert not ledger.lost(kind)
