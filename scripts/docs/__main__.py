"""Build the documentation into a folder that opens from disk: bash scripts/docs.sh.

The folder is logs/docs, and its first page index.html. A link to a file, a page or a
heading that does not exist is an error, as is any warning of MkDocs.
"""

import logging
import tempfile
from pathlib import Path

from ad.cli import run_and_exit
from ad.errors import ConfigError, MachineError
from ad.runtime.console import info
from scripts.docs import api, components, methods, pages, worlds

HERE = Path(__file__).parent
GENERATED = {  # by the name that a page has in its place
    "component": components.written,
    "picture": pages.picture,
    "methods": methods.sections,
    "worlds": worlds.gallery,
}


def build(site: Path) -> None:
    """Write the site into the folder `site` in place of what it holds.

    Raises ConfigError if MkDocs warns of anything.
    """
    try:
        import mkdocs.commands.build
        from mkdocs.config import load_config
        from mkdocs.exceptions import Abort
    except ImportError as error:
        raise MachineError("the site needs the extra docs: bash scripts/docs.sh") from error
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        pages.write(source, GENERATED)
        config = load_config(
            str(HERE / "mkdocs.yml"), docs_dir=folder, site_dir=str(site.resolve()), strict=True
        )
        config.nav.append({"API": api.write(source)})
        try:
            mkdocs.commands.build.build(config)
        except Abort as error:
            raise ConfigError("the site has mistakes, which are listed above") from error
    info(f"docs: {site / 'index.html'}")


if __name__ == "__main__":
    run_and_exit(lambda argv: build(Path("logs/docs")))
