"""Outputs of a chapter that are no plots. Everything is plain HTML and Markdown: no kernel, no network."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import pandas as pd

_ids = count()
NO_MATH = "tex2jax_ignore mathjax_ignore"  # classes: in Jupyter and Colab, a dollar sign is one
# an escaped sign or code on one line, which both show what they hold; or a `<` that could begin HTML
_CODE_OR_TAG = re.compile(r"\\.|(?<!`)(`+)(?!`)[^\n|]*?(?<!`)\1(?!`)|<(?=[A-Za-z/!?])")


def text_of(label: object) -> str:
    """HTML that shows this label, name or caption as itself, between tags or in quotes."""
    return html.escape(_whole(str(label)))


def say(text: str) -> None:
    """Show a sentence; its numbers are computed by the cell that says it. Markdown; HTML in it shows as itself."""
    from IPython.display import Markdown, display

    display(Markdown(_CODE_OR_TAG.sub(lambda found: "&lt;" if found[0] == "<" else found[0], text)))


def plain(label: object) -> str:
    """Markdown that shows this label as itself in a sentence of `say`, whatever signs are in it."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(_whole(str(label)).split()))


def _whole(text: str) -> str:
    """Names of files can hold half characters, which no page can: they are spelt out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def table(data: pd.DataFrame, *, caption: str, digits: int = 2) -> None:
    """Show a table with a caption; floats are rounded to `digits`, and everything else is shown in full, as itself."""
    from IPython.display import HTML, display

    look = {"float_format": lambda x: f"{x:.{digits}f}", "border": 0, "classes": f"dataframe {NO_MATH}", "na_rep": "-"}
    with pd.option_context("display.max_colwidth", None):  # or long names end in dots
        body = data.to_html(index=False, **look)
    display(HTML(_whole(body).replace("<thead>", f"<caption>{text_of(caption)}</caption><thead>", 1)))


def image_tag(png: bytes, *, alt: str, width: int | None = None) -> str:
    """An <img> that carries its PNG and its alt text.

    Raises:
        ValueError: the alt text is missing or says nothing.
    """
    if len(alt.split()) < 4:
        raise ValueError(f"alt text must say what the picture shows, got {alt!r}")
    size = f' width="{int(width)}"' if width else ""
    return f'<img{size} alt="{text_of(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def to_png(image: np.ndarray, *, zoom: int = 1) -> bytes:
    """(h, w, 3) uint8 -> PNG bytes; each pixel becomes zoom x zoom."""
    from PIL import Image

    picture = Image.fromarray(np.asarray(image))
    buffer = io.BytesIO()
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def slider(frames: Sequence[bytes], labels: Sequence[str], *, alt: Sequence[str], name: str, start: int = 0) -> None:
    """Show precomputed PNG frames under a slider that works without a kernel; all labels are listed for a printed page.

    Args:
        frames: PNG bytes. labels: what the slider says at each frame. alt: alt text of each frame.
        name: what the slider changes. start: the frame that is shown first.
    """
    from IPython.display import HTML, display

    if not len(frames) == len(labels) == len(alt):
        raise ValueError(f"frames, labels and alt need one length, got {len(frames)}, {len(labels)}, {len(alt)}")
    key = f"frames-{next(_ids)}-" + re.sub(r"\W+", "-", name)
    pictures = "".join(
        f'<div class="frame"{"" if i == start else " hidden"}>{image_tag(frame, alt=text)}</div>'
        for i, (frame, text) in enumerate(zip(frames, alt, strict=True))
    )
    options = "".join(f'<option value="{i}" label="{text_of(label)}"></option>' for i, label in enumerate(labels))
    # the script reads the labels from the options: none of them stands in code
    display(
        HTML(
            f'<div class="frame-slider {NO_MATH}" id="{key}"><label>{text_of(name)}: <output>{text_of(labels[start])}</output> '
            f'<input type="range" min="0" max="{len(frames) - 1}" value="{start}" step="1" list="{key}-list" '
            f'aria-label="{text_of(name)}"></label><datalist id="{key}-list">{options}</datalist>{pictures}'
            f"<script>(() => {{const root = document.getElementById({json.dumps(key)}), input = root.querySelector('input');"
            "const options = root.querySelectorAll('option'), frames = root.querySelectorAll('.frame');"
            "input.addEventListener('input', () => {"
            "root.querySelector('output').textContent = options[input.value].getAttribute('label');"
            "frames.forEach((frame, i) => {frame.hidden = i != input.value;});});})();</script></div>"
        )
    )


def check(answer: Any, right: Any, *, hint: str, tolerance: float = 0.01) -> None:
    """Answer a reader's exercise.

    Args:
        answer: what the reader found; None or ... means not answered yet.
        right: the value that the run computes, or a function of the answer that says whether it is right.
        hint: shown when the answer is wrong. tolerance: allowed distance for numbers.
    """
    if answer is None or answer is ...:
        print("Not answered yet: replace the dots with your answer and run the cell again.")
        return
    print("Right!" if _matches(answer, right, tolerance) else f"Not yet: you gave {answer!r}. Hint: {hint}")


def _matches(answer: Any, right: Any, tolerance: float) -> bool:
    if callable(right):
        return bool(right(answer))
    if isinstance(right, (int, float, np.number)) and not isinstance(right, bool):
        try:
            return abs(float(answer) - float(right)) <= tolerance
        except (TypeError, ValueError):
            return False
    if isinstance(right, set):
        return set(answer) == right
    return answer == right


def about_this_run(parts: Any) -> None:
    """Say what computed the numbers of a chapter: profile, seed, device, versions, weights."""
    import platform

    import torch

    from .. import __version__

    clip = parts.clip()
    say(
        f"*Computed by this page: profile {plain(parts.name)}, seed {parts.seed}, device {plain(parts.device)}, "
        f"{plain(platform.machine())} with {torch.get_num_threads()} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__.split('+')[0]}, debias_utils {__version__}, "
        f"weights of {plain(clip.name)}: `{clip.checksum[:12]}`.*"
    )
