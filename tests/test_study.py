"""The study: which runs it needs, that it resumes where it was, and what its page says."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from processes import ONE_THREAD, ROOT

from ad.config.schema import diff
from ad.errors import ConfigError, CorruptError
from ad.runtime.locks import locked
from ad.sweeps.planned import BASE, group_by_experiment, group_by_training, shard
from ad.sweeps.records import COLUMNS, SECONDS, TEXT, add_records, read_records
from ad.sweeps.runs import make, run_missing, train_side_by_side
from ad.sweeps.study.plan import Study, load_study
from ad.sweeps.study.report import make_page, page, question_table, score_cell, sentence
from ad.sweeps.study.verdicts import StudyResults, contradictions, study_results
from envs.tasks import PUBLISHED_SEEDS

STUDIES = ("study", "study_obstacles")
TINY = {
    "experiment": str(ROOT / "configs/smoke.yaml"),
    "settings": {
        "device": "cpu",
        "threads": 1,
        "source.algorithm": "noise_distillation",
        "source.env_steps": 800,
        "data.context_length": 16,
        "training.steps": 150,
        "training.eval_every": 150,
        "training.eval_episodes": 1,
        "evaluation.eval_seeds": 1,
        "evaluation.temperature": 1.0,
    },
    "seeds": [0, 1],
    "questions": ["encoder", "temperature"],
}
ENCODER = {
    "question": "Which encoder?",
    "change": "model.encoder",
    "values": ["table", "factored"],
    "worse": ["table"],
}
TEMPERATURE = {"question": "How hot?", "change": "evaluation.temperature", "values": [1.0, 2.0]}


def write_study(folder: Path, **files: dict) -> Path:
    """A folder with a small study; `files` take the place of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"study": TINY, "encoder": ENCODER, "temperature": TEMPERATURE} | files
    for name, data in content.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(data))
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """The folder of a small study that has no records."""
    return write_study(tmp_path / "study")


@pytest.fixture(scope="module")
def committed() -> Study:
    """The study of configs/study."""
    return load_study(ROOT / "configs/study")


