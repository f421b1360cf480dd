"""The measure `analysis`: what is kept of trained models, and the tables of it."""

import numpy as np
import pytest
from processes import ROOT
from sweeps import make, write_sweep

from ad.errors import ConfigError
from ad.interpret.labeled import LabeledArray
from ad.sweeps.analyses import AnalysisMeasure, findings_section, values_of
from ad.sweeps.pages import write_page
from ad.sweeps.plan import Sweep
from ad.sweeps.records import add_records, new_record, read_records

SMOKE = str(ROOT / "configs/smoke.yaml")
ATTENTION = {"analysis": "attention", "array": "scores"}
CONTENT = {
    "seeds": [0, 1],
    "heading": "model",
    "rows": {
        "small": {"experiment": SMOKE},
        "wide": {"experiment": SMOKE, "settings": {"model.width": 32}},
    },
    "tables": {
        "heads": {
            "models": ["small"],
            "analysis": "patching",
            "array": "head",
            "at": {"change": "no rewards"},
            "rows": "head",
            "strongest": 2,
        },
        "masses": {
            **ATTENTION,
            "models": ["small"],
            "at": {"relation": "rewarded"},
            "rows": "head",
            "strongest_of": "heads",
        },
        "all": {**ATTENTION, "models": ["small", "wide"], "rows": "relation", "columns": "head"},
        "by_seed": {**ATTENTION, "models": ["wide"], "at": {"head": "0.1"}, "rows": "relation"},
    },
}
HEADS, RELATIONS = ["0.0", "0.1"], ["itself", "rewarded"]


def without(*names: str, **tables: dict) -> dict:
    """Return the sweep without the tables `names`, and with other `tables`."""
    kept = {name: table for name, table in CONTENT["tables"].items() if name not in names}
    return {**CONTENT, "tables": kept | tables}


def results_of(head, scores) -> dict[str, LabeledArray]:
    """Arrays of two heads, as patching and attention return them."""
    head, scores = np.array([[0, 0], head], float), np.array(scores, float)
    axes = {"change": ["another task", "no rewards"], "head": HEADS}
    bounds = {"bound": ["low", "high"], **axes}
    return {
        "head": LabeledArray(head, axes, ""),
        "head_interval": LabeledArray(np.stack([head - 0.1, head + 0.1]), bounds, ""),
        "scores": LabeledArray(scores, {"head": HEADS, "relation": RELATIONS}, ""),
    }


def fill(sweep: Sweep, results: list[dict], model: str = "small") -> None:
    """Write the values of `results`, those of each seed of a model."""
    runs = next(cell.runs for cell in sweep.cells if cell.row == model)
    for run, own in zip(runs, results, strict=False):
        values = {
            name: {
                "analysis": table.analysis,
                "array": table.array,
                "values": values_of(table, own),
            }
            for name, table in sweep.tables.items()
            if model in table.models
        }
        add_records(sweep.records, [new_record(run, values=values)])


def rows(sweep: Sweep, name: str) -> list[list[str]]:
    (table,) = findings_section(sweep, name, read_records(sweep.records)).blocks
    return table.rows


def test_a_table_shows_the_strongest_rows_of_each_seed_and_another_follows_them(tmp_path):
    sweep = write_sweep(tmp_path, CONTENT)
    first = results_of([0.25, -0.5], [[0.1, 0.2], [0.3, 0.4]])
    fill(sweep, [first, results_of([0.75, 0.0], [[0.5, 0.6], [0.7, 0.8]])])
    assert rows(sweep, "heads") == [
        ["small", "1", "0.1: -0.50 [-0.60, -0.40]", "0.0: 0.75 [0.65, 0.85]"],
        ["small", "2", "0.0: 0.25 [0.15, 0.35]", "0.1: 0.00 [-0.10, 0.10]"],
    ]
    assert rows(sweep, "masses") == [
        ["small", "1", "0.1: 0.40", "0.0: 0.60"],
        ["small", "2", "0.0: 0.20", "0.1: 0.80"],
    ]


