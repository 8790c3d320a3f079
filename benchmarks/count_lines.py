"""Count lines of code, without blank lines, comments and docstrings, per package and in total.

Run from the repository root: `python benchmarks/count_lines.py [FOLDER]`. It counts aetherscan/, sentinel/ and
sentinel.py; tests and benchmarks are not counted. Any statement that is only a string counts as a docstring.
"""

import argparse
import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING)


def count_lines(source: str) -> int:
    """Return the number of lines that hold code."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    code = {
        line
        for token in tokens
        if token.type not in (*LAYOUT, tokenize.ENDMARKER)
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            code -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(code)


def main(root: Path) -> None:
    counts = Counter[str]()
    for path in (root / "sentinel.py", *(root / "aetherscan").rglob("*.py"), *(root / "sentinel").rglob("*.py")):
        folder = path.relative_to(root).parent
        counts[str(folder if path.name != "sentinel.py" else path.name)] += count_lines(
            path.read_text(encoding="utf-8")
        )
    for package, lines in sorted(counts.items()):
        print(f"{lines:7,}  {package}")
    print(f"{counts.total():7,}  total")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="of the repository (default: this one)")
    main(parser.parse_args().folder)
