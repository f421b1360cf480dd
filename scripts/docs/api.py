"""The pages of the API: one for each package, with the docstrings of its modules."""

import re
from pathlib import Path

from ad.runtime.files import write_text
from scripts.docs import ROOT


def write(site: Path) -> list[dict[str, str]]:
    """Write a page for each package in `api/`, and return their entries of the navigation."""
    names = ["ad", "envs"]
    names[1:1] = re.findall(r"^    (\w+)/ {2}", (ROOT / "ad/__init__.py").read_text("utf-8"), re.M)
    entries = []
    for name in names:
        package = name if name in ("ad", "envs") else f"ad.{name}"
        own = [path.stem for path in sorted((ROOT / "ad").glob("[a-z]*.py"))]
        modules = [f"ad.{module}" for module in own] if name == "ad" else []
        blocks = [_block(package, "false" if modules else "true")]
        blocks += [_block(module, "false") for module in modules]
        write_text(site / f"api/{package}.md", f"# {package}\n\n" + "\n".join(blocks))
        entries.append({package: f"api/{package}.md"})
    return entries


def _block(name: str, with_submodules: str) -> str:
    return f"::: {name}\n    options: {{show_submodules: {with_submodules}, heading_level: 2}}\n"
