"""Check the histories, checkpoints and results of a run byte by byte: --repair true mends them."""

from ad.config.schema import Experiment
from ad.runtime.console import say
from scripts.cli import run_verb


def main(config: Experiment, repair: bool = False) -> None:
    """Name everything that is damaged (CorruptError, exit 4), or with `repair` make it good."""
    from ad.errors import CorruptError
    from ad.reporting import verify as check

    histories = check.damaged_histories(config)
    checkpoints, results = check.damaged_checkpoints(config), check.damaged_results(config)
    problems = [*histories.values(), *checkpoints.values(), *results.values()]
    if problems and not repair:
        raise CorruptError("\n".join([*problems, f"verify: {len(problems)} damaged or missing"]))
    if problems:
        say("\n".join(problems))
        check.repair_histories(config, histories)
        check.remove_checkpoints(checkpoints)
        check.remove_results(config, results)
        say(f"verify: {len(histories)} histories collected again, {_removed(checkpoints, results)}")
        return main(config)
    whole = (check.histories(config), check.run_checkpoints(config), check.run_results(config))
    counts = "{} histories, {} checkpoints and {} files of results".format(*map(len, whole))
    say(f"verify: {counts} are what was written")


def _removed(checkpoints: dict, results: dict) -> str:
    again = ", results removed: scripts.evaluate makes them again" if results else ""
    return f"{len(checkpoints)} checkpoints removed{again}"


if __name__ == "__main__":
    run_verb(main, flag="repair")
