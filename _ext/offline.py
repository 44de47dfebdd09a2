"""Keep the pages free of the network: mathematics as MathML, made while building, and no code-running service.

Browsers draw MathML themselves, where the usual renderer loads MathJax from elsewhere; the conversion is latex2mathml's.
Jupyter Book writes the address of thebe into every page even when it is switched off (and twice, which is a script error).
"""

from __future__ import annotations

from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert


def visit_inline(translator: Any, node: Any) -> None:
    """Write inline mathematics."""
    translator.body.append(convert(node.astext()))
    raise SkipNode


def visit_block(translator: Any, node: Any) -> None:
    """Write displayed mathematics."""
    translator.body.append(f'<div class="math-block">{convert(node.astext(), display="block")}</div>')
    raise SkipNode


def drop_thebe(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Leave thebe's scripts and styles out of a page."""
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context[kind] if "thebe" not in f"{file.filename} {file.attributes.get('body', '')}"]


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer under the name ``mathml``, and the filter after every extension that adds scripts."""
    app.add_html_math_renderer("mathml", inline_renderers=(visit_inline, None), block_renderers=(visit_block, None))
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
