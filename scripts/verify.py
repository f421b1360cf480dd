"""Check the histories and checkpoints of a run byte by byte: --repair true makes bad ones again."""

from ad.config import Experiment
from ad.notices import say
from scripts.cli import run_verb


def main(config: Experiment, repair: bool = False) -> None:
    """Name everything that is damaged (CorruptError, exit 4), or with `repair` make it good."""
    from ad import verification
    from ad.errors import CorruptError
    from ad.runs import Run, config_split

    histories = verification.damaged_histories(config)
    damaged = verification.damaged_checkpoints(config)
    problems = [*histories.values(), *damaged.values()]
    if problems and not repair:
        raise CorruptError("\n".join([*problems, f"verify: {len(problems)} damaged or missing"]))
    if problems:
        say("\n".join(problems))
        verification.repair(Run(config), histories, damaged)
        removed = f"{len(damaged)} checkpoints removed"
        say(f"verify: {len(histories)} histories collected again, {removed}")
        return main(config)
    tasks, kept = config_split(config).train_tasks, verification.checkpoint_paths(config)
    say(f"verify: {len(tasks)} histories and {len(kept)} checkpoints are what was written")


if __name__ == "__main__":
    run_verb(main, flag="repair")
