"""Build the API reference: one HTML page for each module, from the public docstrings."""

import os
import warnings
from pathlib import Path

from sentinel.config import ROOT

PACKAGES = ("aetherscan", "sentinel")
NO_SOURCE_LINE = r"Cannot determine where sentinel\.config\."
"""pdoc says this of the sections of the configuration that are made from the option classes of aetherscan."""


def build(folder: Path) -> Path:
    """Write the pages into `folder` and return the first one; every warning is an error.

    Raises:
        UserWarning: a module, a type or a docstring cannot be rendered.
    """
    os.environ["PDOC_ALLOW_EXEC"] = "1"  # numpy runs `uname` when it is imported
    import pdoc
    import pdoc.render

    templates = ROOT / "docs" / "api"
    pdoc.render.configure(docformat="google", show_source=False, search=False, template_directory=templates)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=NO_SOURCE_LINE, category=UserWarning)
        pdoc.pdoc(*PACKAGES, output_directory=folder)
    return folder / "index.html"
