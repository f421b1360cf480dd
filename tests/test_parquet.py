"""Histories as parquet: rows, episodes, the card and Croissant, and arrays larger than a group."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from exchanged import collected_run, histories, imported, work_in

from ad.cli import VERBS, exit_code
from ad.exchange import parquet as own
from ad.exchange.export import export_histories
from ad.exchange.formats import new_format

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    return work_in(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def run(smoke, tmp_path_factory):
    return collected_run(smoke, tmp_path_factory.mktemp("collected"))


def test_a_row_is_a_transition_sorted_by_task_actor_and_step(run, root, monkeypatch):
    monkeypatch.setattr(own, "ROWS", 7)  # of 30 transitions: groups of 7, 7, 7, 7 and 2
    export_histories(run, "parquet", "data set")
    rows = parquet.read_table(root / "data set/data")
    before = histories(run)
    place = np.array([rows[name] for name in ("task", "actor", "step")])
    np.testing.assert_array_equal(place, np.indices((3, 3, 30)).reshape(3, -1))
    for name in before[0]:
        wanted = np.concatenate([each[name].reshape(-1) for each in before])
        found = rows[name].to_numpy()
        assert (found.dtype, found.tobytes()) == (wanted.dtype, wanted.tobytes())
    back = imported("parquet", "data set", root)
    for wanted, found in zip(before, histories(back), strict=True):
        assert all(np.array_equal(wanted[name], found[name]) for name in wanted)


def test_the_table_of_episodes_has_their_place_and_return(run, root):
    export_histories(run, "parquet", "x")
    table = parquet.read_table(root / "x/episodes/train.parquet").to_pylist()
    rows = parquet.read_table(root / "x/data").to_pylist()
    place = ("task", "actor", "episode")
    for entry in (table[0], table[5], table[-1]):
        episode = [row for row in rows if all(row[name] == entry[name] for name in place)]
        assert (episode[0]["step"], len(episode)) == (entry["first_step"], entry["length"])
        assert sum(row["reward"] for row in episode) == entry["return"]
        assert episode[-1]["terminated"] == entry["terminated"]
    assert len(table) == sum(
        (each["terminated"] | each["truncated"]).sum() for each in histories(run)
    )


def test_files_of_other_tasks_are_refused(run, root, capsys):
    export_histories(run, "parquet", "x")
    first, second = sorted((root / "x/data").iterdir())[:2]
    first.rename(root / "kept")
    second.rename(first)
    (root / "kept").rename(second)
    words = ["--format", "parquet", "--from", "x", "--to", "mine.yaml", "--root", "."]
    assert exit_code(VERBS["import_histories"], words) == 4
    assert "has other tasks or actors" in capsys.readouterr().err
    parquet.write_table(parquet.read_table(first).replace_schema_metadata({}), first)
    assert exit_code(VERBS["import_histories"], words) == 2
    assert "export_histories did not write it" in capsys.readouterr().err


def test_the_card_and_the_benchmark_are_those_of_the_hub(run, root):
    from huggingface_hub import DatasetCard

    export_histories(run, "parquet", "x")
    card = DatasetCard.load(root / "x/README.md")
    for config in card.data.configs:
        assert list((root / "x").glob(config["data_files"]))
    assert card.data.size_categories == ["n<1K"]  # 3 tasks, 3 actors, 30 transitions
    tasks = yaml.safe_load((root / "x/eval.yaml").read_text())["tasks"]
    assert "nauc" in [task["id"] for task in tasks]
    assert new_format("parquet").open("x").contents.num_tasks == 3


def test_croissant_is_valid_and_reads_the_rows(run, root):
    croissant = pytest.importorskip("mlcroissant")
    export_histories(run, "parquet", "x")
    data = croissant.Dataset(jsonld=str(root / "x/croissant.json"))
    issues = data.metadata.ctx.issues
    assert not issues.errors and all("license" in text for text in issues.warnings)
    rows = list(data.records("transitions"))
    assert len(rows) == 3 * 3 * 30 and len(list(data.records("episodes"))) > 9
    content = json.loads((root / "x/croissant.json").read_text())
    assert sum(name.startswith("rai:") for name in content) == 8
