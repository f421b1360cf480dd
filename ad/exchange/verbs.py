"""The command line of import_histories, which writes the experiment that other verbs read."""

import argparse
import inspect
from collections.abc import Sequence
from pathlib import Path


def import_histories(argv: Sequence[str]) -> None:
    """Read learning histories in another format, and write an experiment to train on them.

    A data set of export_histories keeps its world and its split. Another one is a world of its own
    that can be trained on, but not stepped: there is no evaluation. Minari's is read as the history
    of one actor. In XLand-MiniGrid's layout the last observation of an episode is not known: the
    one before it is repeated. Then train with the file that --to names.
    """
    raw = argparse.RawDescriptionHelpFormatter
    about = inspect.getdoc(import_histories)
    parser = argparse.ArgumentParser("ad import_histories", description=about, formatter_class=raw)
    parser.add_argument("--format", required=True, help="minari or xland")
    place = "the data set: for minari its id, for xland the path of a file"
    parser.add_argument("--from", required=True, dest="place", help=place)
    where = "the experiment's file, e.g. configs/mine.yaml"
    parser.add_argument("--to", required=True, type=Path, help=where)
    parser.add_argument("--root", default=".", help="the folder of histories/")
    fresh = "import the histories again, and overwrite another experiment"
    parser.add_argument("--fresh", choices=("true", "false"), default="false", help=fresh)
    options = parser.parse_args(argv)
    from ad.exchange import imports

    arguments = options.format, options.place, options.to, options.root
    imports.import_histories(*arguments, options.fresh == "true")
