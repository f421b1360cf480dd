"""A transformer whose windows begin with the best episodes so far (after Schmied et al. 2024).

Schmied et al. (arXiv 2410.07071) retrieve past episodes that are similar to the present one, prefer
those of high return, and attend to them across. Here the return alone decides, as if there were no
other task: after a change, good episodes of the task before are kept too. They stand in the window
itself: its first quarter has the transitions of the whole episodes with the highest returns before
its other transitions, in the order of time, if there are as many. Of equal ones the newest are
taken, and of the last one its end. A window of training takes them from the whole history before
it, and their decisions are in no loss. A rollout chooses when its window is full, from what the
window holds: an episode that was cut once stays cut.
"""

from ad.errors import SettingError
from ad.models.memories.transformer import Transformer


class Retrieval(Transformer):
    """A transformer that keeps the best episodes when its window is full."""

    retrieved = 0.25

    @classmethod
    def check(cls, config):
        """Raise SettingError if a window has no room for a retrieved transition."""
        super().check(config)
        if not int(config.data.context_length * cls.retrieved):
            text = f"must be at least {round(1 / cls.retrieved)} with model.memory retrieval"
            raise SettingError("data.context_length", text)
