"""The colours of every chart and figure, on the screen and on paper."""

from __future__ import annotations

from functools import cache

#: Okabe & Ito's colours, darkened where they are pale on white: blue, orange, green, purple, ...
COLOURS = ("#0072b2", "#b65200", "#007f5f", "#a9507f", "#2f84b8", "#7a6a00")
#: The same for a dark screen.
DARK_COLOURS = ("#56b4e9", "#f0923b", "#3ccf9f", "#e292be", "#9ecbf0", "#e0cf4f")
MARKERS = ("o", "s", "D", "^", "v", "*")
INK, FAINT, GRID, WARNING = "#1d2430", "#8a929e", "#dfe3e8", "#c2261c"
#: Viridis's last fifth is too pale for lines on white.
SCALE_END = 0.85
#: Shades of that scale which a style sheet has, as classes h0, h1, ...
SHADES = 32


def variables() -> str:
    """The colours as variables of a style sheet: --c0, --c1, ..."""

    def declared(colours: tuple[str, ...]) -> str:
        return " ".join(f"--c{i}: {colour};" for i, colour in enumerate(colours))

    dark = "@media screen and (prefers-color-scheme: dark)"
    return f":root {{ {declared(COLOURS)} }}\n{dark} {{ :root {{ {declared(DARK_COLOURS)} }} }}\n"


@cache
def shades() -> str:
    """The depth scale as classes of a style sheet."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    scale = colormaps["viridis"]
    return "".join(
        f".shade-{i} {{ background-color: {to_hex(scale(SCALE_END * i / (SHADES - 1)))}; }}\n"
        for i in range(SHADES)
    )
