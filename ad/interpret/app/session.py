"""A session of the app: one environment, and the model that reads what happens there."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from ad.config.world import make_envs
from ad.data.spec import OBSERVATIONS, field_name
from ad.errors import ConfigError
from ad.interpret.contexts import RETURN_TO_GO
from ad.interpret.edits import EditedHistory, Observation, Reader, Transition
from ad.methods.base import Method
from ad.models.sequence_model import SequenceModel
from ad.rollout.rollout import allowed_logits, derive_seeds
from ad.rollout.tasks import env_seed, policy_of, selection_of
from ad.runtime.run import Run
from envs.rng import uniform
from envs.spaces import split_observation

UNTIL = ("step", "episode", "reward")  # where the model stops playing


class Session:
    """A task under an evaluation seed, played by a person and the model in turn.

    Played by the model alone, it is the rollout of the evaluation. `played` reads the environment's
    transitions; `edited`, None without edits, reads the edited history, by which the model then
    decides. Only task, seed, actions, edits and asked returns change the state.
    """

    def __init__(self, run: Run, method: Method, model: SequenceModel, task: np.ndarray, seed: int):
        self.run, self.method, self.model, self.task = run, method, model, task
        self.config = run.config
        self.env = make_envs(self.config.env, task[None])
        self.mask = self.env.unwrapped.action_mask(self.env.unwrapped.tasks)  # [1, A] or None
        env_seeds, self._key = derive_seeds([env_seed(seed, task)])
        observation, _ = self.env.reset(seed=env_seeds)
        self.played = self._reader(EditedHistory((), self._parts(observation)))
        self.edited: Reader | None = None

    @property
    def reader(self) -> Reader:
        """The reader by which the model decides: `edited` if there is one, else `played`."""
        return self.played if self.edited is None else self.edited

    @property
    def asked(self) -> float | None:
        """The return that is asked for in an episode, None for a model without a return to go."""
        if RETURN_TO_GO not in self.model.tokenizer.inputs:
            return None
        return float(self.reader.inner.target[0])

    def model_action(self) -> int:
        """Return the model's action at the present decision, drawn as in the evaluation."""
        logits = allowed_logits(self.reader.logits, self.mask)
        draw = uniform(self._key, len(self.played.history))
        return int(selection_of(self.config.evaluation)(logits, draw)[0])

    def act(self, action: int) -> Transition:
        """Take `action` and return the transition. Raises ConfigError if the task lacks it."""
        num_actions = self.model.spec.num_actions
        if action >= num_actions or (self.mask is not None and not self.mask[0, action]):
            raise ConfigError(f"the task has no action {action}")
        before = self.played.history.observation
        observation, reward, terminated, truncated, info = self.env.step(np.array([action]))
        final, first = info.get("final_obs", observation), self._parts(observation)
        transition = Transition(
            *(before, action, float(reward[0]), self._parts(final)),
            *(bool(terminated[0]), bool(truncated[0])),
        )
        self.played.add(transition, first)
        if self.edited is not None:
            seen = self.edited.history.observation
            self.edited.add(
                transition if seen is before else replace(transition, observation=seen), first
            )
        return transition

    def play(self, until: str, most: int) -> bool:
        """Let the model play at most `most` steps; return whether it reached the end `until`.

        `until` is one of UNTIL: one step, the end of the episode, or a reward above 0.
        """
        for _ in range(most):
            transition = self.act(self.model_action())
            ends = {"step": True, "episode": transition.ended, "reward": transition.reward > 0}
            if ends[until]:
                return True
        return False

    def edit(self, edit: Callable[[EditedHistory], EditedHistory]) -> None:
        """Let the model decide by the history that `edit` makes of the present one."""
        self.edited = self._reader(edit(self.reader.history))

    def undo_edits(self) -> None:
        """Let the model decide by the transitions of the environment."""
        self.edited = None

    def ask(self, value: float) -> None:
        """Ask for the return `value` in the present episode and in those after it.

        Raises ConfigError if the model is not asked for returns.
        """
        if self.asked is None:
            raise ConfigError("the model is not asked for a return")
        evaluation = self.config.evaluation
        policy = evaluation.policy | {"asked_return": value}
        self.config = replace(self.config, evaluation=replace(evaluation, policy=policy))
        self.played = self._reader(self.played.history)
        if self.edited is not None:
            self.edited = self._reader(self.edited.history)

    def frame(self) -> np.ndarray | None:
        """Draw the present state, uint8 [H, W, 3], or None if the world does not draw."""
        history = self.played.history
        time = int(history.time[-1])
        episode = history.transitions[len(history) - time :] if time else [self._imagined()]
        frames = self.run.world.frames(self.task, _fields(episode))
        return None if frames is None else frames[time]

    def _imagined(self) -> Transition:
        """Return a transition from the present state, and restore the state."""
        action = 0 if self.mask is None else int(self.mask[0].argmax())
        before = self.played.history.observation
        state = self.env.state()
        if state is None:
            return Transition(before, action, 0.0, before)
        observation, reward, *_, info = self.env.step(np.array([action]))
        self.env.restore(state)
        final = self._parts(info.get("final_obs", observation))
        return Transition(before, action, float(reward[0]), final)

    def _reader(self, history: EditedHistory) -> Reader:
        """Return a new policy of the model that has read `history`."""
        policy = policy_of(self.config, self.method, self.model)(1)
        if self.mask is not None:
            policy.set_action_mask(torch.from_numpy(self.mask))
        return Reader(policy, history, self.method.within_episodes)

    def _parts(self, observation) -> Observation:
        """Return the observation of the environment by part."""
        parts = split_observation(self.env.single_observation_space, observation)
        return {name: values[0].copy() for name, values in parts.items()}


def _fields(episode: list[Transition] | tuple[Transition, ...]) -> dict[str, np.ndarray]:
    """Return the transitions of an episode as arrays [T, ...] by field."""
    fields = {
        field_name(role, part): np.stack([getattr(step, role)[part] for step in episode])
        for role in OBSERVATIONS
        for part in episode[0].observation
    }
    return fields | {
        "action": np.array([step.action for step in episode]),
        "reward": np.array([step.reward for step in episode], np.float32),
    }
