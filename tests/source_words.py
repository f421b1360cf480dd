"""The words of a command line that choose each registered source, learning in short histories."""

from ad.registry import SOURCES

SETTINGS = {"stable_baselines3": {"arguments": "{n_steps: 50, batch_size: 200, n_epochs: 1}"}}
SOURCE_WORDS = {
    name: [
        *("--source.algorithm", name),
        *(
            word
            for setting, value in SETTINGS.get(name, {}).items()
            for word in (f"--source.settings.{setting}", value)
        ),
    ]
    for name in SOURCES
}
