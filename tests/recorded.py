"""What sources record, and the checks that tests of several sources share."""

import numpy as np

from ad.collection.collect import collect
from ad.data.histories import HistoryStore
from ad.runtime.run import Run
from ad.sources.actors import CHUNK_STEPS


def played(source, steps: int) -> dict[str, np.ndarray]:
    """Return the transitions of `source` up to `steps` steps, arrays [T, K, N, ...] by field."""
    chunks = [chunk.arrays for chunk in source.run(steps)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def assert_a_restored_source_has_the_same_bits(one, other) -> None:
    """Restore `other` from `one` after its first chunk, and compare what both record after it."""
    steps = CHUNK_STEPS + 40
    chunks = one.run(steps)
    next(chunks)
    other.restore(one.state())
    for expected, chunk in zip(chunks, other.run(steps), strict=True):
        for name, values in expected.arrays.items():
            np.testing.assert_array_equal(chunk.arrays[name], values)
        for name, values in expected.statistics.items():
            np.testing.assert_array_equal(chunk.statistics[name], values)


def assert_a_missing_history_comes_back_with_the_same_bytes(run: Run) -> None:
    """Collect five histories, remove the files of one, and collect it again."""
    assert collect(run) == 5
    folder = HistoryStore(run.config).folder(run.split.train_tasks[2])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    assert collect(run) == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
