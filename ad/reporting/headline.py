"""The result of a run in a few sentences."""

from ad.evaluation import metrics
from ad.evaluation.scores import number


def headline(results: dict, within_episodes: bool, agent: str) -> str:
    """Return the result of an `agent` in a few sentences.

    within_episodes: whether the model's context ends with each episode, so that it cannot learn
    from one episode to the next.
    """
    summary, references = results["splits"]["held_out"], results["references"]
    text, best = _progress(results, within_episodes, agent), summary["optimal_return"]
    text += "." if best is None else f"; the optimal return is {best:.2f}."
    if random := references.get("random"):
        reached = number(random["held_out"]["return_last10"], ".2f")
        text += f" Random actions reach {reached}."
    if entries := results.get("calibration"):
        low, high = (end(entries, key=lambda entry: entry["asked"]) for end in (min, max))
        each = (f"{e['achieved']:.2f} where {e['asked']:g} is asked" for e in (low, high))
        text += f" In the calibration it achieves {' and '.join(each)}."
    if walk := references.get("random_then_optimal"):
        scores = (summary["nauc"], walk["held_out"]["nauc"])
        nauc, of_walk = (number(score, ".3f") for score in scores)
        text += (
            f" The NAUC of the {agent} is {nauc}; walking at random until the goal is hit and "
            f"taking a shortest path after that gives {of_walk}."
        )
    return text


def _progress(results: dict, within_episodes: bool, agent: str) -> str:
    """Return which return the agent reaches, the beginning of a sentence."""
    summary, asked = results["splits"]["held_out"], results.get("asked_return")
    count, episodes = summary["num_tasks"], summary["num_episodes"]
    first, last = f"{summary['return_first10']:.2f}", f"{summary['return_last10']:.2f}"
    start = f"On {count} held-out {'task' if count == 1 else 'tasks'}, "
    if asked is not None:
        before = results.get("asked_before_reward")
        until = "" if before is None else f"{before:g} until a reward is in the context, then "
        start += f"with a return of {until}{asked:.2f} asked in each episode, "
    if within_episodes or episodes <= metrics.LAST:
        some = f"the last {metrics.LAST} of " if episodes > metrics.LAST else ""
        number_of = f"{some}{episodes} {'episode' if episodes == 1 else 'episodes'}"
        return f"{start}the mean return of the {agent} is {last} over {number_of}"
    return (
        f"{start}the return of the {agent} goes from {first} in the first {metrics.LAST} "
        f"episodes to {last} in the last {metrics.LAST} of {episodes}"
    )
