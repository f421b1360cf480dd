"""Methods: what is learned from windows of histories, and how the model acts in a rollout.

A method is a subclass of `ad.methods.base.Method`: a loss, and where they differ from the defaults
its settings, the fields of its windows, its model, its sampler and its policy. A method that learns
in the worlds brings a learner in place of loss and sampler. Another method is one file here and one
line of `ad.registry`, or a class in a file of the user.
"""

from ad.registry import METHODS


def build_method(config):
    """Build the method that a `MethodConfig` names, with its settings."""
    method_class = METHODS.load(config.name)
    return method_class(method_class.Settings(**config.settings))


def train_steps(config) -> int:
    """Return the number of train steps of a whole training of the Experiment `config`."""
    return build_method(config.method).train_steps(config)


def build_model(method, spec, config, device="cpu"):
    """Return a new model of `method` on `device`; `config` is the Experiment.

    `spec` describes the histories.
    """
    from ad.models.sequence_model import SequenceModel

    model = method.build(spec, config.model).to(device)
    if config.training.segments > 1:
        for module in model.modules():  # a method's model may have others in it
            if isinstance(module, SequenceModel):
                module.segment_length = config.data.context_length
    return model
