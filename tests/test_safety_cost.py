"""What safety costs is measured over all verbs, and the measuring leaves nothing behind."""

from ad.data import manifest as manifests
from ad.data import store as histories
from ad.runtime import files
from scripts.safety_cost import SAFETY, VERBS, counting, measure


def test_every_verb_has_its_seconds_and_some_of_them_are_of_safety(smoke, tmp_path):
    functions = files.sha256, manifests.sha256, histories.HistoryWriter.flush
    measured = measure(smoke(tmp_path, "--source.algorithm", "noise_distillation"))
    assert tuple(measured) == VERBS
    assert all(0 < safety < seconds for seconds, safety in measured.values())
    assert (files.sha256, manifests.sha256, histories.HistoryWriter.flush) == functions
    assert list(tmp_path.iterdir()) == []


def test_a_call_within_a_call_is_counted_once(tmp_path):
    import ad.collection.collect
    import ad.training.trainer  # noqa: F401 - all that is counted must be there

    (tmp_path / "file").write_bytes(b"x")
    with counting() as clock:
        outer = clock.counted(lambda: files.sha256(tmp_path / "file"))
        files.sha256(tmp_path / "file")
        alone = clock.seconds
        assert alone > 0 and clock.depth == 0
        clock.depth = 1  # as if inside another one
        outer()
        assert clock.seconds == alone and clock.depth == 1
    assert len(SAFETY) == len(set(SAFETY))
