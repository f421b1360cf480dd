"""The policy of a frozen model in a rollout, with its context: the last transitions."""

import torch

from ad.data.spec import field_name
from ad.errors import ConfigError
from ad.models.sequence_model import SequenceModel
from ad.models.tokenizer import TableCache, Window


class ContextPolicy:
    """Action logits for N environments in lockstep, from the window of each.

    The logits are those of a full forward pass over the window. When the window of
    `context_length` decisions is full, its oldest half is dropped and the cache is filled again
    from the rest, since the keys of every layer depend on what was dropped. Raises ConfigError if
    the model has further inputs and the class does not give them.
    """

    def __init__(self, model: SequenceModel, num_envs: int, context_length: int):
        if model.tokenizer.inputs and type(self).inputs is ContextPolicy.inputs:
            names = ", ".join(model.tokenizer.inputs)
            raise ConfigError(
                f"the model reads {names}, which {type(self).__name__} does not give: a subclass "
                "gives it in inputs()"
            )
        self.model, self.length, self.capacity = model, 0, context_length
        self.device = model.head.weight.device
        self.step = 0  # decisions so far, also dropped ones
        self.padding = model.spec.padding | {"step": 0, "valid": False}
        self.padding |= dict.fromkeys(model.tokenizer.inputs, 0.0)
        shapes = {name: part.shape for name, part in model.spec.observation_fields.items()}
        self.fields = {
            name: torch.full(
                # a transition, then the decisions after it
                (num_envs, context_length + 1, *shapes.get(name, ())),
                padding,
                dtype=self._dtype(name, padding),
                device=self.device,
            )
            for name, padding in self.padding.items()
        }
        self.tables: TableCache = {}  # computed at the first decision: the model is frozen
        self.cache = self._new_cache(num_envs)

    def act(
        self, observation: torch.Tensor | dict[str, torch.Tensor], time: torch.Tensor
    ) -> torch.Tensor:
        """Return logits [N, A] for the decision at `observation` and `time`, int64 [N].

        `observation` is a tensor [N, ...], or one for each of its parts.
        """
        self.enter(observation, time)
        # The decision before has its outcome now, which is not in the cache yet.
        start = self.length - 2 if self.cache.length else 0
        return self._logits(start)

    def enter(
        self, observation: torch.Tensor | dict[str, torch.Tensor], time: torch.Tensor
    ) -> None:
        """Add the decision at `observation` and `time`, int64 [N], to the context, without logits.

        A past that is known is read faster with this than with `act`.
        """
        if self.length == self.capacity:
            self._drop_oldest()
        self.length += 1
        self._write(time=time, step=self.step, valid=True, **self.inputs())
        self._write_observation("observation", observation)
        self.step += 1

    def inputs(self) -> dict[str, torch.Tensor]:
        """Return the model's further inputs for the present decision, [N] each, by name.

        A subclass overrides it for a model that has some.
        """
        return {}

    def observe(
        self,
        action: torch.Tensor,
        reward: torch.Tensor,
        terminated: torch.Tensor,
        truncated: torch.Tensor,
        next_observation: torch.Tensor | dict[str, torch.Tensor],
    ) -> None:
        """Add the outcome of the last decision, [N, ...] each.

        `next_observation` is the true one, also at the end of an episode.
        """
        self._write(action=action, reward=reward)
        self._write_observation("next_observation", next_observation)

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        self.fields = {name: value[envs] for name, value in self.fields.items()}
        self.cache.select(envs)

    def reward_in_context(self) -> torch.Tensor:
        """Return whether a reward above 0 is in the window or right before it, bool [N]."""
        return (self.fields["reward"] > 0).any(1)

    def window(self) -> Window:
        """Return the window [N, T + 1] of T decisions; the last one has no outcome yet."""
        return self._window_from(0)

    def _new_cache(self, num_envs: int):
        """Return an empty cache for windows of `capacity` decisions."""
        return self.model.new_cache(num_envs, self.capacity)

    def _logits(self, start: int) -> torch.Tensor:
        """Return the logits of the last decision from the window's part that begins at `start`."""
        with self.model.tokenizer.caching(self.tables):
            return self.model(self._window_from(start), self.cache, start)[:, -1]

    def _dtype(self, name: str, padding: float) -> torch.dtype:
        parts = self.model.spec.observation_fields
        if name in parts:
            return getattr(torch, parts[name].window_dtype)
        return {bool: torch.bool, int: torch.int64, float: torch.float32}[type(padding)]

    def _write(self, **values) -> None:
        """Set fields of the last decision, each to a number or a tensor [N]."""
        for name, value in values.items():
            self.fields[name][:, self.length] = value

    def _write_observation(self, role: str, observation) -> None:
        parts = observation if isinstance(observation, dict) else {"": observation}
        self._write(**{field_name(role, part): values for part, values in parts.items()})

    def _window_from(self, start: int) -> Window:
        return {name: value[:, start : self.length + 1] for name, value in self.fields.items()}

    def _drop_oldest(self) -> None:
        kept = self.capacity // 2  # decisions
        for name, value in self.fields.items():
            # The transition before the first kept decision stays too.
            value[:, : kept + 1] = value[:, self.length - kept : self.length + 1].clone()
            value[:, kept + 1 :] = self.padding[name]
        self.length = kept
        self.cache.reset()
