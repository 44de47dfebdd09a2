"""Draw people: an SVG of named layers, its pixels, and the pixel masks of its parts.

Faces are DiceBear's style *toon-head* (a remix of "ToonHead" by Johan Melin, CC BY 4.0); what an occupation adds is the
project's own SVG. resvg turns SVG into pixels, the same on every machine.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from .occupations import EVERYDAY, OCCUPATIONS, PARTS

SIZE = 64  # pixels
MASK_PARTS = ("face", "hair", "clothing", "headgear", "tool", "background")
_BOX = 768  # the coordinates of toon-head
_SKIN_COLORS = {"light": "#f6d3b8", "tan": "#d9a173", "brown": "#9c6239", "dark": "#573420"}
_MASK_OF_COMPONENT = {"rearHair": "hair", "beard": "hair", "hair": "hair", "clothes": "clothing"}  # the rest is face
_GLASSES = (
    '<g fill="none" stroke="#1c1c22" stroke-width="16"><circle cx="314" cy="402" r="58"/><circle cx="454" cy="402" r="58"/>'
    '<path d="M372 396h24M256 392l-50-16M512 392l50-16"/></g>'
)
_LIPS = (
    '<path d="M322 512c22-34 44-34 62-20 18-14 40-14 62 20-24 42-100 42-124 0z" fill="#d8204f"/>'
    '<path d="M340 512c26-12 62-12 88 0" stroke="#7c0f2b" stroke-width="9" fill="none"/>'
)
_EARRINGS = (
    '<g fill="#f2c230" stroke="#8a6a08" stroke-width="5"><circle cx="204" cy="486" r="25"/><circle cx="564" cy="486" r="25"/></g>'
)
_BLUSH = (
    '<g fill="#f2536b" fill-opacity=".6"><ellipse cx="266" cy="478" rx="40" ry="28"/>'
    '<ellipse cx="502" cy="478" rx="40" ry="28"/></g>'
)
_WRINKLES = (
    '<g fill="none" stroke="#000" stroke-opacity=".55" stroke-width="13"><path d="M310 268h148M326 300h116"/>'
    '<path d="M246 440l-20 26M522 440l20 26M296 470c-14 30-16 50-10 76M472 470c14 30 16 50 10 76"/></g>'
)
_STREAKS = (
    '<g fill="none" stroke="#e8e8ea" stroke-width="20"><path d="M214 300c-6-60 0-110 24-150M554 300c6-60 0-110-24-150"/>'
    '<path d="M300 150c10-24 24-40 44-52M468 150c-10-24-24-40-44-52"/></g>'
)


@cache
def _style() -> Any:
    from dicebear import Style

    return Style(json.loads((files("dicebear_styles") / "toon-head.json").read_text("utf-8")))


@cache
def _component(name: str, variant: str, color: str) -> str:
    """One component of toon-head as an SVG fragment in its place; each uses one colour at most."""
    from dicebear import Avatar

    options = {"seed": "toonville", "hairProbability": 0, "rearHairProbability": 0, "beardProbability": 0}
    options |= {f"{name}Variant": [variant], **({f"{name}Probability": 100} if f"{name}Probability" in options else {})}
    options |= {f"{kind}Color": [color] for kind in ("skin", "hair", "clothes") if color}
    svg = Avatar(_style(), options).to_string()
    shape = re.search(rf'<g id="({name}-[^"]+)">(.*?)</g>(?=<g id|<clipPath)', svg, re.DOTALL)
    use = re.search(rf'<use transform="([^"]+)" href="#{name}-', svg)
    if shape is None or use is None:
        raise RuntimeError(f"dicebear drew no {name!r} {variant!r}: is dicebear-styles a tested version?")
    return f'<g transform="{use[1]}">{shape[2]}</g>'


def layers(person: Any) -> list[tuple[str, str]]:
    """The drawing of one person as (mask part, SVG fragment), back to front.

    Args:
        person: a row of the table (anything with its columns as attributes, such as `itertuples` gives).
    """
    drawn = {part: OCCUPATIONS[owner] for part in PARTS if (owner := getattr(person, part))}
    props = {part: job.props[part] for part, job in drawn.items()}
    cut, color = person.everyday_clothes, person.everyday_color
    if "clothing" in drawn:
        cut, color = drawn["clothing"].clothes, drawn["clothing"].color
    skin = _SKIN_COLORS[person.skin]
    components = (  # back to front, in toon-head's own order
        ("rearHair", person.rear_hair, person.hair_color),
        ("body", "body", skin),
        ("head", "head", skin),
        ("clothes", cut, color),
        ("mouth", person.mouth, ""),
        ("beard", person.beard, person.hair_color),
        ("eyes", person.eyes, ""),
        ("eyebrows", person.eyebrows, person.hair_color),
        ("hair", person.hair, person.hair_color),
    )
    drawing = [("background", f'<rect width="{_BOX}" height="{_BOX}" fill="{person.plain_background}"/>')]
    if "background" in props:
        drawing.append(("background", props["background"]))
    for name, variant, color in components:
        if not variant:
            continue
        if name == "mouth":  # age and make-up lie on the skin, under mouth, beard, eyes and hair
            drawing += [("face", svg) for on, svg in ((person.blush, _BLUSH), (person.wrinkles, _WRINKLES)) if on]
        fragment = _LIPS if name == "mouth" and person.lips else _component(name, variant, color)
        drawing.append((_MASK_OF_COMPONENT.get(name, "face"), fragment))
        if name == "clothes" and "clothing" in props:
            drawing.append(("clothing", props["clothing"]))
        if name == "hair" and person.streaks:
            drawing.append(("hair", _STREAKS))
    drawing += [("face", svg) for on, svg in ((person.earrings, _EARRINGS), (person.glasses, _GLASSES)) if on]
    if "headgear" in props:
        drawing.append(("headgear", props["headgear"]))
    if "tool" in props:
        mirror = f"translate({_BOX} 0) scale(-1 1)" if person.tool_left else "translate(0 0)"
        drawing.append(("tool", f'<g transform="{mirror}">{props["tool"]}</g>'))
    return drawing


def to_svg(drawing: Iterable[tuple[str, str]]) -> str:
    """One SVG document from the layers of a drawing."""
    body = "".join(fragment for _, fragment in drawing)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_BOX} {_BOX}" fill="none">{body}</svg>'


def rasterize(svg: str, *, size: int = SIZE) -> np.ndarray:
    """Pixels of an SVG document: (size, size, 3) uint8 RGB, over black where nothing is drawn."""
    import resvg_py
    from PIL import Image

    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="#000", skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def render(people: pd.DataFrame, *, size: int = SIZE) -> np.ndarray:
    """Draw each person: (n, size, size, 3) uint8 RGB. The same row gives the same pixels."""
    if people.empty:
        return np.zeros((0, size, size, 3), np.uint8)
    return np.stack([rasterize(to_svg(layers(person)), size=size) for person in people.itertuples(index=False)])


def masks(people: pd.DataFrame, *, size: int = SIZE) -> dict[str, np.ndarray]:
    """How much of each pixel each part covers, exactly, because we draw it.

    Every layer is painted in a pure colour of its part and drawn as usual, so that edges mix as they do in the picture.

    Returns:
        {part: (n, size, size) float32 in [0, 1]} for `MASK_PARTS`; the parts of a pixel sum to 1.
    """
    groups = (("face", "hair", "clothing"), ("headgear", "tool", "background"))
    colors = ("#ff0000", "#00ff00", "#0000ff")
    covered = np.zeros((len(people), len(MASK_PARTS), size, size), np.float32)
    for row, person in enumerate(people.itertuples(index=False)):
        drawing = layers(person)
        for i, group in enumerate(groups):
            paint = dict(zip(group, colors, strict=True))
            flat = [(part, _flatten(svg, paint.get(part, "#000000"))) for part, svg in drawing]
            covered[row, 3 * i : 3 * i + 3] = rasterize(to_svg(flat), size=size).transpose(2, 0, 1) / 255.0
    covered /= covered.sum(axis=1, keepdims=True)  # 8-bit rounding of stacked edges adds up to 4 %
    return {part: covered[:, i] for i, part in enumerate(MASK_PARTS)}


def _flatten(fragment: str, color: str) -> str:
    """The same shapes in one opaque colour."""
    fragment = re.sub(r'(fill|stroke)-opacity="[^"]*"', "", fragment)
    return re.sub(r'\b(fill|stroke)="(?!none)[^"]*"', rf'\1="{color}"', fragment)


def everyday(people: pd.DataFrame) -> pd.DataFrame:
    """The same people in everyday clothes: what an editor is given to start from."""
    return people.assign(occupation=EVERYDAY, **dict.fromkeys(PARTS, ""))
