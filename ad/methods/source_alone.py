"""The source algorithm itself as a method: it learns each evaluated task from nothing.

No histories are collected and no model is trained. The rollout of an evaluated task is the
beginning of a learning history: `source.algorithm` with `source.settings`, one actor in one task
(`ad.evaluation.source_play`). It tells what a method with trained weights gains over an agent that
has none, under the protocol and the scores of all methods. There is no loss but the source's own,
and no forward pass.
"""

from dataclasses import replace

from ad.errors import SettingError
from ad.methods.base import Method
from ad.registry import SOURCES


class SourceAlone(Method):
    """The configured source in place of a model; the sections data, model, training are unused."""

    reads_histories = False
    has_model = False

    def check(self, config, world):
        """Raise SettingError if the source cannot learn in `world`, or knows the task it is in."""
        source = SOURCES.load(config.source.algorithm)
        if source.privileged_info == "optimum" or not source.learns:
            text = "cannot be source if source.algorithm learns nothing or knows the optimal policy"
            raise SettingError("method.name", text)
        if config.evaluation.worlds:
            text = "cannot be source with evaluation.worlds: it has no model to transfer"
            raise SettingError("method.name", text)
        if config.evaluation.env_steps is not None:
            text = "cannot be source with evaluation.env_steps: a source plays whole episodes"
            raise SettingError("method.name", text)
        played = replace(config.source, num_envs=1)
        source.check(replace(config, source=played), world)

    def train_steps(self, config):
        """Return 0."""
        return 0

    def transitions(self, config):
        """Return 0: it reads no histories."""
        return 0
