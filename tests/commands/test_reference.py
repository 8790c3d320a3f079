"""The site is built from documents and docstrings; a dead link, or a docstring that cannot be rendered, is an error."""

import re
import subprocess
import sys

from sentinel.config import ROOT


def test_the_reference_has_a_page_for_every_module_and_no_warning(tmp_path):
    command = [sys.executable, "-P", "-m", "sentinel.cli", "docs", "--output", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    modules = [path for top in ("aetherscan", "sentinel") for path in (ROOT / top).rglob("[!_]*.py")]
    modules = [path for path in modules if path.parent.name != "io"]  # the page of aetherscan.io has what it exports
    assert "Sentinel searches radio-telescope observations" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / "docs" / "operating" / "index.html").exists()
    tmp_path /= "api"
    pages = [tmp_path / path.relative_to(ROOT).with_suffix(".html") for path in modules]
    assert (tmp_path / "aetherscan" / "io.html").exists()
    assert len(pages) > 80
    assert [str(page) for page in pages if not page.exists()] == []
    first = (tmp_path / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'<li><a href="([^"]*)">[^<]*</a>:', first)
    assert len(links) > 3
    assert [link for link in links if not (tmp_path / link).exists()] == []
