"""The released models of a board: a release for each row in each group, and a page that lists them.

A sweep with `--keep true` leaves the folders of its runs, which hold the models.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from ad.errors import ConfigError
from ad.evaluation.scores import SCORES, number
from ad.exchange.card import LIBRARY, read_results
from ad.exchange.release import release
from ad.methods import build_method
from ad.reporting.page import Table
from ad.runtime.console import info, warn
from ad.runtime.files import write_text
from ad.runtime.run import Run
from ad.sweeps.plan import PlannedRun, Sweep
from ad.sweeps.tables import knows

CARD = """\
---
library_name: {library}
pipeline_tag: reinforcement-learning
---

# {title}: released models

Each folder is the release of one run: weights (safetensors), configuration, card, scores, hashes.
`ad play <folder>` opens the app on it, and `load_release("<folder>")` of `ad.exchange.release`
returns its policy. The score is that of this run on held-out tasks.

{table}"""


def release_models(sweep: Sweep, runs: Iterable[PlannedRun], root: Path, folder: Path) -> None:
    """Release the first kept run under `root` of each cell of `runs` into a folder in `folder`.

    Methods without a model are left out, and a cell without a kept run with a warning. Raises
    ConfigError if no run was kept, and the errors of `release`.
    """
    known, rows = {(cell.group, cell.row): knows(cell) for cell in sweep.cells if cell.runs}, {}
    missing = {}
    for planned in runs:
        place = planned.group, planned.row
        if place in rows or not build_method(planned.config.method).has_model:
            continue
        run = Run(planned.in_root(root))
        results = read_results(run)
        if results is None:
            missing[place] = planned.label
            continue
        name = "-".join(re.sub(r"\W+", "_", text).strip("_").lower() for text in place)
        weights = release(run, folder / name) / "model.safetensors"
        nauc = number(results["splits"]["held_out"]["nauc"], SCORES["nauc"].format)
        size = f"{weights.stat().st_size / 1e6:.2f}"
        rows[place] = [f"[{name}]({name}/)", *place, known[place], nauc, size]
    if not rows:
        raise ConfigError(f"{root} has no trained run of these cells: make them with --keep true")
    for label in (label for place, label in missing.items() if place not in rows):
        warn(f"{label} has no kept run in {root}: make it with --keep true")
    header = ["model", "world", sweep.config.heading, "knows", SCORES["nauc"].heading, "MB"]
    table = Table(header, list(rows.values()), text_columns=(0, 1, 2, 3)).markdown()
    title = sweep.config.title.partition(":")[0] or sweep.name
    write_text(folder / "README.md", CARD.format(library=LIBRARY, title=title, table=table))
    info(f"{len(rows)} models: {folder / 'README.md'}")
