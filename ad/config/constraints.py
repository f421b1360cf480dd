"""Constraints between settings that read values and the world, but import no component."""

import re
from pathlib import Path

from ad.config import published
from ad.config.checks import Constraints
from ad.config.fields import as_yaml
from ad.config.world import configured_split, reserved_problem
from envs.changes import rate_problem
from envs.presets import resolve_length
from envs.tasks import check_all_tasks

CONSTRAINTS = Constraints()
FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

constraint = CONSTRAINTS.register


@constraint("name")
def name_is_a_folder_name(name):
    if not FOLDER_NAME.fullmatch(name):
        return (
            "must be a plain folder name (letters, digits, '.', '_', '-'; a letter or digit first; "
            f"at most 100), not {as_yaml(name)}"
        )


@constraint("root")
def root_is_a_folder(root):
    if not Path(root).is_dir():
        return f"must be an existing folder, not {as_yaml(root)}"


@constraint("env.kwargs")
def env_kwargs_are_not_reserved(kwargs):
    return reserved_problem(kwargs)


@constraint("env")
def env_can_be_created(env):
    try:
        check_all_tasks(env.id, env.kwargs, env.tasks)
    except Exception as error:  # another package's environment may raise anything
        return f"cannot be created: {' '.join(str(error).split()) or type(error).__name__}"


@constraint("env.change")
def change_is_a_rate(change):
    return rate_problem(change)


@constraint("env.episode_length", "env.id")
def episode_length_is_that_of_the_preset(episode_length, env_id):
    try:
        resolve_length(env_id, episode_length)
    except ValueError as error:
        return f"cannot be {episode_length}: {error}"


@constraint("split", "env")
def split_is_possible(split, env):
    try:
        configured_split(env, split)
    except ValueError as error:
        return f"is not possible: {error}"


@constraint("evaluation.worlds", "split.tuning")
def tuning_has_no_other_worlds(worlds, tuning):
    if tuning and worlds:
        return "must be [] with split.tuning: published results are scored on tasks of other worlds"


@constraint("source.source_seed", "split.tuning")
def tuning_has_its_own_source_agents(source_seed, tuning):
    if tuning and source_seed in published.SEEDS:
        seeds = ", ".join(map(str, published.SEEDS))
        return f"must not be {source_seed} with split.tuning: published runs have {seeds}"


@constraint("source.env_steps", "source.num_envs")
def env_steps_are_divisible_by_num_envs(env_steps, num_envs):
    if env_steps % num_envs:
        return f"must be a multiple of source.num_envs ({num_envs}), not {env_steps}"


@constraint("source.env_steps", "source.num_envs", "env.episode_length")
def an_actor_records_an_episode(env_steps, num_envs, episode_length):
    return _shorter_than_an_episode(env_steps, num_envs, episode_length)


@constraint("data.env_steps", "source.env_steps", "source.num_envs", "env.episode_length")
def history_has_env_steps(env_steps, collected, num_envs, episode_length):
    if env_steps > collected:
        return f"must be at most source.env_steps ({collected}), not {env_steps}"
    if env_steps % num_envs:
        return f"must be a multiple of source.num_envs ({num_envs}), not {env_steps}"
    if env_steps:
        return _shorter_than_an_episode(env_steps, num_envs, episode_length)


@constraint("data.history_stride", "data.env_steps", "source.env_steps", "source.num_envs")
def stride_leaves_training_sequences(stride, env_steps, collected, num_envs):
    steps = (env_steps or collected) // num_envs
    if stride > steps:
        return (
            f"must be at most {steps}, the transitions of an actor (source.env_steps / "
            f"source.num_envs), not {stride}"
        )


@constraint("evaluation.env_steps", "env.episode_length")
def a_rollout_completes_an_episode(env_steps, episode_length):
    if env_steps is not None and env_steps < episode_length:
        return f"must be at least env.episode_length ({episode_length}), not {env_steps}"


@constraint("data.windows_to_end", "data.windows_from_start")
def windows_begin_or_end(to_end, from_start):
    if to_end + from_start > 1:
        return f"must be at most 1 - data.windows_from_start ({from_start:g}), not {to_end:g}"


@constraint("data.held_out_actors", "source.num_envs")
def some_actors_are_not_held_out(held_out_actors, num_envs):
    if held_out_actors >= num_envs:
        return f"must be below source.num_envs ({num_envs}), not {held_out_actors}"


@constraint("data.actors_per_task", "data.held_out_actors", "source.num_envs")
def actors_per_task_are_not_held_out(actors_per_task, held_out_actors, num_envs):
    if actors_per_task > (left := num_envs - held_out_actors):
        return (
            f"must be at most {left}, not {actors_per_task}: source.num_envs is {num_envs}, "
            f"and data.held_out_actors {held_out_actors}"
        )


@constraint("model.positions", "model.position", "data", "source", "evaluation", "env", "training")
def position_table_is_large_enough(positions, position, data, source, evaluation, env, training):
    steps, episodes = (data.env_steps or source.env_steps) // source.num_envs, evaluation.episodes
    rollout = f"a rollout of {episodes} episodes of {env.episode_length} steps"
    longest = episodes * env.episode_length
    if evaluation.env_steps is not None:  # a validation plays whole episodes
        rollout = "a rollout of evaluation.env_steps, or of a validation"
        validated = min(training.eval_episodes, episodes) * env.episode_length
        longest = max(evaluation.env_steps, validated)
    lengths = {
        "window": {"a window of data.context_length": data.context_length},
        "history": {rollout: longest, "a training sequence": steps // data.history_stride},
    }
    for what, length in lengths.get(position, {}).items():
        if length > positions:
            return f"must be at least {length}, the length of {what}, not {positions}"


@constraint("model.reward_token", "model.tokenizer")
def only_separate_tokens_have_an_order(reward_token, tokenizer):
    if reward_token == "before" and tokenizer != "separate":
        return f"must be after with model.tokenizer {tokenizer}: before is for separate only"


@constraint("training.warmup_steps", "training.steps", "training.schedule_steps")
def warmup_fits_into_schedule(warmup_steps, steps, schedule_steps):
    name = "schedule_steps" if schedule_steps else "steps"
    if warmup_steps > (most := schedule_steps or steps):
        return f"must be at most training.{name} ({most}), not {warmup_steps}"


@constraint("training.schedule_steps", "training.steps")
def schedule_is_as_long_as_the_training(schedule_steps, steps):
    if 0 < schedule_steps < steps:
        return f"must be 0 or at least training.steps ({steps}), not {schedule_steps}"


@constraint("training.final_learning_rate", "training.learning_rate")
def final_learning_rate_is_below_the_peak(final, peak):
    if final > peak:
        return f"must be at most training.learning_rate ({peak}), not {final}"


def _shorter_than_an_episode(env_steps: int, num_envs: int, episode_length: int) -> str | None:
    """Return a problem if `env_steps` of all actors leave each less than an episode, else None."""
    if env_steps < num_envs * episode_length:
        return (
            f"must be at least {num_envs * episode_length}, an episode of env.episode_length "
            f"({episode_length}) for each of source.num_envs ({num_envs}) actors, not {env_steps}"
        )
