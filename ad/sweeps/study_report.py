"""The page of a study, made from its records: a table, a sentence and a figure for each question.

A value's 95 % interval is Student's t over its training seeds; with one seed, that over tasks.
Two values are compared by Welch's interval of the difference of their NAUC: if it includes 0, the
seeds cannot tell the values apart. With one seed, the intervals over tasks must not overlap
instead. No interval is corrected for the number of comparisons.
"""

from dataclasses import dataclass

from ad.evaluation import metrics
from ad.reporting.tables import COLUMNS, SEARCH_COLUMNS, UNKNOWN, Table, interval, number
from ad.runtime.files import atomic_write, write_text
from ad.sweeps.study import STUDY_FILE, Question, Study, label
from ad.sweeps.study_plots import question_picture
from ad.sweeps.study_records import SECONDS, RunRecord, ValueResults, read_records

SHOWN = {
    **{name: COLUMNS[name] for name in ("nauc", "success_last10")},
    **{name: SEARCH_COLUMNS[name] for name in ("first_success", "success_seen")},
    **{name: COLUMNS[name] for name in ("path_ratio_last10", "episodes_to_80pct")},
    "train_nauc": ("NAUC, train tasks", ".3f"),
    "train_s": ("training, s", ".0f"),
}
VERDICTS = {1: "holds", 0: "cannot be told", -1: "does not hold, it is the other way round"}
SIGNS = {1: "Better than", -1: "Worse than", 0: "Not to be told apart from"}


@dataclass(frozen=True)
class Comparison:
    """How a value's NAUC differs from another's; `sign` is 0 if that cannot be told."""

    text: str
    sign: int


def write_page(study: Study) -> int:
    """Write README.md and <question>.png into the study's folder. Returns the records it used."""
    records, sections, overview = read_records(study.records), [], []
    for question in study.questions:
        results = results_by_value(study, question, records)
        picture = study.folder / f"{question.name}.png"
        sections.append(_section(study, question, results))
        overview.append(_overview(study, question, results))
        if made := {name: value for name, value in results.items() if value.records}:
            with atomic_write(picture) as path:
                path.write_bytes(question_picture(made, _random_walk(results)))
        else:
            picture.unlink(missing_ok=True)
    header = ["question", "what the probe found", "largest NAUC", "better", "worse"]
    table = Table(header, overview).markdown()
    write_text(study.folder / "README.md", "\n".join([_head(study, records), table, *sections]))
    return sum(run.key in records for run in study.planned_runs())


def results_by_value(
    study: Study, question: Question, records: dict[str, RunRecord]
) -> dict[str, ValueResults]:
    """Return the results of each value of a question."""
    results = {}
    for name, config in question.variants.items():
        keys = {seed: study.planned_run(config, seed).key for seed in study.seeds}
        found = [records[key] for key in keys.values() if key in records]
        missing = [seed for seed, key in keys.items() if key not in records]
        results[name] = ValueResults(found, missing)
    return results


def question_table(study: Study, question: Question, results: dict[str, ValueResults]) -> Table:
    """Return a row for each value; the last column compares it with the base or the first value."""
    reference = question.reference(study.base)
    rows = []
    for name, value in results.items():
        seeds = ", ".join(f"{record['train_seed']:g}" for record in value.records)
        seeds += f" (missing: {', '.join(map(str, value.missing))})" if value.missing else ""
        cells = [score_cell(value, score) for score in SHOWN]
        against = UNKNOWN if name == reference else compare(value, results[reference]).text
        title = f"**{name}**" if name == reference else name
        rows.append([title, seeds.strip(), *cells, against])
    headings = [heading for heading, _ in SHOWN.values()]
    change = question.config.change or "value"
    return Table([change, "seeds", *headings, f"NAUC less that of {reference}"], rows)


def score_cell(value: ValueResults, score: str) -> str:
    """Return the estimate of a score as text, with the number of seeds if only some have it."""
    style = SHOWN[score][1]
    if score in SECONDS:
        return number(value.estimate(score)[0], style)
    known, seeds = len(value.values(score)), len(value.records)
    some = f" ({known} of {seeds})" if 0 < known < seeds else ""
    return interval(*value.estimate(score), style) + some


def compare(one: ValueResults, other: ValueResults) -> Comparison:
    """Compare the NAUC of `one` with that of `other`."""
    (mean, bounds), (mean_other, bounds_other) = one.estimate("nauc"), other.estimate("nauc")
    if mean is None or mean_other is None:
        return Comparison(UNKNOWN, 0)
    if welch := metrics.welch_interval(one.values("nauc"), other.values("nauc")):
        low, high = welch[1:]
        text = f"{welch[0]:+.3f} [{low:+.3f}, {high:+.3f}]"
        return Comparison(text, int(low > 0) - int(high < 0))
    text = f"{mean - mean_other:+.3f} (one seed)"
    if bounds is None or bounds_other is None:
        return Comparison(text, 0)
    return Comparison(text, int(bounds[0] > bounds_other[1]) - int(bounds[1] < bounds_other[0]))