def test_columns_have_the_mean_over_the_seeds_and_its_interval(tmp_path):
    sweep = write_sweep(tmp_path, CONTENT)
    first = results_of([0, 0], [[0.1, 0.2], [0.3, 0.4]])
    fill(sweep, [first, results_of([0, 0], [[0.3, 0.2], [0.3, np.nan]])])
    assert rows(sweep, "all") == [
        ["small", "itself", "0.20 [-1.07, 1.47]", "0.30 [0.30, 0.30]"],
        ["small", "rewarded", "0.20 [0.20, 0.20]", "0.40"],
    ]
    only = {"all": CONTENT["tables"]["all"] | {"only": ["itself"]}}
    assert [row[1] for row in rows(write_sweep(tmp_path, without(**only)), "all")] == ["itself"]


def test_a_seed_that_is_missing_is_a_dash(tmp_path):
    sweep = write_sweep(tmp_path, CONTENT)
    fill(sweep, [results_of([0, 0], [[1, 2], [3, 4]])], "wide")
    assert rows(sweep, "by_seed") == [
        ["wide", "itself", "3.00", "–", "3.00"],
        ["wide", "rewarded", "4.00", "–", "4.00"],
    ]
    assert not rows(sweep, "heads")


def test_claims_are_counted_over_the_seeds_of_each_model(tmp_path):
    claim = {"analysis": "claims", "array": "effect", "holds": "holds", "rows": "claim"}
    words = {"a": ["It obeys.", "play", "ablation"], "b": ["It waits.", "play", "patching"]}
    table = {**claim, "models": ["small", "wide"], "columns": "test", "words": words}
    sweep = write_sweep(tmp_path, {**CONTENT, "seeds": [*range(5)], "tables": {"claims": table}})
    axes = {"claim": ["a", "b"], "test": ["own", "stronger"]}

    def of_seed(seed: int) -> dict[str, LabeledArray]:
        holds = np.array([[1, seed < 4], [seed < 2, seed < 1]], float)
        holds[1, 0] = np.nan if seed == 0 else holds[1, 0]
        effect = np.full((2, 2), 0.5)
        arrays = {"effect": effect, "holds": holds}
        return {name: LabeledArray(values, axes, "") for name, values in arrays.items()}

    fill(sweep, [of_seed(seed) for seed in range(5)])
    fill(sweep, [of_seed(0)], "wide")
    mean = "0.50 [0.50, 0.50]"
    assert rows(sweep, "claims") == [
        ["a", "It obeys.", "own", "play", f"holds: 5 of 5; {mean}", "holds: 1 of 1; 0.50"],
        ["", "", "stronger", "ablation", f"holds: 4 of 5; {mean}", "holds: 1 of 1; 0.50"],
        ["b", "It waits.", "own", "play", f"in part: 1 of 4; {mean}", "–"],
        ["", "", "stronger", "patching", f"does not: 1 of 5; {mean}", "holds: 1 of 1; 0.50"],
    ]


def test_models_are_trained_analyzed_and_shown_on_the_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- by_seed -->\n<!-- /by_seed -->\nafter\n")
    tables = {"by_seed": CONTENT["tables"]["by_seed"]}
    rows = {"wide": CONTENT["rows"]["wide"]}
    content = {**CONTENT, "tables": tables, "rows": rows, "seeds": [1], "page": str(page)}
    sweep = write_sweep(tmp_path, content)
    make(sweep, tmp_path / "root")
    assert not list((tmp_path / "root/logs").glob("wide*"))
    records = sweep.records.read_bytes()
    assert make(sweep, tmp_path / "root") == [] and sweep.records.read_bytes() == records
    write_page(sweep, tmp_path / "root")
    text = page.read_text()
    assert text.startswith("before") and text.endswith("after\n")
    assert "| wide | previous step | " in text and text.count("| wide | rewarded |") == 1


@pytest.mark.parametrize("entry", [{"array": "heads"}, {"at": {}}])
def test_a_table_that_does_not_fit_its_analysis_is_refused_before_any_run(tmp_path, entry):
    sweep = write_sweep(tmp_path, without("masses", heads=CONTENT["tables"]["heads"] | entry))
    with pytest.raises(ConfigError, match="heads"):
        AnalysisMeasure(sweep).check(sweep.planned_runs())


def test_a_table_that_is_wrong_is_refused(tmp_path):
    for entry in ({"models": ["smal"]}, {"columns": "kind"}):
        with pytest.raises(ConfigError, match="heads"):
            write_sweep(tmp_path, without("masses", heads=CONTENT["tables"]["heads"] | entry))
    with pytest.raises(ConfigError, match="one group"):
        write_sweep(tmp_path, {**CONTENT, "groups": {"first": {}, "second": {}}})
