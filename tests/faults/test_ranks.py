"""A data-parallel training of which a process is killed: the same command resumes, no bit lost."""

import signal
from contextlib import suppress

import numpy as np
import pytest
import ranks
from conftest import SMOKE
from killing import campaign
from training_run import SHORT, assert_same_bits, log, words_of

from ad.runtime.run import Run

STEPS = 60
SETTINGS = SHORT | {
    "training.steps": str(STEPS),
    "training.eval_every": str(STEPS),
    "training.keep_every": "3",
    "training.process_timeout": "5",
}


@pytest.mark.parametrize(
    "kills", [pytest.param(1, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.faults)]
)
def test_a_rank_that_is_killed_at_a_random_moment_loses_nothing(collected, tmp_path, ledger, kills):
    kind, rng = "kill -9 of a rank of a data-parallel training", np.random.default_rng(kills)

    def begin(name: str) -> tuple[Run, list[str]]:
        config = collected(f"{name}-of-{kills}", *words_of(SETTINGS))
        source = config.source
        fixed = {"config_path": SMOKE, "root": config.root, "device": "cpu", "threads": 1}
        fixed |= {"name": config.name, "source.algorithm": source.algorithm}
        return Run(config), words_of(fixed | {"source.env_steps": source.env_steps} | SETTINGS)

    def start(words: list[str], name: str) -> ranks.Ranks:
        return ranks.start(words, tmp_path / name)

    untouched, words = begin("untouched")
    assert start(words, "untouched").end()[0] == [0, 0]

    def trial(number: int) -> tuple[int, object]:
        run, words = begin(str(number))
        processes, victim = start(words, f"{number}-killed"), int(rng.integers(2))
        begun = run.folder / "checkpoints" / f"step_{3 * int(rng.integers(1, STEPS // 3)):07d}.json"
        processes.wait_for(begun)
        processes.processes[victim].join(rng.uniform(0, 0.1))
        processes.signal(signal.SIGKILL, victim)
        codes, output = processes.end()
        hits = int(codes[victim] == -signal.SIGKILL)
        other = codes[1 - victim]
        damage = [] if other in (0, 3) and "Traceback" not in output else [output]
        codes, output = start(words, f"{number}-resumed").end()
        damage += [] if codes == [0, 0] else [output]
        damage += [] if log(run) == log(untouched) else ["log"]
        with suppress(AssertionError):
            assert_same_bits(untouched, run)
            return hits, damage
        return hits, [*damage, "weights"]

    campaign(ledger, kind, kills, trial)
    assert not ledger.lost(kind)
