"""The page of the analyses: it is whole, stands alone, and says what it leaves out."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from ad.cli import VERBS
from ad.interpret import page
from ad.interpret.labeled import LabeledArray, intervals, load, save
from ad.interpret.page import page_data, write_page
from ad.registry import ANALYSES
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


def test_a_section_has_its_table_and_an_array_its_interval(inspected):
    (section, _) = embedded(inspected)["sections"]
    assert section["title"] == ANALYSES.load("attention").__doc__
    assert section["about"][0].startswith("Attention by relation: how much of each head's")
    table = ANALYSES.load("attention")().table(load(inspected.folder / "inspect" / "attention"))
    assert section["table"] == {"header": table.header, "rows": table.rows}
    results = load(inspected.folder / "inspect" / "attention")
    scores = next(array for array in section["arrays"] if array["name"] == "scores")
    assert intervals(results) == {"scores": "interval"} and scores["interval"] == "interval"
    for bound in ("low", "high"):
        expected = results["interval"].at(bound=bound).flatten()
        np.testing.assert_allclose(np.array(scores[bound], float), expected, rtol=1e-3)


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


def test_the_largest_arrays_are_left_to_their_files(inspected, monkeypatch):
    def sizes(data):
        arrays = [array for section in data["sections"] for array in section["arrays"]]
        return {array["name"]: len(json.dumps(array.get("values", []))) for array in arrays}

    whole = sizes(page_data(inspected, {}))
    largest = max(whole, key=whole.get)
    monkeypatch.setattr(page, "MOST_CHARACTERS", sum(whole.values()) * 3 // 4)
    kept = sizes(page_data(inspected, {}))
    assert kept.keys() == whole.keys() and kept[largest] == 2
    assert sum(size > 2 for size in kept.values()) > len(kept) / 2


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


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not on PATH")
def test_a_browser_draws_every_array_without_an_error(changed, tmp_path):
    odd = {
        "number": LabeledArray(np.array(1.5), {}, "a number"),
        "unknown": LabeledArray(np.full((2, 3), np.nan), {"x": [1, 2], "y": [1, 2, 3]}, "NaN"),
        "empty": LabeledArray(np.zeros((0, 2)), {"x": [], "y": [1, 2]}, "no numbers"),
        "constant": LabeledArray(np.zeros(3), {"episode": [1, 2, 3]}, "zeros"),
        "large": LabeledArray(np.eye(200), {"x": list(range(200)), "y": list(range(200))}, "ones"),
    }
    add_arrays(changed, odd)
    address = (changed.folder / "inspect" / "index.html").as_uri()
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    options += ["--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom"]
    done = subprocess.run(
        ["chromium", *options, f"{address}#all"], capture_output=True, text=True, timeout=120
    )
    assert "CONSOLE" not in done.stderr
    arrays = re.findall(r"<details.*?</details>", done.stdout, re.DOTALL)
    assert len(arrays) == sum(len(section["arrays"]) for section in embedded(changed)["sections"])
    empty = [array for array in arrays if "<svg" not in array and "<table" not in array]
    assert len(empty) == 2 and all("No number is known." in array for array in empty)
