"""The page of a study, made from its raw rows: a table, a sentence and a figure for each question.

A value's interval is Student's over its training seeds (95 %); with one seed only, that over goals.
Two values are compared by Welch's interval of the difference of their NAUC: where it includes 0 the
seeds cannot tell them apart. With one seed their intervals over goals must not touch instead. No
interval is corrected for the number of comparisons.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ad.evaluation import metrics
from ad.reporting.tables import COLUMNS, CONTEXT_COLUMNS, UNKNOWN, Table, interval, number
from ad.runtime.files import atomic_write, write_text
from ad.sweeps.study import COMMON, Question, Study, Wording, label
from ad.sweeps.study_plots import Estimate, Line, question_picture
from ad.sweeps.study_rows import FIFTHS, ROWS, SECONDS, Row, read_rows

SHOWN = {
    **{name: COLUMNS[name] for name in ("nauc", "success_last10")},
    **{name: CONTEXT_COLUMNS[name] for name in ("success_seen", "success_unseen")},
    **{name: COLUMNS[name] for name in ("path_ratio_last10", "episodes_to_80pct")},
    "train_nauc": ("NAUC, train goals", ".3f"),
    "train_s": ("training, s", ".0f"),
}
VERDICTS = {1: "holds", 0: "cannot be told", -1: "does not hold, it is the other way round"}
SIGNS = {1: "Better than", -1: "Worse than", 0: "Not to be told apart from"}


@dataclass(frozen=True)
class Found:
    """What the runs of one value of a question found: their rows and the seeds without one."""

    rows: list[Row]
    missing: list[int]

    def values(self, score: str) -> list[float]:
        """The known values of a score, one a seed."""
        return [row[score] for row in self._known(score)]

    def estimate(self, score: str) -> Estimate:
        """Mean and 95 % interval of a score; over goals where one seed only has it."""
        over = metrics.t_interval(self.values(score))
        if over["n"] != 1:
            return over["mean"], None if over["lo"] is None else (over["lo"], over["hi"])
        low, high = (self._known(score)[0].get(f"{score}_{end}") for end in ("low", "high"))
        return over["mean"], None if low is None else (low, high)

    def cell(self, score: str) -> str:
        """The estimate as text, with the number of seeds that have it where not all do."""
        style = SHOWN[score][1]
        if score in SECONDS:
            return number(self.estimate(score)[0], style)
        known = len(self._known(score))
        some = f" ({known} of {len(self.rows)})" if 0 < known < len(self.rows) else ""
        return interval(*self.estimate(score), style) + some

    def _known(self, score: str) -> list[Row]:
        return [row for row in self.rows if row[score] is not None]


@dataclass(frozen=True)
class Comparison:
    """How a value's NAUC differs from another's: `sign` is 0 where that cannot be told."""

    text: str
    sign: int


def write_page(study: Study) -> int:
    """Write README.md and <question>.png beside the rows, from them; how many of them were used."""
    rows, sections, overview = read_rows(study.folder), [], []
    for question in study.questions:
        found, picture = answers(study, question, rows), study.folder / f"{question.name}.png"
        sections.append(_section(study, question, found))
        overview.append(_overview(study, question, found))
        if lines := _lines(found):
            with atomic_write(picture) as path:
                path.write_bytes(question_picture(lines, _ceiling(found)))
        else:
            picture.unlink(missing_ok=True)
    header = ["question", "what the probe found", "largest NAUC", "better", "worse"]
    table = Table(header, overview).markdown()
    write_text(study.folder / "README.md", "\n".join([_head(study, rows), table, *sections]))
    return sum(trial.key in rows for trial in study.trials())


def answers(study: Study, question: Question, rows: dict[str, Row]) -> dict[str, Found]:
    """What there is of each value of a question."""
    found = {}
    for name, config in question.variants.items():
        keys = {seed: study.trial(config, seed).key for seed in study.seeds}
        there = [rows[key] for key in keys.values() if key in rows]
        found[name] = Found(there, [seed for seed, key in keys.items() if key not in rows])
    return found


def question_table(study: Study, question: Question, found: dict[str, Found]) -> Table:
    """A row for each value; the last column compares it with the base row, or the first value."""
    reference = question.reference(study.base)
    rows = []
    for name, value in found.items():
        seeds = ", ".join(f"{row['train_seed']:g}" for row in value.rows)
        seeds += f" (missing: {', '.join(map(str, value.missing))})" if value.missing else ""
        cells = [value.cell(score) for score in SHOWN]
        against = UNKNOWN if name == reference else compare(value, found[reference]).text
        title = f"**{name}**" if name == reference else name
        rows.append([title, seeds.strip(), *cells, against])
    headings = [heading for heading, _ in SHOWN.values()]
    change = question.words.change or "value"
    return Table([change, "seeds", *headings, f"NAUC less that of {reference}"], rows)


def compare(one: Found, other: Found) -> Comparison:
    """The NAUC of `one` less that of `other`."""
    (mean, bounds), (mean_other, bounds_other) = one.estimate("nauc"), other.estimate("nauc")
    if mean is None or mean_other is None:
        return Comparison(UNKNOWN, 0)
    if welch := metrics.welch_interval(one.values("nauc"), other.values("nauc")):
        least, most = welch[1:]
        text = f"{welch[0]:+.3f} [{least:+.3f}, {most:+.3f}]"
        return Comparison(text, int(least > 0) - int(most < 0))
    text = f"{mean - mean_other:+.3f} (one seed)"
    if bounds is None or bounds_other is None:
        return Comparison(text, 0)
    return Comparison(text, int(bounds[0] > bounds_other[1]) - int(bounds[1] < bounds_other[0]))


def sentence(study: Study, question: Question, found: dict[str, Found]) -> str:
    """What the probe found, whether the rows say so too, and how the other values compare."""
    words, reference = question.words, question.reference(study.base)
    parts = [f"The probe found: {words.probe.rstrip('.')}."] if words.probe else []
    if words.better:
        parts.append(_verdict(words, found[words.better], found[words.than]))
    for sign, names in _compared(found, found[reference]).items():
        if names:
            parts.append(f"{SIGNS[sign]} {reference}: {', '.join(names)}.")
    if empty := [name for name, value in found.items() if not value.rows]:
        parts.append(f"**Missing**: {', '.join(empty)}.")
    return " ".join(parts)


def _compared(found: dict[str, Found], reference: Found) -> dict[int, list[str]]:
    """Sign -> the values that compare so with the reference."""
    kinds: dict[int, list[str]] = {sign: [] for sign in SIGNS}
    for name, value in found.items():
        if value.rows and reference.rows and value is not reference:
            kinds[compare(value, reference).sign].append(name)
    return kinds


def _overview(study: Study, question: Question, found: dict[str, Found]) -> list[str]:
    """A row of the page's first table."""
    words, verdict = question.words, UNKNOWN
    if words.better and found[words.better].rows and found[words.than].rows:
        verdict = VERDICTS[compare(found[words.better], found[words.than]).sign]
    means = {name: value.estimate("nauc")[0] for name, value in found.items()}
    best = max((name for name in means if means[name] is not None), key=means.get, default=None)
    largest = f"{best}: {found[best].cell('nauc')}" if best else "**missing**"
    compared = _compared(found, found[question.reference(study.base)])
    lists = [", ".join(compared[sign]) or UNKNOWN for sign in (1, -1)]
    missing = sum(len(value.missing) for value in found.values())
    link = f"[{question.name}](#{question.name})"
    link += f" ({missing} {'run' if missing == 1 else 'runs'} missing)" if missing else ""
    return [link, verdict, largest, *lists]


