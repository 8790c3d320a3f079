"""Build the documentation: a site from the documents, and a reference with a page for each module."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

from sentinel.config import ROOT
from sentinel.errors import ConfigError, SentinelError

PACKAGES = ("aetherscan", "sentinel")
DOCUMENTS = ("*.md", "docs/**/*.md", "models/*/CARD.md")
LINKED = ("docs/*.png", "docs/*.svg", "docs/*.ipynb", "config.yaml", "LICENSE", "CITATION.cff")
NO_SOURCE_LINE = r"Cannot determine where sentinel\.config\."
"""pdoc says this of the sections of the configuration that are made from the option classes of aetherscan."""


def build(folder: Path) -> Path:
    """Write the site into `folder`, with the reference in its `api`, and return its first page.

    Every link that leads nowhere and every docstring that cannot be rendered is an error.

    Raises:
        ConfigError: this is no checkout, which the documents are part of.
        SentinelError: mkdocs reports a mistake.
        UserWarning: a module, a type or a docstring cannot be rendered.
    """
    if not (ROOT / "mkdocs.yml").exists():
        raise ConfigError("docs: expected a checkout, found an installed package, which has no documents")
    _site(folder.resolve())
    _reference(folder / "api")
    return folder / "index.html"


def _site(folder: Path) -> None:
    """Copy the documents, with all that they link to, and let mkdocs build the site from the copy."""
    with TemporaryDirectory() as place:
        copy = Path(place) / "copy"
        for path in (path for pattern in (*DOCUMENTS, *LINKED) for path in ROOT.glob(pattern)):
            target = copy / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            if target.suffix == ".md":  # mkdocs does not know the names of blocks, by which tests find them
                target.write_text(re.sub(r"(?m)^(```\w+) \w+$", r"\1", target.read_text()))
        (copy / "api").mkdir()
        (copy / "api" / "index.html").touch()  # written later
        own = {"INHERIT": str(ROOT / "mkdocs.yml"), "docs_dir": str(copy), "site_dir": str(folder)}
        config = Path(place) / "mkdocs.yml"
        config.write_text(json.dumps(own))  # which is YAML
        command = [sys.executable, "-P", "-m", "mkdocs", "build", "--strict", "--config-file", str(config)]
        quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
        built = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    if built.returncode:
        raise SentinelError(f"the documents have mistakes:\n{built.stdout}{built.stderr}")


def _reference(folder: Path) -> None:
    os.environ["PDOC_ALLOW_EXEC"] = "1"  # numpy runs `uname` when it is imported
    import pdoc
    import pdoc.render

    templates = ROOT / "docs" / "api"
    pdoc.render.configure(docformat="google", show_source=False, search=False, template_directory=templates)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=NO_SOURCE_LINE, category=UserWarning)
        pdoc.pdoc(*PACKAGES, output_directory=folder)
