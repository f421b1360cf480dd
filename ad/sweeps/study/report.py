"""The page of a study, made from its records: a table, verdicts and a figure a question."""

from pathlib import Path
from textwrap import fill

import numpy as np

from ad.config.fields import label
from ad.evaluation.comparisons import BETTER, LEVEL, NOT_TOLD_APART, WORSE, pool
from ad.reporting.tables import UNKNOWN, Table, interval, number
from ad.runtime import console
from ad.runtime.console import info
from ad.runtime.files import atomic_write, write_text
from ad.runtime.locks import locked_files
from ad.sweeps.columns import SCORE_COLUMNS
from ad.sweeps.records import SECONDS, RunRecord, read_records
from ad.sweeps.study.plan import STUDY_FILE, Question, Study, load_study
from ad.sweeps.study.plots import question_picture
from ad.sweeps.study.verdicts import (
    StudyResults,
    ValueResults,
    contradictions,
    study_results,
    with_verdict,
)

SHOWN = (
    *("nauc", "success_last10", "first_success", "success_seen", "path_ratio_last10"),
    *("episodes_to_80pct", "train_nauc", "held_out_accuracy", "train_s"),
)
DEFAULT = Path("configs/study")  # the folder of scripts.study without --folder
SENTENCES = {
    BETTER: "Better than",
    WORSE: "Worse than",
    NOT_TOLD_APART: "Not told apart from",
}


def make_page(folder: Path) -> None:
    """Write README.md and <question>.png into the study's folder, from the records of all runs.

    Warns of each question whose file states other verdicts than the records, once all are there.
    """
    study = load_study(folder)
    with locked_files(folder):
        records = read_records(study.records)
        results = study_results(study, records)
        write_text(folder / "README.md", page(study, records, results))
        for question in study.questions:
            picture = folder / f"{question.name}.png"
            _write_picture(picture, results.values[question.name], study.score)
    planned = study.planned_runs()
    used = sum(run.key in records for run in planned)
    if used == len(planned):
        for text in contradictions(study, results):
            console.error(f"warning: {text}")
    info(f"study: {used} of {len(planned)} runs in {folder / 'README.md'}")


def heading(score: str) -> str:
    """Return what the page calls a score."""
    return SCORE_COLUMNS[score][0]


def _write_picture(path: Path, values: dict[str, ValueResults], score: str) -> None:
    """Draw the values of a question that have records; remove the picture if there are none."""
    made = {name: value for name, value in values.items() if value.records}
    if not made:
        return path.unlink(missing_ok=True)
    with atomic_write(path) as temporary:
        walk = _random_walk(values) if score == "nauc" else None
        temporary.write_bytes(question_picture(made, heading(score), walk))


def page(study: Study, records: dict[str, RunRecord], results: StudyResults) -> str:
    """Return the text of the page; the figures stand beside it as <question>.png."""
    header = ["question", "compared with", *SENTENCES]
    overview = Table(header, [_overview(study, question, results) for question in study.questions])
    sections = [_section(study, question, results) for question in study.questions]
    return "\n".join([_head(study, records, results), overview.markdown(), *sections])


def question_table(study: Study, question: Question, results: StudyResults) -> Table:
    """Return a row for each value; the last column compares it with the reference."""
    reference = question.reference(study.base)
    shown = dict.fromkeys((study.score, *SHOWN)) if study.score not in SHOWN else SHOWN
    rows = []
    for name, value in results.values[question.name].items():
        seeds = ", ".join(f"{record['train_seed']:g}" for record in value.records)
        seeds += f" (missing: {', '.join(map(str, value.missing))})" if value.missing else ""
        cells = [score_cell(value, score) for score in shown]
        title = f"**{name}**" if name == reference else name
        against = str(results.comparisons[question.name].get(name, UNKNOWN))
        rows.append([title, seeds.strip(), *cells, against])
    headings = [heading(score) for score in shown]
    change = question.config.change or "value"
    against = f"{heading(study.score)} minus that of {reference}"
    return Table([change, "seeds", *headings, against], rows).compact()


def score_cell(value: ValueResults, score: str) -> str:
    """Return the estimate of a score as text, with the number of seeds if only some have it."""
    style = SCORE_COLUMNS[score][1]
    if score in SECONDS:
        return number(value.estimate(score)[0], style)
    known, seeds = len(value.values(score)), len(value.records)
    some = f" ({known} of {seeds})" if 0 < known < seeds else ""
    return interval(*value.estimate(score), style) + some


def sentence(study: Study, question: Question, results: StudyResults) -> str:
    """Return how the values compare with the reference and which have no record, as sentences."""
    reference, comparisons = question.reference(study.base), results.comparisons[question.name]
    parts = [
        f"{start} {reference}: {'; '.join(names)}."
        for verdict, start in SENTENCES.items()
        if (names := with_verdict(comparisons, verdict))
    ]
    values = results.values[question.name]
    if empty := [name for name, value in values.items() if not value.records]:
        parts.append(f"**Missing**: {'; '.join(empty)}.")
    return " ".join(parts)


