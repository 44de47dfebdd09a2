"""What the reader sees: figures with alt text, sliders that need no kernel, sentences with computed numbers, checks."""

from .curves import LOOKS, ORACLE_LOOK, curves
from .figures import COLORS, bars, figure, gallery, grid, style, to_pixels
from .page import about_this_run, check, plain, say, slider, table, to_png

__all__ = [
    "COLORS",
    "LOOKS",
    "ORACLE_LOOK",
    "about_this_run",
    "bars",
    "check",
    "curves",
    "figure",
    "gallery",
    "grid",
    "plain",
    "say",
    "slider",
    "style",
    "table",
    "to_pixels",
    "to_png",
]
