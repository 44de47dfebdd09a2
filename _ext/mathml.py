"""Render mathematics as MathML while building, so that no page needs MathJax, a script or a network.

Browsers draw MathML themselves. The conversion is latex2mathml's.
"""

from __future__ import annotations

from typing import Any

from latex2mathml.converter import convert


def visit_inline(translator: Any, node: Any) -> None:
    """Write inline mathematics."""
    from docutils.nodes import SkipNode

    translator.body.append(convert(node.astext()))
    raise SkipNode


def visit_block(translator: Any, node: Any) -> None:
    """Write displayed mathematics."""
    from docutils.nodes import SkipNode

    translator.body.append(f'<div class="math-block">{convert(node.astext(), display="block")}</div>')
    raise SkipNode


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer under the name ``mathml``."""
    app.add_html_math_renderer("mathml", inline_renderers=(visit_inline, None), block_renderers=(visit_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