def _overview(study: Study, question: Question, results: StudyResults) -> list[str]:
    """Return the question's row in the first table of the page."""
    values, comparisons = results.values[question.name], results.comparisons[question.name]
    reference = question.reference(study.base)
    lists = ["; ".join(with_verdict(comparisons, verdict)) or UNKNOWN for verdict in SENTENCES]
    missing = sum(len(value.missing) for value in values.values())
    link = f"[{question.name}](#{question.name})"
    link += f" ({missing} {'run' if missing == 1 else 'runs'} missing)" if missing else ""
    return [link, f"{reference}: {score_cell(values[reference], study.score)}", *lists]


def _section(study: Study, question: Question, results: StudyResults) -> str:
    config = question.config
    common = ", ".join(f"`{path}` {label(value)}" for path, value in config.base.items())
    parts = [
        f"## {question.name}\n",
        f"{config.question}{f' All with {common}.' if common else ''}\n",
        question_table(study, question, results).markdown(),
        *[f"{text}\n" for text in (sentence(study, question, results), config.answer) if text],
    ]
    if any(value.records for value in results.values[question.name].values()):
        parts.append(f"![{question.name}]({question.name}.png)\n")
    return "\n".join(parts)


def _head(study: Study, records: dict[str, RunRecord], results: StudyResults) -> str:
    base, planned = study.base, study.planned_runs()
    done = [(run.config.name, records[run.key]) for run in planned if run.key in records]
    trained = {name: record["train_s"] or 0 for name, record in done}
    seconds = sum(trained.values()) + sum(record["evaluate_s"] or 0 for _, record in done)
    hours, seeds = seconds / 3600, ", ".join(map(str, study.seeds))
    split = f"the split of seed {base.split.split_seed}"
    split = "the tuning split" if base.split.tuning else split
    folder = "" if study.folder == DEFAULT else f" --folder {study.folder.as_posix()}"
    file = f"../{study.records.parent.name}/{study.records.name}"
    runs = f"""Each question changes one thing in the base experiment: `{study.experiment}` with
        {base.training.steps} train steps and {base.source.env_steps:,} env steps of each source
        agent, on {split}, as `{STUDY_FILE}` says; training seeds {seeds}. Scores are those on
        held-out tasks where their heading says nothing else. {len(done)} of {len(planned)} runs are
        done, which took {hours:.1f} hours of training and evaluation; each is a line of
        [{study.records.name}]({file}), with its versions."""
    verb = f"python -m scripts.study{folder}"
    commands = f"""```bash
{verb}                # make the missing runs and this page; resumes
{verb} --status true  # list the runs: done, failed or missing
{verb} --table true   # write only this page and its figures, from the records
```"""
    method = map(_paragraph, _method(study, results))
    return "\n\n".join(["# What one setting does", _paragraph(runs), commands, *method]) + "\n"


def _method(study: Study, results: StudyResults) -> list[str]:
    """Return the paragraphs of the page about its intervals and comparisons."""
    pooled, seeds, score = results.pooled, len(study.seeds), heading(study.score)
    if pooled is None:
        return [
            """Brackets are 95 % intervals over tasks. No setting has two training seeds, so the
            variance over seeds is unknown and no values are compared."""
        ]
    ranked = sorted((scores for scores in results.settings if len(scores) > 1), key=np.mean)
    halves = [pool(half) for half in (ranked[: len(ranked) // 2], ranked[len(ranked) // 2 :])]
    low, high = (number(half and half.deviation, ".3f") for half in halves)
    half_width = pooled.interval(0, seeds, seeds)[1]
    return [
        f"""The last column of a table is a value's mean {score} minus that of the question's
        reference (bold), with the 95 % interval and the p value of this difference. The p value is
        corrected for all {sum(map(len, results.comparisons.values()))} comparisons of the page
        (Holm 1979). A value is better or worse if the corrected p value is below {LEVEL}. Otherwise
        the two are not told apart, which does not show that they are equal. The interval is that of
        a single comparison and may exclude 0 where the corrected p value is {LEVEL} or more.""",
        f"""All comparisons use Student's t and one standard deviation of {score} over training
        seeds, {pooled.deviation:.3f}, pooled within the {len(ranked)} settings of the study
        ({pooled.freedom} degrees of freedom). With {seeds} seeds on both sides the interval of a
        difference is ±{half_width:.3f}. This assumes that runs are independent, although runs that
        differ in evaluation only share a training, and that the standard deviation is the same in
        all settings. In the half of the settings with the smaller {score} it is {low}, in the other
        half {high}, so p values just below {LEVEL} are uncertain.""",
        f"""Brackets at a single value are 95 % intervals too: for {score} with the pooled standard
        deviation, for other scores by Student's t over the value's seeds, or over tasks where one
        seed has the score. Other scores are not compared. Training times are those of a shared
        machine, on which equal trainings differ up to threefold. All runs share one split and one
        source seed, whose influence is in none of the intervals.""",
    ]


def _paragraph(text: str) -> str:
    """Return `text` in lines of at most 100 characters."""
    return fill(" ".join(text.split()), 100, break_long_words=False, break_on_hyphens=False)


def _random_walk(results: dict[str, ValueResults]) -> float | None:
    """Return the NAUC of the random walk, None if the records have several or none."""
    scores = (
        record["random_then_optimal_nauc"] for value in results.values() for record in value.records
    )
    naucs = {score for score in scores if score is not None}
    return naucs.pop() if len(naucs) == 1 else None  # splits differ in it