def sentence(study: Study, question: Question, results: dict[str, ValueResults]) -> str:
    """Return what the probe found, whether the records agree, and how the other values compare."""
    config, reference = question.config, question.reference(study.base)
    parts = [f"The probe found: {config.probe.rstrip('.')}."] if config.probe else []
    if config.better:
        probed = _probed(question, results)
        claim = f"Here NAUC of {config.better} less that of {config.than} is"
        found = f"{claim} {probed.text}: **{VERDICTS[probed.sign]}**." if probed else ""
        parts.append(found or "Here: **missing**.")
    for sign, names in _compared(results, results[reference]).items():
        if names:
            parts.append(f"{SIGNS[sign]} {reference}: {', '.join(names)}.")
    if empty := [name for name, value in results.items() if not value.records]:
        parts.append(f"**Missing**: {', '.join(empty)}.")
    return " ".join(parts)


def _compared(results: dict[str, ValueResults], reference: ValueResults) -> dict[int, list[str]]:
    """Return sign -> names of the values whose comparison with the reference has that sign."""
    names: dict[int, list[str]] = {sign: [] for sign in SIGNS}
    for name, value in results.items():
        if value.records and reference.records and value is not reference:
            names[compare(value, reference).sign].append(name)
    return names


def _overview(study: Study, question: Question, results: dict[str, ValueResults]) -> list[str]:
    """Return the question's row in the first table of the page."""
    probed = _probed(question, results)
    verdict = VERDICTS[probed.sign] if probed else UNKNOWN
    means = {name: value.estimate("nauc")[0] for name, value in results.items()}
    best = max((name for name in means if means[name] is not None), key=means.get, default=None)
    largest = f"{best}: {score_cell(results[best], 'nauc')}" if best else "**missing**"
    compared = _compared(results, results[question.reference(study.base)])
    lists = [", ".join(compared[sign]) or UNKNOWN for sign in (1, -1)]
    missing = sum(len(value.missing) for value in results.values())
    link = f"[{question.name}](#{question.name})"
    link += f" ({missing} {'run' if missing == 1 else 'runs'} missing)" if missing else ""
    return [link, verdict, largest, *lists]


def _probed(question: Question, results: dict[str, ValueResults]) -> Comparison | None:
    """Compare the values that the probe compared, None if there are none or no records of one."""
    pair = [results[name] for name in (question.config.better, question.config.than) if name]
    return compare(*pair) if pair and all(value.records for value in pair) else None


def _section(study: Study, question: Question, results: dict[str, ValueResults]) -> str:
    config = question.config
    common = ", ".join(f"`{path}` {label(value)}" for path, value in config.base.items())
    parts = [
        f"## {question.name}\n",
        f"{config.question}{f' All with {common}.' if common else ''}\n",
        question_table(study, question, results).markdown(),
        f"{sentence(study, question, results)}\n",
    ]
    if config.answer:
        parts.append(f"{config.answer}\n")
    if any(value.records for value in results.values()):
        parts.append(f"![{question.name}]({question.name}.png)\n")
    return "\n".join(parts)


def _head(study: Study, records: dict[str, RunRecord]) -> str:
    base, planned = study.base, study.planned_runs()
    done = [(run.config.name, records[run.key]) for run in planned if run.key in records]
    trained = {name: record["train_s"] or 0 for name, record in done}
    seconds = sum(trained.values()) + sum(record["evaluate_s"] or 0 for _, record in done)
    hours, seeds = seconds / 3600, ", ".join(map(str, study.seeds))
    file = f"../{study.records.parent.name}/{study.records.name}"
    return f"""# What one setting does

Each question changes one thing in the base experiment (bold): `{study.experiment}` with
{base.training.steps} train steps, {base.source.env_steps:,} env steps of each source agent and
split seed {base.split.split_seed}, as `{STUDY_FILE}` says; training seeds {seeds}. NAUC and success
are on held-out tasks. {len(done)} of {len(planned)} runs are done, which took {hours:.1f} hours
of training and evaluation; each is a line of [{study.records.name}]({file}), with its versions.

```bash
python -m scripts.study            # make the missing runs and this page; run it again to resume
python -m scripts.study --dry      # list the runs that are done and those that are missing
python -m scripts.study --table    # write only this page and its figures, from the records
```

Brackets are 95 % intervals: Student's over training seeds, or over tasks where there is one seed.
The last column is the difference of the means with Welch's interval; where it includes 0, these
seeds cannot tell. Nothing is corrected for the number of comparisons; all runs share one split and
source seed.
"""


def _random_walk(results: dict[str, ValueResults]) -> float | None:
    """Return the NAUC of the random walk, None if the records have several or none."""
    scores = (
        record["random_then_optimal_nauc"] for value in results.values() for record in value.records
    )
    naucs = {score for score in scores if score is not None}
    return naucs.pop() if len(naucs) == 1 else None  # splits differ in it