def start(folder: Path, *words: str) -> subprocess.Popen:
    """python -m scripts.study on `folder`, whose runs lie in `runs` beside it."""
    fixed = ["--folder", str(folder), "--root", str(folder.parent / "runs")]
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.study", *fixed, *words],
        cwd=ROOT,
        env=os.environ | ONE_THREAD,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(folder: Path, *words: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of such a process."""
    process = start(folder, *words)
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err


def fill(
    study: Study, scores: dict[str, list[float]], question: int = 0, score="nauc", **more: float
) -> None:
    """Write records with these values of a score for the values of a question, one a seed."""
    for name, values in scores.items():
        for seed, value in zip(study.seeds, values, strict=False):
            planned = study.planned_run(study.questions[question].variants[name], seed)
            record = dict.fromkeys(COLUMNS) | dict.fromkeys(TEXT, "x")
            record |= {"key": planned.key, "changed": planned.changed, "train_seed": seed}
            record |= {"split_seed": 0, "source_seed": 0, "world": ""}
            record |= {"train_steps": planned.config.training.steps, score: value, "train_s": 10.0}
            add_records(study.records, [record | more])


def found(study: Study) -> StudyResults:
    """Return what the records of the study say."""
    return study_results(study, read_records(study.records))


def test_a_question_changes_one_thing_in_the_base_experiment(committed):
    alone = [question for question in committed.questions if question.config.change]
    assert len(alone) > 10
    for question in alone:
        base = question.variants[question.reference(committed.base)]
        changed = [diff(base, config) for config in question.variants.values()]
        assert {path for change in changed for path in change} == {question.config.change}
        assert question.config.base or not diff(committed.base, base)


def test_the_committed_study_has_three_seeds_and_no_published_split(committed):
    assert len(committed.seeds) >= 3 and committed.base.split.tuning
    assert committed.base.source.source_seed not in PUBLISHED_SEEDS


def test_a_run_of_several_questions_is_one_run(committed):
    runs = committed.planned_runs()
    assert sum(planned.changed == BASE for planned in runs) == len(committed.seeds)
    assert len({planned.key for planned in runs}) == len(runs)
    asked = {
        committed.planned_run(config, seed).key
        for question in committed.questions
        for config in question.variants.values()
        for seed in committed.seeds
    }
    assert {planned.key for planned in runs} == asked


def test_runs_that_differ_in_evaluation_only_share_a_training(folder):
    study = load_study(folder)
    trainings = group_by_training(study.planned_runs())
    groups = [[planned.changed for planned in training] for training in trainings]
    assert groups == 2 * [["model.encoder=table"], [BASE, "evaluation.temperature=2"]]


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_shards_share_out_all_trainings(committed, parts):
    runs = committed.planned_runs()
    shards = [shard(runs, part, parts) for part in range(1, parts + 1)]
    assert sorted(t.key for part in shards for t in part) == sorted(t.key for t in runs)
    folders = [{planned.config.name for planned in part} for part in shards]
    assert sum(map(len, folders)) == len(set().union(*folders))


def test_questions_and_seeds_can_be_chosen(folder):
    runs = load_study(folder, ["encoder"], [7]).planned_runs()
    assert [planned.config.training.train_seed for planned in runs] == [7, 7]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"encoder": ENCODER | {"values": ["table", "factored", "offset"]}},
            "did you mean offsets?",
        ),
        ({"encoder": ENCODER | {"change": "model.encodr"}}, "is not a setting"),
        ({"encoder": ENCODER | {"better": ["offsets"]}}, "of table once at most, not offsets"),
        ({"encoder": ENCODER | {"better": ["factored"]}}, "of table once at most, not factored"),
        ({"encoder": ENCODER | {"better": ["table"]}}, "of table once at most, not table"),
        ({"encoder": ENCODER | {"better": "table"}}, "must be a list"),
        ({"encoder": ENCODER | {"values": ["table", "table"]}}, "the same run"),
        ({"encoder": ENCODER | {"values": []}}, "either change and values, or variants"),
        ({"encoder": ENCODER | {"valeus": []}}, "did you mean values?"),
        ({"encoder": {"question": "?", "variants": {"x": 3}}}, "must be a group of settings"),
        ({"study": TINY | {"questions": ["enc"]}}, "there is no file"),
        ({"study": TINY | {"experiment": "nowhere.yaml"}}, "there is no file nowhere.yaml"),
        ({"study": TINY | {"seeds": [0, 0]}}, "each once"),
    ],
)
def test_a_study_that_is_wrong_is_one_sentence(tmp_path, files, sentence):
    with pytest.raises(ConfigError) as caught:
        load_study(write_study(tmp_path / "study", **files))
    assert sentence in str(caught.value).replace('"', "'")


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    wrong = {"question": "?", "change": "model.width", "values": [0, 2.5]}
    questions = TINY | {"questions": ["encoder", "width"]}
    bad = ENCODER | {"better": ["offsets"]}
    with pytest.raises(ConfigError) as caught:
        load_study(write_study(tmp_path / "study", study=questions, width=wrong, encoder=bad))
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--questions", "encodr"], "did you mean encoder?"),
        (["--seeds", "1,x"], "--seeds must be"),
        (["--shard", "3/2"], "--shard must be"),
    ],
)
def test_a_wrong_option_ends_with_2_before_anything_runs(folder, words, sentence):
    code, out, err = run(folder, *words)
    assert (code, out, err.count("\n")) == (2, "", 1) and sentence in err
    assert not (folder.parent / "runs").exists() and not (folder / "README.md").exists()


def test_records_come_back_as_they_were_written(folder):
    study = load_study(folder)
    fill(study, {"table": [0.125, 0.5]}, path_ratio_last10=1.25)
    records = read_records(study.records)
    assert [record["nauc"] for record in records.values()] == [0.125, 0.5]
    first = records[study.planned_runs()[0].key]
    assert (first["path_ratio_last10"], first["success_last10"], first["torch"]) == (
        1.25,
        None,
        "x",
    )
    before = study.records.read_bytes()
    add_records(study.records, [first])
    assert study.records.read_bytes() == before


@pytest.mark.parametrize("text", ["", "key,nauc\n", ",".join(COLUMNS) + "\nx,y\n"])
def test_records_that_were_cut_off_are_refused(folder, text):
    path = folder / "study.csv"
    path.write_text(text)
    with pytest.raises(CorruptError, match=r"study\.csv"):
        read_records(path)


def test_a_file_of_records_without_a_column_that_was_added_later_can_be_read(tmp_path):
    path = tmp_path / "study.csv"
    record = dict.fromkeys(COLUMNS) | dict.fromkeys(TEXT, "x")
    record |= {"split_seed": 0, "train_seed": 0}
    add_records(path, [record | {"random_return": 0.5}])
    column = COLUMNS.index("random_return")
    lines = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("".join(",".join(line[:column] + line[column + 1 :]) + "\n" for line in lines))
    assert read_records(path) == {"x": record}


def test_a_study_can_compare_values_by_another_score(tmp_path):
    folder = write_study(tmp_path / "study", study=TINY | {"score": "return_last10"})
    study = load_study(folder)
    fill(study, {"table": [0.1, 0.2], "factored": [0.8, 0.9]}, score="return_last10")
    results = found(study)
    assert results.comparisons["encoder"]["table"].verdict == "worse"
    table = question_table(study, study.questions[0], results)
    assert table.header[-1] == "return, last 10 minus that of factored"
    assert "NAUC" not in table.header
    assert "one standard deviation of return, last 10" in " ".join(
        page(study, read_records(study.records), results).split()
    )
    with pytest.raises(ConfigError, match="score"):
        load_study(write_study(tmp_path / "other", study=TINY | {"score": "speed"}))


def test_the_table_has_intervals_of_the_pooled_deviation_for_nauc(folder):
    study = load_study(folder, ["encoder"], [0, 1, 2])
    fill(study, {"table": [0.2, 0.4, 0.6]}, success_last10=0.5)
    fill(study, {"factored": [0.9, 0.9, 0.9]}, success_last10=0.5)
    table = question_table(study, study.questions[0], found(study))
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    # s = sqrt((0.08 + 0) / 4) = 0.14142, t(0.975, 4) = 2.77645, half = t s / sqrt(3) = 0.22669
    assert [row["NAUC"] for row in rows] == ["0.400 [0.173, 0.627]", "0.900 [0.673, 1.127]"]
    assert [row["success, last 10"] for row in rows] == ["0.500 [0.500, 0.500]"] * 2
    assert [row["seeds"] for row in rows] == ["0, 1, 2", "0, 1, 2"]
    assert [row["model.encoder"] for row in rows] == ["table", "**factored**"]
    # half = t s sqrt(2 / 3) = 0.32060, p of t = 0.5 / 0.11547 = 4.33013 with 4 degrees of freedom
    against = [row["NAUC minus that of factored"] for row in rows]
    assert against == ["-0.500 [-0.821, -0.179], p 0.012", "–"]


@pytest.mark.parametrize(
    ("table", "verdict"),
    [
        ([0.2, 0.21, 0.22], "Worse than factored: table."),
        ([0.65, 0.5, 0.8], "Not told apart from factored: table."),
        ([0.9, 0.91, 0.92], "Better than factored: table."),
        ([], "**Missing**: table."),
    ],
)
def test_the_sentence_follows_from_the_corrected_p_value(folder, table, verdict):
    study = load_study(folder, seeds=[0, 1, 2])
    fill(study, {"table": table, "factored": [0.7, 0.71, 0.72]})
    assert sentence(study, study.questions[0], found(study)) == verdict


def test_the_deviation_is_pooled_over_all_questions_with_each_experiment_once(folder):
    study = load_study(folder)
    fill(study, {"table": [0.1, 0.2], "factored": [0.5, 0.7]})  # factored is also temperature 1
    fill(study, {"2": [0.3, 0.6]}, question=1)
    pooled = found(study).pooled
    assert pooled.freedom == 3
    assert math.isclose(pooled.deviation, math.sqrt((0.01 + 0.04 + 0.09) / 2 / 3), rel_tol=1e-6)


def test_the_p_values_of_all_questions_are_corrected_together(folder):
    study = load_study(folder, seeds=[0, 1, 2])
    fill(study, {"table": [0.5, 0.6, 0.7], "factored": [0.7, 0.8, 0.9]})
    alone = found(study).comparisons["encoder"]["table"]
    assert 0.05 < alone.p < 0.1
    fill(study, {"2": [0.81]}, question=1)
    both = found(study).comparisons
    assert both["temperature"]["2"].p > both["encoder"]["table"].p
    assert math.isclose(both["encoder"]["table"].p, 2 * alone.p, rel_tol=1e-9)
    assert both["encoder"]["table"].bounds == alone.bounds


def test_with_one_seed_in_all_settings_nothing_is_compared(folder):
    study = load_study(folder)
    fill(study, {"table": [0.3]}, nauc_low=0.29, nauc_high=0.31)
    fill(study, {"factored": [0.6]}, nauc_low=0.5, nauc_high=0.7)
    results = found(study)
    comparison = results.comparisons["encoder"]["table"]
    assert (results.pooled, comparison.verdict, str(comparison)) == (None, None, "-0.300")
    assert results.values["encoder"]["table"].estimate("nauc") == (0.3, (0.29, 0.31))
    assert sentence(study, study.questions[0], results) == ""
    make_page(folder)
    text = (folder / "README.md").read_text()
    assert "no values are compared" in " ".join(text.split()) and "(2 runs missing)" in text


def test_a_value_with_one_seed_is_compared_by_the_deviation_of_the_others(folder):
    study = load_study(folder)
    fill(study, {"table": [0.30, 0.31]})
    fill(study, {"factored": [0.6]}, nauc_low=0.5, nauc_high=0.7)
    comparison = found(study).comparisons["encoder"]["table"]
    half = 12.7062 * math.sqrt(5e-5 * 1.5)
    assert math.isclose(comparison.bounds[1] + 0.295, half, rel_tol=1e-4)
    assert comparison.verdict == "worse"


@pytest.mark.parametrize("name", STUDIES)
def test_the_committed_files_state_the_verdicts_of_the_records(name):
    study = load_study(ROOT / "configs" / name)
    assert not (said := contradictions(study, found(study))), "\n".join(said)


@pytest.mark.parametrize("name", STUDIES)
def test_the_committed_page_is_that_of_the_records(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = load_study(Path("configs") / name)
    text = page(study, read_records(study.records), found(study))
    assert text == (study.folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("stated", "table", "says"),
    [
        ({"worse": ["table"]}, [0.2, 0.21, 0.22], None),
        ({"worse": []}, [0.2, 0.21, 0.22], "the records say\nbetter: []\nworse: [table]"),
        ({"worse": ["table"]}, [0.6, 0.7, 0.8], "the records say\nbetter: []\nworse: []"),
        (
            {"worse": ["table"]},
            [0.9, 0.91, 0.92],
            "the records say\nbetter: [table]\nworse: []",
        ),
        ({"worse": ["table"]}, [0.2, 0.21], "1 of its runs have no record"),
    ],
)
def test_a_verdict_that_the_records_contradict_is_found(folder, stated, table, says):
    write_study(folder, encoder=ENCODER | stated)
    study = load_study(folder, ["encoder"], [0, 1, 2])
    fill(study, {"table": table, "factored": [0.7, 0.71, 0.72]})
    expected = [f"{folder / 'encoder.yaml'}: {says}"] if says else []
    assert contradictions(study, found(study)) == expected


def test_the_page_of_a_whole_study_warns_of_verdicts_that_the_records_contradict(folder, capsys):
    study = load_study(folder)
    fill(study, {"table": [0.90, 0.91], "factored": [0.70, 0.71]})
    make_page(folder)
    assert capsys.readouterr().err == ""  # two runs are missing
    fill(study, {"2": [0.70, 0.71]}, question=1)
    make_page(folder)
    warning = f"warning: {folder / 'encoder.yaml'}: the records say\nbetter: [table]\nworse: []\n"
    assert capsys.readouterr().err == warning


def test_the_verdicts_of_the_records_can_be_pasted_into_the_file(folder):
    change = {"change": "training.learning_rate", "values": [1e-5, 1e-3, 0.1]}
    path = write_study(folder, encoder={"question": "?", **change}) / "encoder.yaml"
    study = load_study(folder, ["encoder"])
    fill(study, {"1e-05": [0.20, 0.21], "0.001": [0.70, 0.71], "0.1": [0.90, 0.91]})
    (text,) = contradictions(study, found(study))
    path.write_text(path.read_text() + text.split("\n", 1)[1])
    study = load_study(folder, ["encoder"])
    assert not contradictions(study, found(study))


def test_a_missing_seed_is_named_and_a_record_of_another_budget_not_counted(folder, tmp_path):
    study = load_study(folder)
    longer = TINY | {"settings": TINY["settings"] | {"training.steps": 200}}
    other = load_study(write_study(tmp_path / "longer", study=longer))
    fill(study, {"table": [0.5]})
    for record in read_records(study.records).values():
        add_records(other.records, [record])
    assert found(study).values["encoder"]["table"].missing == [1]
    assert found(other).values["encoder"]["table"].missing == [0, 1]
    table = question_table(study, study.questions[0], found(study))
    assert [row[1] for row in table.rows] == ["0 (missing: 1)", "(missing: 0, 1)"]


def test_a_page_without_records_says_so(folder):
    make_page(folder)
    assert "0 of 6 runs" in " ".join((folder / "README.md").read_text().split())
    assert not list(folder.glob("*.png"))


def test_an_answer_in_words_stands_under_its_question(folder):
    path = folder / "encoder.yaml"
    path.write_text(path.read_text() + "answer: Rows and columns apart, by far.\n")
    make_page(folder)
    text = (folder / "README.md").read_text()
    assert "Rows and columns apart, by far." in text.split("## encoder")[1].split("\n## ")[0]


def test_a_lock_can_be_waited_for(tmp_path):
    taken = []

    def wait():
        with locked(tmp_path / "x", wait=True):
            taken.append("second")

    other = threading.Thread(target=wait)
    with locked(tmp_path / "x"):
        other.start()
        time.sleep(0.3)  # long enough to look at the lock once
        taken.append("first")
    other.join(60)
    assert taken == ["first", "second"]


def test_a_list_of_the_runs_makes_none(folder):
    code, out, _ = run(folder, "--status", "true")
    assert code == 0 and out.splitlines()[-1] == "study: 6 of 6 runs are missing"
    assert not (folder.parent / "runs").exists()


def scores(folder: Path) -> dict[str, dict]:
    """Return the records of the study in `folder` without the seconds that they took."""
    found = read_records(load_study(folder).records)
    return {key: {n: r[n] for n in r if n not in SECONDS} for key, r in found.items()}


def test_an_interrupted_study_resumes_its_run_to_the_same_records(folder, tmp_path):
    process, runs = start(folder, "--keep", "true"), folder.parent / "runs"
    while not list(runs.glob("logs/*/checkpoints/step_*.pt")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130 and "run the same command to resume" in err
    assert not scores(folder)
    (half,) = runs.glob("logs/*/checkpoints")
    steps = max(half.glob("step_*.pt")).stem

    code, _, err = run(folder, "--keep", "true")
    assert code == 0, err
    text = (half.parent / "sessions.json").read_text()
    assert f'"from_step": {int(steps.removeprefix("step_"))}' in text

    whole = write_study(tmp_path / "again" / "study")
    study, runs = load_study(whole), tmp_path / "again" / "runs"
    run_missing(study.records, study.planned_runs(), runs)
    assert len(scores(folder)) == 6 and scores(folder) == scores(whole)
    assert not list((runs / "logs").glob("*"))  # each was removed once it had its record


def test_trainings_of_an_experiment_differ_in_their_training_seeds_alone(folder):
    study = load_study(folder)
    groups = group_by_training(study.planned_runs())
    found = group_by_experiment(groups)
    assert sorted(g[0].config.name for family in found for g in family) == sorted(
        group[0].config.name for group in groups
    )
    seeds = [[group[0].config.training.train_seed for group in family] for family in found]
    assert seeds == [study.seeds] * len(found) and len(study.seeds) > 1
    for family in found:
        assert len({group[0].changed for group in family}) == 1


@pytest.mark.slow  # twelve runs; test_multi_seed.py compares single trainings
def test_seeds_that_train_side_by_side_give_the_records_of_each_alone(folder, tmp_path):
    study, found = load_study(folder), []
    for name in ("together", "alone"):
        whole = load_study(write_study(tmp_path / name / "study"))
        missing, root = group_by_training(whole.planned_runs()), tmp_path / name / "runs"
        path = whole.records
        ready = train_side_by_side(path, missing, root) if name == "together" else missing
        for group in ready:
            for planned in group:
                make(path, planned, root)
        found.append(scores(whole.folder))
    assert found[0] == found[1] and len(found[0]) == len(study.planned_runs())


def test_the_page_is_made_from_the_records_alone(folder):
    fill(load_study(folder), {"table": [0.11, 0.12], "factored": [0.74, 0.76]}, success_fifth_1=0.5)
    code, out, err = run(folder, "--table", "true")
    assert code == 0, err
    assert "4 of 6 runs" in out
    text = (folder / "README.md").read_text()
    assert "Worse than factored: table." in text and "**Missing**: 2." in text
    assert "| [encoder](#encoder) | factored: 0.750 [" in text and "] | – | table | – |" in text
    assert "| [temperature](#temperature) (2 runs missing) | 1: 0.750 [" in text
    assert "![encoder](encoder.png)" in text and (folder / "encoder.png").stat().st_size > 5_000
    assert not (folder.parent / "runs").exists()


def test_a_score_that_not_every_seed_has_says_how_many(folder):
    study = load_study(folder)
    fill(study, {"table": [0.1, 0.2]})
    first = next(iter(read_records(study.records).values()))
    add_records(study.records, [first | {"path_ratio_last10": 1.5}])
    assert (
        score_cell(found(study).values["encoder"]["table"], "path_ratio_last10") == "1.50 (1 of 2)"
    )
