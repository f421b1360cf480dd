"""Environments of MiniGrid in worker processes, each in one of its own, against one process."""

import numpy as np

import envs
from scripts.benchmark import peers
from scripts.benchmark.collection import step_by_drawn_actions
from scripts.benchmark.measure import Effort, Measurement, alternate, median, named

WORLDS = {"Dynamic-Obstacles-8x8": 3000, "DoorKey-8x8": 1000}  # name -> env steps of a repeat
NUM_ENVS = (2, 8, 16)


def stepping(name: str, num_envs: int, effort: Effort) -> Measurement | None:
    """Measure `num_envs` environments in AsyncVectorEnv against SyncVectorEnv.

    None without the package minigrid.
    """
    if not peers.installed("minigrid", "minigrid"):
        return None
    steps = effort.scaled(WORLDS[name]) // num_envs + 1
    made = {
        vector: envs.make_vec(
            f"MiniGrid-{name}-v0",
            np.zeros((num_envs, 1), np.int64),
            asynchronous=asynchronous,
            observation="one_hot",
        )
        for vector, asynchronous in (("ours", True), ("SyncVectorEnv", False))
    }
    try:
        contenders = {vector: step_by_drawn_actions(env, steps) for vector, env in made.items()}
        rates = alternate(contenders, effort.repeats)
    finally:
        for env in made.values():
            env.close()
    title = f"{name}, {num_envs} environments, AsyncVectorEnv"
    result = Measurement("workers", title, "steps", median(rates["ours"]), rates)
    result.peer_name, result.peer = "SyncVectorEnv", median(rates["SyncVectorEnv"])
    return result


BENCHMARKS = [named(stepping, name, num_envs) for name in WORLDS for num_envs in NUM_ENVS]
