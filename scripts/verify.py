"""Check the histories, checkpoints and results of a run byte by byte: --repair true mends them."""

from ad.config.schema import Experiment
from ad.runtime.console import info
from scripts.cli import run_verb


def main(config: Experiment, repair: bool = False) -> None:
    """Name everything that is damaged (CorruptError, exit 4), or with `repair` make it good."""
    from ad.errors import CorruptError
    from ad.reporting import verify as check
    from ad.runtime.run import Run

    run = Run(config)
    histories = check.damaged_histories(run)
    checkpoints, results = check.damaged_checkpoints(run), check.damaged_results(run)
    problems = [*histories.values(), *checkpoints.values(), *results.values()]
    if problems and not repair:
        raise CorruptError("\n".join([*problems, f"verify: {len(problems)} damaged or missing"]))
    if problems:
        info("\n".join(problems))
        check.repair_histories(run, histories)
        check.remove_checkpoints(checkpoints)
        check.remove_results(run, results)
        info(
            f"verify: {len(histories)} histories collected again, {_removed(checkpoints, results)}"
        )
        return main(config)
    whole = (check.histories(run), check.run_checkpoints(run), check.run_results(run))
    counts = "{} histories, {} checkpoints and {} files of results".format(*map(len, whole))
    info(f"verify: {counts} are what was written")


def _removed(checkpoints: dict, results: dict) -> str:
    again = ", results removed: scripts.evaluate makes them again" if results else ""
    return f"{len(checkpoints)} checkpoints removed{again}"


if __name__ == "__main__":
    run_verb(main, flag="repair")
