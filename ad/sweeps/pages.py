"""The page of a sweep, made from its records: Markdown, one HTML file, and tables on the terminal.

Tables replace what is between the marks of the Markdown file of the sweep, `<!-- name -->` and
`<!-- /name -->`, if it has them; otherwise the whole file is written. The HTML file has charts.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from ad.config.fields import as_yaml
from ad.config.schema import Experiment
from ad.errors import ConfigError
from ad.evaluation.scores import LEVEL, SCORES
from ad.reporting.page import Block, Chart, Choice, Code, Details, Page, Section, Table, Text
from ad.runtime.console import info, warn
from ad.runtime.files import is_marked, read_marked, replace_between, write_text
from ad.runtime.locks import locked_files
from ad.sweeps import tables
from ad.sweeps.analyses import findings_section
from ad.sweeps.plan import Cell, Sweep
from ad.sweeps.records import read_records
from ad.sweeps.results import LEAST_RUNS, SweepResults, sweep_results, tuning_scores

ENTRIES = (
    "Rows that begin with “entry” are from outside. Their scores are those of an evaluation here, "
    "not claims; what they were trained on, and what their makers knew, is not verified. They are "
    "in no comparison."
)
FOOTNOTE = (
    "An NAUC that is below that of {}, by pairs of runs: the p value, corrected for all cells of "
    "rows that know nothing and have three or more pairs (Holm 1979), is below 0.05. The "
    "comparisons that the plan names are corrected for fewer cells, so that a row without a mark "
    "may be worse there."
)


def write_page(sweep: Sweep, root: Path) -> None:
    """Write the page of `sweep` as Markdown, and as `<root>/<name>.html` with charts."""
    results = sweep_results(sweep, read_records(sweep.records))
    page, marked = sweep_page(results), page_marks(sweep)
    root.mkdir(parents=True, exist_ok=True)
    write_text(root / f"{sweep.name}.html", page.html())
    if marked and sweep.page:
        texts = {  # of each section, its first table
            section.title: block.markdown() if block.rows else "No run has a record yet.\n"
            for section in page.sections
            for block in reversed(section.blocks)
            if isinstance(block, Table) and section.title
        }
        for name, text in texts.items():
            info(f"{name}\n\n{text}")
        with locked_files(sweep.records.parent):
            replace_between(sweep.page, texts)
    else:
        first = [block for block in page.sections[0].blocks if isinstance(block, Table)]
        info("\n".join(table.markdown() for table in first[:1]).rstrip())
        if sweep.page:
            sweep.page.parent.mkdir(parents=True, exist_ok=True)
            write_text(sweep.page, _plain(page).markdown())
    summary = sweep.path.parent / sweep.config.summary
    if summary.is_file() and is_marked(summary, sweep.name):
        replace_between(summary, {sweep.name: tables.short_table(results).markdown()})
    info(f"{sweep.name}: {_done(results)} runs in {root / sweep.name}.html")


def page_marks(sweep: Sweep) -> list[str]:
    """Return the marks of the page of `sweep`, [] if it is written whole.

    Raises ConfigError if it has some of its marks and lacks others.
    """
    names = list(sweep.tables or sweep.groups)
    if sweep.page is None or not sweep.page.exists():
        return []
    if any(is_marked(sweep.page, name) for name in names):
        read_marked(sweep.page, names)
        return names
    return []


def sweep_page(results: SweepResults) -> Page:
    """Return the page of a sweep."""
    sweep, records = results.sweep, results.records
    title, _, subtitle = (sweep.config.title or f"Sweep: {sweep.name}").partition(": ")
    if sweep.tables:
        sections = [findings_section(sweep, name, records) for name in sweep.tables]
        return Page(title, subtitle, [_head(sweep), *sections])
    folder = Path() if sweep.page is None else sweep.page.parent
    sections = [_group_section(results, group, folder) for group in sweep.groups]
    shown = (block for own in sections for block in own.blocks if isinstance(block, Table))
    if any(tables.BELOW_LEARNER in cell for own in shown for row in own.rows for cell in row):
        note = f"{tables.BELOW_LEARNER.strip()} {FOOTNOTE.format(sweep.config.learner)}"
        sections.append(Section("", [Text(note)]))
    return Page(title, subtitle, [_head(sweep, results), *sections])


def _plain(page: Page) -> Page:
    """Return the page without the blocks that only its HTML has."""
    html_only = Chart | Choice | Details
    sections = [
        Section(section.title, [b for b in section.blocks if not isinstance(b, html_only)])
        for section in page.sections
    ]
    return Page(page.title, page.subtitle, sections)


def _head(sweep: Sweep, results: SweepResults | None = None) -> Section:
    """Return the first section: what the sweep is, its summary, notes, and how it is made."""
    config, notes = sweep.config, _paragraphs(sweep.config.about)
    blocks: list[Block] = [*notes[:1], *_paragraphs(sweep.choice.about)]
    blocks += [] if results is None else _summary(results)
    of_rows = dict.fromkeys(row.note for row in sweep.rows.values())  # tries of a row have its note
    if sweep.name == sweep.path.stem or not config.page:
        blocks += notes[1:]
    else:
        page = (sweep.path.parent / config.page).as_posix()
        blocks.append(Text(f"{page} has what holds for all boards, and the notes on its methods."))
        of_first = next(iter(config.boards.values())).get("rows") or config.rows
        for row in of_first:
            of_rows.pop(config.rows.get(row, {}).get("note", ""), None)
    blocks += _paragraphs("\n\n".join(of_rows))
    blocks += [] if results is None else [Text(_progress(results))]
    verb = f"python -m scripts.sweep --file {sweep.path.as_posix()}"
    verb += "" if sweep.name == sweep.path.stem else f" --board {sweep.board}"
    commands = {
        "": "make the missing runs and this page; resumes",
        " --status true": "list the runs: done, failed or missing",
        " --table true": "write only this page, from the records",
    }
    lines = [f"{verb + options:<{len(verb) + 14}}  # {text}" for options, text in commands.items()]
    blocks.append(Code("\n".join(lines)))
    of_groups = [name for group in sweep.groups.values() for name in group.scores]
    names = [*config.scores, *config.means, *of_groups]
    blocks.append(Text(" ".join(dict.fromkeys(SCORES[name].note for name in names))))
    if results is not None and results.comparisons:
        blocks += [Text(" ".join(text.split())) for text in _method(results)]
    return Section("", blocks)


def _summary(results: SweepResults) -> Iterator[Block]:
    """Yield the tables over all groups."""
    sweep = results.sweep
    if sweep.choice.tuning:
        yield Text(
            "The best of the settings that each method has tried, by their NAUC on held-out tasks, "
            "as the mean over these worlds."
        )
        yield tables.tuning_table(results)
        warn_of_untuned(results)
    elif sweep.tried:
        yield Text(
            "The NAUC of each method, and the highest of all settings in its rows below with what "
            "it changes. The second is an oracle: it is chosen by the tasks that it is scored on, "
            "and the highest of several means is too high by chance."
        )
        yield tables.oracle_table(results)
    if not sweep.rows:
        if any(map(sweep.baseline, sweep.groups)):
            yield tables.overview_table(results)
        return
    yield tables.summary_table(results)
    if results.entries:
        yield Text(ENTRIES)
    paired = tables.paired_table(results) if sweep.config.paired and not sweep.tried else None
    if paired and paired.rows:
        yield Text("The comparisons that the plan names, and the groups of each outcome:")
        yield paired
    several = len(tables.complete_groups(results)) > 1  # of one there is nothing to aggregate
    if several and not sweep.tried and tables.complete_scores(results):
        yield Text(
            f"Aggregates of {SCORES[sweep.config.score].heading} over the groups in which "
            f"{sweep.config.baseline} has all its planned runs (Agarwal et al. 2021): means over "
            "runs, with intervals by Student's t over the values of single runs; that of the mean "
            "is the wider of this and the interval from the standard deviation pooled within "
            "groups. The interquartile mean of a run leaves out a quarter of the groups at each "
            "end. A row that lacks a planned run in one of them is left out, and one with fewer "
            "planned runs has those of the first seeds, which the last column pairs by their "
            "seeds. The groups are "
            f"{'; '.join(tables.complete_groups(results))}."
        )
        yield tables.aggregates_table(results)
        yield tables.profile_chart(results)


def _done(results: SweepResults) -> str:
    """Return "3 of 4": a run is missing as long as a cell lacks it, in the world of its group."""
    shown = {place: {record.key for record in own} for place, own in results.made.items()}
    missing: set[str] = set()
    for cell in results.sweep.cells:
        missing |= {run.key for run in cell.runs} - shown.get((cell.group, cell.row), set())
    total = len(results.sweep.planned_runs())
    return f"{total - len(missing)} of {total}"


def _progress(results: SweepResults) -> str:
    """Return how many runs are done, how long they took, and which rows are not tuned yet."""
    sweep, done = results.sweep, results.records
    trained = {run.config.name: done[run.key] for run in sweep.planned_runs() if run.key in done}
    seconds = sum(record.seconds.get("train_s") or 0 for record in trained.values())
    seconds += sum(record.seconds.get("evaluate_s") or 0 for record in done.values())
    made = sorted({record.made_with.get("version", "") for record in done.values()} - {""})
    versions = f", made by version {', '.join(made)} of this suite" if made else ""
    text = (
        f"{_done(results)} runs are done, which took "
        f"{seconds / 3600:.1f} hours of training and evaluation. Each is a line of "
        f"{sweep.records.as_posix()}{versions}."
    )
    untuned = [r for r, own in sweep.rows.items() if own.tuned is None and len(own.tried or []) > 1]
    return text + (f" Not tuned yet: {', '.join(untuned)}." if untuned else "")


def warn_of_untuned(results: SweepResults) -> None:
    """Warn of methods for which the sweep's file names other settings than the best ones."""
    sweep = results.sweep
    for method, scores in tuning_scores(results).items():
        best = sweep.rows[max(scores, key=scores.__getitem__)].tuned
        if best != sweep.config.rows.get(method, {}).get("tuned"):
            warn(f"{sweep.path}: {method}: set tuned to {as_yaml(best)}, its best settings")


