"""Draw docs/architecture.svg from the layers in pyproject.toml: the packages that one package may import lie below it.

    python benchmarks/draw_architecture.py

The picture is text, so a changed contract shows as a changed line. A test compares the file with the contracts.
"""

import sys
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "architecture.svg"
HOLDS = {
    "api": "for a notebook",
    "train": "encoder, forests",
    "evaluate": "recall, false alarms",
    "plotting": "waterfalls, pages",
    "search": "power to candidates",
    "simulate": "synthetic skies",
    "cadence": "which files belong together",
    "io": "files to arrays",
    "detector": "release in memory",
    "options": "settings objects",
    "header": "of one observation",
    "errors": "exceptions, by what to do",
    "kernels": "compiled functions",
    "cli": "arguments, help",
    "commands": "one module per command",
    "ingest": "folders to cadences",
    "web": "health, metrics, pages",
    "workers": "search under a lease",
    "monitor": "status, latency",
    "notify": "outbox, Slack, webhook",
    "injection": "canary, blind tones",
    "programs": "supervisord, logs",
    "store": "queue, schema, releases",
    "config": "config.yaml",
    "failpoint": "for tests",
}
COLORS = {"aetherscan": ("#e8f0fb", "#2f5d9b"), "sentinel": ("#fdf1e3", "#a5601a")}
WIDTH, ROW, GAP, LEFT = 440, 46, 10, 20
MIDDLE = 'text-anchor="middle"'


def layers(root: Path = ROOT) -> dict[str, list[list[str]]]:
    """Return for each top package its layers, from the top down, each a list of packages."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return {
        contract["containers"][0]: [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]
        for contract in contracts
        if contract["type"] == "layers"
    }


def column(package: str, rows: list[list[str]], left: int) -> Iterator[str]:
    """Yield the SVG elements of one top package.

    Args:
        package: aetherscan or sentinel.
        rows: its layers.
        left: of the column, in pixels.
    """
    fill, line = COLORS[package]
    yield f'<text x="{left}" y="30" font-size="18" font-weight="bold" fill="{line}">{package}</text>'
    for i, names in enumerate(rows):
        width = (WIDTH - GAP * (len(names) - 1)) / len(names)
        for j, name in enumerate(names):
            x, y = left + j * (width + GAP), 44 + i * (ROW + GAP)
            text, holds = x + width / 2, escape(HOLDS.get(name, ""))
            yield f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{ROW}" rx="6" fill="{fill}" stroke="{line}"/>'
            yield f'<text x="{text:.0f}" y="{y + 20}" font-size="14" font-weight="bold" {MIDDLE}>{name}</text>'
            yield f'<text x="{text:.0f}" y="{y + 37}" font-size="11" {MIDDLE}>{holds}</text>'


def svg() -> str:
    """Return the picture."""
    columns = layers()
    height = 44 + max(map(len, columns.values())) * (ROW + GAP) + 46
    body = [
        element
        for i, (package, rows) in enumerate(sorted(columns.items(), reverse=True))
        for element in column(package, rows, LEFT + i * (WIDTH + 3 * LEFT))
    ]
    note = (
        "A package imports only packages in lower rows of its column. sentinel imports aetherscan, never the reverse."
    )
    total = 2 * WIDTH + 5 * LEFT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height}" font-family="sans-serif">',
            f'<rect width="{total}" height="{height}" fill="white"/>',
            *body,
            f'<text x="{LEFT}" y="{height - 16}" font-size="12">{note}</text>',
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    if missing := {name for rows in layers().values() for row in rows for name in row} - HOLDS.keys():
        sys.exit(f"HOLDS: expected a few words on {', '.join(sorted(missing))}")
    PICTURE.write_text(svg(), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
