"""The interface of online methods, which learn in the worlds themselves and read no histories."""

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, NoReturn, Protocol

import numpy as np

from ad.methods.base import Method

if TYPE_CHECKING:  # torch is imported where it is used: a configuration needs only the class
    from torch import nn

    from ad.config.schema import Experiment


class Learner(Protocol):
    """The learner of an online method.

    A train step depends on the seed and its number, not on the process that takes it.
    `model` has the spec in `spec` and is what the method's `build` returns. `learning_rate` is that
    of the last train step. `state` holds tensors and plain types.
    """

    model: "nn.Module"
    learning_rate: float

    def train_step(self, step: int) -> dict[str, float]:
        """Take train step number `step`, from 0, and return numbers for the log by name.

        `trial_return`, the mean return of the trials, is among them. Raises NumericError if the
        model is not finite any more.
        """

    def state(self) -> dict:
        """Return the state between two train steps, without the model's."""

    def load_state(self, state: dict) -> None:
        """Set the state to one returned by `state`."""


class OnlineMethod(Method):
    """A method that learns in the worlds of its train tasks.

    `train_steps` says how many train steps a whole training has, whatever `training.steps` is.
    """

    online: ClassVar[bool] = True
    any_size: ClassVar[bool] = False

    def loss(self, model, batch) -> NoReturn:
        """Raise TypeError: an online method has a learner, no windows."""
        raise TypeError(f"{type(self).__name__} learns in the worlds and has no loss of windows")

    @abstractmethod
    def train_steps(self, config: "Experiment") -> int:
        """Return the number of train steps of a whole training."""
        raise NotImplementedError

    @abstractmethod
    def transitions(self, config: "Experiment") -> int:
        """Return the number of transitions that a whole training takes in the worlds."""
        raise NotImplementedError

    @abstractmethod
    def learner(self, config: "Experiment", tasks: np.ndarray) -> Learner:
        """Return what learns in `tasks`, int [K, ...], as it is before the first train step.

        What it draws is derived from `training.train_seed`.
        """
        raise NotImplementedError
