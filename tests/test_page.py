"""The page of the analyses: it is whole, stands alone, and says what it leaves out."""

import json
import re
import shutil

import numpy as np
import pytest

from ad.cli import VERBS
from ad.interpret.labeled import LabeledArray, load, save
from ad.interpret.page import page_data, write_page
from ad.runtime.run import Run


@pytest.fixture(scope="module")
def inspected(whole, experiment) -> Run:
    """A run with a page of two analyses; tests only read its arrays."""
    run = copied(whole, experiment)
    words = ["--config_path", str(run.folder / "config.yaml"), "--name", run.config.name]
    VERBS["analyze"]([*words, "--analyses", "attention,static"])
    return run


@pytest.fixture
def changed(inspected, experiment) -> Run:
    """A copy of it, which tests may change."""
    return copied(inspected, experiment)


def copied(run: Run, experiment) -> Run:
    """A copy of a run under another name."""
    copy = Run.open(experiment(training__precision="float32"))
    shutil.copytree(run.folder, copy.folder, dirs_exist_ok=True)
    return copy


def embedded(run: Run) -> dict:
    """The data in the page of a run."""
    text = (run.folder / "inspect" / "index.html").read_text()
    return json.loads(re.search(r'id="data">(.*)</script>', text)[1])


def test_every_array_of_every_analysis_is_on_the_page(inspected):
    sections = {section["name"]: section for section in embedded(inspected)["sections"]}
    assert list(sections) == ["attention", "static"]
    for name, section in sections.items():
        results = load(inspected.folder / "inspect" / name)
        shown = {array["name"]: array for array in section["arrays"]}
        assert {*shown, *(array.get("interval") for array in shown.values())} - {None} == {*results}
        for array_name, array in shown.items():
            values = np.array(array["values"], float)
            expected = results[array_name].values.flatten()
            np.testing.assert_allclose(values, np.float64(expected), rtol=1e-3)
            assert [axis for axis, _ in array["axes"]] == list(results[array_name].axes)


def test_the_page_is_small_and_needs_no_other_file(inspected):
    text = write_page(inspected, {}).read_text()
    assert len(text.encode()) < 10_000_000
    assert set(re.findall(r"https?://[^\"' ]*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link|<img|<iframe|<script[^>]* src|url\(|@import|fetch\(", text)
    assert write_page(inspected, {}).read_text() == text  # the same files give the same page


def test_the_page_says_what_it_leaves_out_and_why(changed):
    folder = changed.folder / "inspect"
    about = json.loads((folder / "attention.json").read_text())
    (folder / "attention.json").write_text(json.dumps(about | {"checkpoint": "another"}))
    (folder / "static.json").write_text("{")
    (folder / "unknown.json").write_text(json.dumps({"arrays": {}}))
    data = page_data(changed, {"probes": "scikit-learn is missing"})
    assert data["sections"] == []
    reasons = {sentence.split()[0]: sentence for sentence in data["left_out"]}
    assert "scikit-learn is missing" in reasons["probes"] and "not been run" in reasons["lens"]
    assert "another training" in reasons["attention"]
    assert all("--fresh true" in reasons[name] for name in ("static", "unknown"))


def add_arrays(run: Run, arrays: dict[str, LabeledArray]) -> None:
    """Add arrays to those of the analysis attention, and write the page."""
    path = run.folder / "inspect" / "attention"
    results, about = load(path), json.loads(path.with_suffix(".json").read_text())
    del about["arrays"]
    save(path, results | arrays, about)
    write_page(run, {})


def test_what_is_not_finite_is_unknown_and_no_text_ends_the_script(changed):
    labels = ["</script>", "b", "c"]
    values = np.array([1.23456, np.nan, -np.inf])
    add_arrays(changed, {"odd": LabeledArray(values, {"x": labels}, "numbers")})
    odd = embedded(changed)["sections"][0]["arrays"][-1]
    assert odd["values"] == [1.235, None, None] and odd["axes"] == [["x", labels]]
