"""Play beside a released model: the app on a folder that `ad.exchange.release.release` wrote."""

from dataclasses import asdict
from pathlib import Path

from ad.config.parser import load_file
from ad.errors import ConfigError
from ad.exchange.foreign import places
from ad.exchange.release import load_release
from ad.interpret.app.server import serve_run
from envs.registry import did_you_mean

MODELS = Path("models")  # where released models lie whose names alone are given


def play(model: Path, port: int, trust_code: bool = False) -> None:
    """Serve the app of the released model in the folder `model`, or in one of that name in models/.

    Raises ConfigError if there is none, or if it names classes or agents outside the suite, unless
    `trust_code`; and the errors of `load_release` and `serve_run`.
    """
    folder = next((path for path in (model, MODELS / model) if path.is_dir()), None)
    if folder is None:
        known = sorted(path.parent.name for path in MODELS.glob("*/config.yaml"))
        hint = did_you_mean(str(model), known) or f" ({MODELS}/ has: {', '.join(known) or 'none'})"
        raise ConfigError(f"there is no released model {model}{hint}")
    config = load_release(folder, trust_code).config  # an error before the settings are believed
    foreign = places(asdict(config))
    if config.source.algorithm == "demonstrations":  # their agents are files that run code
        foreign.append("demonstrations")
    if foreign and not trust_code:
        raise ConfigError(
            f"{folder} names {foreign[0]!r:.200}, whose code would run: --trust-code true runs it"
        )
    config = load_file(folder / "config.yaml", root=".")
    serve_run(config, port, lambda: load_release(folder, trust_code).model)
