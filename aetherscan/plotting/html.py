"""Write HTML pages that stand alone: tables, and figures embedded as PNG. All text is escaped here."""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

STYLE = """body{font:15px/1.5 system-ui,sans-serif;color:#1b1b1f;max-width:72rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse}td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:left}
td+td,th{white-space:nowrap}td:first-child{min-width:10rem}.wide{overflow-x:auto;margin:.5rem 0 1.5rem}
h2{margin-top:2.2rem}img{width:100%;min-width:44rem}dt{font-weight:600}dd{margin:0 0 .4rem 1rem}"""


def write_html(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write a page from its title (text) and its parts (HTML)."""
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
    )
    path.write_text(f"{head}<body>{''.join(parts)}</body></html>\n", encoding="utf-8")


def heading(text: str, level: int = 2) -> str:
    """Return a heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of text cells, which scrolls sideways on a narrow screen."""
    cells = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="wide"><table><tr>{names}</tr>{cells}</table></div>'


def definitions(texts: Mapping[str, object]) -> str:
    """Return a list of names and their meanings or values."""
    pairs = (f"<dt>{escape(name)}</dt><dd>{escape(str(text))}</dd>" for name, text in texts.items())
    return f"<dl>{''.join(pairs)}</dl>"


def picture(title: str, panels: int, draw: Callable[[Sequence[Axes]], bool | None], png: Path | None = None) -> str:
    """Return a heading and a figure embedded as PNG, or nothing if there is nothing to draw.

    Args:
        title: heading and alternative text of the figure.
        panels: number of panels, side by side.
        draw: draws on the panels; returns False if there is nothing to draw.
        png: where to write the figure as a file too.
    """
    figure = Figure(figsize=(10, 3.9), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if draw(list(figure.subplots(1, panels, squeeze=False)[0])) is False:
        return ""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    if png:
        png.write_bytes(stream.getvalue())
    encoded = base64.b64encode(stream.getvalue()).decode()
    return f'{heading(title)}<div class="wide"><img alt="{escape(title)}" src="data:image/png;base64,{encoded}"></div>'