def _method(results: SweepResults) -> Iterator[str]:
    """Yield the paragraphs about intervals and comparisons."""
    config, count = results.sweep.config, len(results.comparisons)
    score = SCORES[config.score].heading
    if config.paired:
        compared = dict.fromkeys(row for _, row in results.comparisons)
        named = (f"{row} with {results.sweep.rows[row].against}" for row in compared)
        yield f"""Each run has a split of the tasks, source agents and a training of its own. So an
            interval, Student's t over the runs, is that for a new split, new source agents and a
            new training; one or two runs have none. Rows are compared by pairs of runs on the same
            split, only as the plan of the board names: {"; ".join(named)}. The column has the mean
            difference of {score}, its 95 % interval, which is that of a single comparison, its p
            value, corrected over the groups of this pair of rows and not over the page (Holm 1979),
            and in how many pairs the row is above the other. A difference that is not significant
            does not show that two rows are equal."""
        return
    yield f"""The last column but the counts compares {score} with that of the baseline: the
        difference, its 95 % interval and its p value, corrected for all {count} comparisons of the
        page (Holm 1979). A row is better or worse if the corrected p value is below {LEVEL}.
        Otherwise the difference is not significant, which does not show that the two are equal. The
        interval is that of a single comparison and may exclude 0 where the corrected p value is
        {LEVEL} or more."""
    deviation = results.deviation
    if deviation is None:
        if len(results.sweep.config.splits) < 2:
            yield f"""Each comparison uses Student's t and the standard deviation within its rows.
                With fewer than {LEAST_RUNS} runs in one of them it has neither interval nor p
                value."""
        return
    seeds = len(results.sweep.config.seeds)
    width = deviation.estimate(0, seeds, seeds).high
    yield f"""All comparisons use Student's t and one standard deviation of {score} over training
        seeds, {deviation.value:.3f}, pooled within the settings of the sweep ({deviation.freedom}
        degrees of freedom). With {seeds} seeds on both sides the interval of a difference is
        ±{width:.3f}. This assumes that runs are independent, although runs that differ in
        evaluation only share a training, and that the standard deviation is the same in all
        settings. The brackets of {score} have the pooled standard deviation, those of other scores
        Student's t over the row's seeds."""


