"""Play beside a released model: the app on a folder that `ad.exchange.release.release` wrote."""

from pathlib import Path

from ad.config.parser import load_file
from ad.errors import ConfigError
from ad.exchange.release import load_release
from ad.interpret.app.server import serve_run
from envs.registry import did_you_mean

MODELS = Path("models")  # where released models lie whose names alone are given


def play(model: Path, port: int) -> None:
    """Serve the app of the released model in the folder `model`, or in one of that name in models/.

    Raises ConfigError if there is none, and the errors of `load_release` and `serve_run`.
    """
    folder = next((path for path in (model, MODELS / model) if path.is_dir()), None)
    if folder is None:
        known = sorted(path.parent.name for path in MODELS.glob("*/config.yaml"))
        hint = did_you_mean(str(model), known) or f" ({MODELS}/ has: {', '.join(known) or 'none'})"
        raise ConfigError(f"there is no released model {model}{hint}")
    load_release(folder)  # raises an error before the settings are believed
    config = load_file(folder / "config.yaml", root=".")
    serve_run(config, port, lambda: load_release(folder).model)
