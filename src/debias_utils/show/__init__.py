"""What the reader sees: figures with alt text, sliders that need no kernel, sentences with computed numbers, checks."""

from .figures import COLORS, bars, figure, gallery, grid, style, to_pixels
from .page import about_this_run, check, say, slider, table, to_png

__all__ = [
    "COLORS",
    "about_this_run",
    "bars",
    "check",
    "figure",
    "gallery",
    "grid",
    "say",
    "slider",
    "style",
    "table",
    "to_pixels",
    "to_png",
]