def _paragraphs(text: str) -> list[Text]:
    """Return the paragraphs of a text, which have empty lines between them."""
    return [Text(paragraph) for paragraph in text.split("\n\n") if paragraph]


def _group_section(results: SweepResults, group: str, folder: Path) -> Section:
    """Return the section of a group: its text, table, charts and published results."""
    sweep = results.sweep
    own = sweep.groups[group]
    blocks: list[Block] = [*_paragraphs(own.about)]
    cells = [c for c in sweep.cells_of(group) if c.runs and not c.config.evaluation.env_steps]
    if own.experiment:
        blocks.append(Text(f"`{own.experiment}`" + (f": {_sizes(cells)}" if cells else "")))
    blocks.append(tables.group_table(results, group, folder))
    blocks += _paragraphs(own.note)
    charts = [tables.curves_chart(results, group)]
    charts.append(None if sweep.is_calibration(group) else tables.scores_chart(results, group))
    if sweep.rows:
        charts.append(tables.tasks_chart(results, group))
    blocks += [chart for chart in charts if chart is not None]
    if sweep.rows:
        blocks.append(Details("Cost, as means over runs", [tables.cost_table(results, group)]))
    if published := _published(sweep, group):
        blocks += [Text("Published, under their own protocols:"), published]
    return Section(group or sweep.name, blocks)


def _sizes(cells: Sequence[Cell]) -> str:
    """Return the sizes that the rows of a group share, and the contexts of those with another."""

    def context(config: Experiment) -> str:
        segments = config.training.segments
        several = f" (training: {segments} in a row)" if segments > 1 else ""
        return f"{config.data.context_length}{several}"

    first = cells[0].config
    texts = {cell.row: context(cell.config) for cell in cells}
    others = [f"; {own} for {row}" for row, own in texts.items() if own != context(first)]
    steps = f"at most {first.env.episode_length} env steps"
    contexts = f"contexts of {context(first)} transitions{''.join(others)}"
    played = f"{first.evaluation.episodes} episodes of {steps}"
    return f"{first.split.num_train_tasks} train tasks, {played}, {contexts}."


def _published(sweep: Sweep, group: str) -> Table | None:
    """Return the published results of a group, None if there are none. Raises ConfigError."""
    if not sweep.config.published:
        return None
    with open(sweep.config.published, newline="", encoding="utf-8") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    if not header or any(len(line) != len(header) for line in lines):
        raise ConfigError(f"{sweep.config.published} has a line with too few or too many cells")
    rows = [line[1:] for line in lines if line[0] == group]
    return Table(header[1:], rows, tuple(range(len(header) - 1))) if rows else None