def _verdict(words: Wording, better: Found, than: Found) -> str:
    if not better.rows or not than.rows:
        return "Here: **missing**."
    compared = compare(better, than)
    claim = f"Here NAUC of {words.better} less that of {words.than} is {compared.text}"
    return f"{claim}: **{VERDICTS[compared.sign]}**."


def _section(study: Study, question: Question, found: dict[str, Found]) -> str:
    words = question.words
    common = ", ".join(f"`{path}` {label(value)}" for path, value in words.base.items())
    parts = [
        f"## {question.name}\n",
        f"{words.question}{f' All with {common}.' if common else ''}\n",
        question_table(study, question, found).markdown(),
        f"{sentence(study, question, found)}\n",
    ]
    if words.answer:
        parts.append(f"{words.answer}\n")
    if _lines(found):
        parts.append(f"![{question.name}]({question.name}.png)\n")
    return "\n".join(parts)


def _head(study: Study, rows: dict[str, Row]) -> str:
    base, trials = study.base, study.trials()
    done = [(trial.training, rows[trial.key]) for trial in trials if trial.key in rows]
    trained = {training: row["train_s"] or 0 for training, row in done}
    hours = (sum(trained.values()) + sum(row["evaluate_s"] or 0 for _, row in done)) / 3600
    seeds = ", ".join(map(str, study.seeds))
    return f"""# What one setting does

Each question changes one thing in the base row (bold): `{study.row}` with
{base.training.steps} training steps, {base.source.env_steps:,} environment steps of a source agent
and split seed {base.split.split_seed}, as `{COMMON}` says; training seeds {seeds}. NAUC and success
are on held-out goals. {len(done)} of {len(trials)} runs are there, {hours:.1f} hours of training
and evaluation; each is a line of `{ROWS}`, with its versions.

```bash
python -m scripts.study            # the runs to be made, then this page; goes on where it was
python -m scripts.study --dry      # the list of those that are done and those that are missing
python -m scripts.study --table    # only this page and its figures, from {ROWS}
```

Brackets are 95 %: Student's over training seeds, or over goals where there is one seed. The last
column is the difference of the means with Welch's interval; where it includes 0, these seeds cannot
tell. Nothing is corrected for the number of comparisons; all runs share one split and source seed.
"""


def _lines(found: dict[str, Found]) -> list[Line]:
    return [
        Line(
            name,
            [value.estimate(fifth) for fifth in FIFTHS],
            value.estimate("nauc"),
            value.values("nauc"),
        )
        for name, value in found.items()
        if value.rows
    ]


def _ceiling(found: dict[str, Found]) -> float | None:
    known: Iterable = (row["undirected_nauc"] for value in found.values() for row in value.rows)
    ceilings = {row for row in known if row is not None}
    return ceilings.pop() if len(ceilings) == 1 else None  # other splits have other ones
