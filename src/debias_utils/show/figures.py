"""Figures: one look, readable in light and dark, each with alt text that says what it shows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import numbers
from .page import NO_MATH, image_tag, text_of, to_png

# Okabe and Ito's palette, told apart with any colour vision
COLORS = {
    "feminine": "#D55E00", "masculine": "#0072B2", "counter": "#CC79A7", "fits": "#009E73", "chance": "#777777",
    "lighter": "#E69F00", "darker": "#5B3A1E", "rho=0": "#56B4E9", "rho=0.5": "#0072B2", "rho=0.9": "#D55E00",
}  # fmt: skip


def style() -> None:
    """Set matplotlib up for the book; a chapter calls it once."""
    import matplotlib

    matplotlib.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 110,
            "figure.facecolor": "white",
            "axes.facecolor": "white",
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
        }
    )


def figure(fig: Any, *, alt: str, caption: str = "") -> None:
    """Show a matplotlib figure with its alt text and caption, and close it."""
    import matplotlib.pyplot as plt
    from IPython.display import HTML, display

    buffer = io.BytesIO()
    fig.savefig(buffer, format="png")
    plt.close(fig)
    display(HTML(_with_caption(image_tag(buffer.getvalue(), alt=alt), caption)))


def gallery(images: np.ndarray, *, columns: int, alt: str, caption: str = "", zoom: int = 1, labels: Sequence[str] = ()) -> None:
    """Show pictures in a grid, row by row.

    Args:
        images: (n, h, w, 3) uint8. columns: pictures in a row. zoom: screen pixels per pixel.
        labels: text in front of each row.
    """
    from IPython.display import HTML, display

    rows = [grid(images[i : i + columns], columns=columns) for i in range(0, len(images), columns)]
    if len(labels) and len(labels) != len(rows):
        raise ValueError(f"{len(rows)} rows need as many labels, got {len(labels)}")
    if not len(labels):
        display(HTML(_with_caption(image_tag(to_png(np.concatenate(rows), zoom=zoom), alt=alt), caption)))
        return
    cells = "".join(
        f'<tr><th scope="row">{text_of(label)}</th><td>{image_tag(to_png(row, zoom=zoom), alt=f"{alt} Row: {label}.")}</td></tr>'
        for label, row in zip(labels, rows, strict=True)
    )
    display(HTML(_with_caption(f'<table class="gallery {NO_MATH}">{cells}</table>', caption)))


def to_pixels(images: Any) -> np.ndarray:
    """Pictures as models take them, (..., 3, h, w) in [0, 1], array or tensor of any precision -> (..., h, w, 3) uint8.

    Raises:
        ValueError: another shape, something missing, values outside [0, 1] by more than 0.1, such as 0..255.
    """
    x = numbers("pictures", images)
    if x.ndim < 3 or x.shape[-3] != 3:
        raise ValueError(f"need pictures (..., 3, h, w), got {x.shape}")
    if x.size and not (x.min() >= -0.1 and x.max() <= 1.1):  # an editor may overshoot a little
        raise ValueError(f"pictures must lie in [0, 1], got values from {x.min():.3g} to {x.max():.3g}")
    return np.moveaxis((x.clip(0, 1) * 255).round().astype(np.uint8), -3, -1)


def grid(images: np.ndarray, *, columns: int) -> np.ndarray:
    """(n, h, w, 3) -> one picture of ceil(n / columns) rows; the rest of the last row is white."""
    images = np.asarray(images)
    n, h, w, _ = images.shape
    rows = -(-n // columns)
    padded = np.full((rows * columns, h, w, 3), 255, np.uint8)
    padded[:n] = images
    return padded.reshape(rows, columns, h, w, 3).transpose(0, 2, 1, 3, 4).reshape(rows * h, columns * w, 3)


def bars(
    axis: Any, values: Sequence[float], *, low: Sequence[float], high: Sequence[float], labels: Sequence[str], **options: Any
) -> None:
    """Horizontal bars with intervals, first label on top. NaN draws nothing."""
    position = np.arange(len(values))[::-1]
    v, lo, hi = (np.asarray(x, float) for x in (values, low, high))
    axis.barh(position, v, height=options.pop("height", 0.7), **options)
    axis.errorbar(v, position, xerr=[np.maximum(v - lo, 0), np.maximum(hi - v, 0)], fmt="none", ecolor="#333333", lw=1, capsize=2)
    axis.set_yticks(position, labels, parse_math=False)  # a dollar sign is one


def _with_caption(body: str, caption: str) -> str:
    return (
        f'<figure class="chapter-figure {NO_MATH}">{body}<figcaption>{text_of(caption)}</figcaption></figure>'
        if caption
        else body
    )
