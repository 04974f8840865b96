"""Write a drawing of a net as SVG whose text stays text, for light and dark pages."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from reproduction.caffe.errors import printable
from reproduction.figure.shapes import FONT, Box, Drawing, Line, Text

_LIGHT = {
    "page": "#ffffff", "even": "#f4f6f8", "odd": "#fbfcfd", "ink": "#1f2328", "soft": "#59636e", "line": "#59636e",
    "conv": "#4a90d9", "pool": "#e8833a", "module": "#2f9e8f", "score": "#3f9b3f", "image": "#9aa4af",
    "map": "#3f9b3f", "up": "#8250df", "step": "#c2255c", "join": "#ffffff", "box": "#ffffff",
}  # fmt: skip
_DARK = {
    "page": "#0d1117", "even": "#151b23", "odd": "#10161d", "ink": "#f0f6fc", "soft": "#a5afba", "line": "#9aa4af",
    "conv": "#58a6ff", "pool": "#f0944d", "module": "#3fc1b0", "score": "#56c45a", "image": "#7d8792",
    "map": "#56c45a", "up": "#b392f0", "step": "#ff7eb0", "join": "#0d1117", "box": "#0d1117",
}  # fmt: skip


def _variables(colours: dict[str, str]) -> str:
    return ";".join(f"--{name}:{colour}" for name, colour in colours.items())


_STYLE = f"""svg{{{_variables(_LIGHT)};font:{FONT:g}px system-ui,'Segoe UI',Helvetica,Arial,sans-serif}}
@media(prefers-color-scheme:dark){{svg{{{_variables(_DARK)}}}}}
text{{fill:var(--ink)}}.title{{font-size:18px;font-weight:600}}.name{{font-weight:600}}.soft{{fill:var(--soft)}}
.step{{fill:var(--step);font-weight:600}}.sign{{font-weight:600}}.page{{fill:var(--page)}}.even{{fill:var(--even)}}
.odd{{fill:var(--odd)}}.image{{fill:var(--image)}}.conv{{fill:var(--conv)}}.pool{{fill:var(--pool)}}
.module{{fill:var(--module)}}.score{{fill:var(--score)}}.map{{fill:var(--map)}}
.join,.loss,.other{{fill:var(--box);stroke:var(--line);stroke-width:1.5}}
.wire{{fill:none;stroke:var(--line);stroke-width:1.5}}.upwire{{fill:none;stroke:var(--up);stroke-width:3}}
.head{{fill:var(--line)}}.uphead{{fill:var(--up)}}"""


def format_svg(drawing: Drawing, title: str) -> str:
    """Format a drawing as an SVG document.

    Args:
        drawing: The shapes.
        title: The accessible name.
    """
    width, height = round(drawing.width), round(drawing.height)
    label = quoteattr(printable(title))
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={label}>',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}" rx="8"/>',
        *map(_format_box, drawing.bands),
        *(text for line in drawing.lines for text in _format_line(line)),
        *map(_format_box, drawing.boxes),
        *(_format_text(text) for text in drawing.texts),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _format_box(box: Box) -> str:
    rect, corner = box.rect, f' rx="{box.radius:g}"' if box.radius else ""
    size = f'width="{rect.right - rect.left:.1f}" height="{rect.bottom - rect.top:.1f}"'
    return f'<rect class="{box.style}" x="{rect.left:.1f}" y="{rect.top:.1f}" {size}{corner}/>'


def _format_line(line: Line) -> list[str]:
    kind, size = ("up", 6.0) if line.is_up else ("", 4.5)
    (x1, y1), (x, y) = line.points[-2:]
    dx, dy = (x > x1) - (x < x1), (y > y1) - (y < y1)
    base = (x - 1.8 * size * dx, y - 1.8 * size * dy)
    points = " ".join(f"{px:.1f},{py:.1f}" for px, py in (*line.points[:-1], base))
    corners = ((x, y), (base[0] + size * dy, base[1] + size * dx), (base[0] - size * dy, base[1] - size * dx))
    head = " ".join(f"{px:.1f},{py:.1f}" for px, py in corners)
    return [f'<polyline class="{kind}wire" points="{points}"/>', f'<polygon class="{kind}head" points="{head}"/>']


def _format_text(text: Text) -> str:
    anchor = f' text-anchor="{text.anchor}"' if text.anchor != "start" else ""
    style = f' class="{text.style}"' if text.style else ""
    return f'<text x="{text.x:.1f}" y="{text.y:.1f}"{anchor}{style}>{escape(printable(text.text))}</text>'
