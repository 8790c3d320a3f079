"""TODO."""

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

STYLE = """body{font:15px/1.5 system-ui,sans-serif;color:#1b1b1f;max-width:64rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;
text-align:left}h2{margin-top:2.2rem}
.met{color:#1a7f37}.missed{color:#c8102e}img{max-width:100%}dt{font-weight:600}dd{margin:0 0 .4rem 1rem}"""


def write_html(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write parts of a page under an escaped title."""
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    path.write_text(f"{head}<body>{''.join(parts)}</body></html>\n", encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of escaped cells."""
    cells = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{cells}</table>"


def picture(title: str, panels: int, draw: Callable[[Sequence[Axes]], bool], png: Path | None = None) -> str:
    """Return a heading and a picture, nothing where there is nothing to draw; the picture may be a file as well."""
    figure = Figure(figsize=(10, 3.9), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if not draw(list(figure.subplots(1, panels, squeeze=False)[0])):
        return ""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    if png:
        png.write_bytes(stream.getvalue())
    encoded = base64.b64encode(stream.getvalue()).decode()
    return f'<h2>{escape(title)}</h2><img alt="{escape(title)}" src="data:image/png;base64,{encoded}">'
