"""Open every page in headless Chromium with the network off: what it teaches must show without kernel, CDN or account.

Checks that pictures are drawn, mathematics is laid out, sliders change their frame, nothing shows an error, no page is
wider than a narrow screen. Saves screenshots (light and dark, wide and narrow) in `_build/screenshots`.
Says so and passes where no Chromium is found.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
VIEWS = {"wide-light": (1280, "light"), "wide-dark": (1280, "dark"), "narrow-light": (390, "light"), "narrow-dark": (390, "dark")}
STATE = """() => ({
  broken: [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.alt || i.src.slice(0, 60)),
  math: [...document.querySelectorAll('math')].filter(m => m.getBoundingClientRect().width === 0).length,
  errors: document.querySelectorAll('.error, .problematic, .system-message, .traceback').length,
  overflow: document.documentElement.scrollWidth - window.innerWidth,
  text: document.querySelector('main').innerText.length,
})"""
MOVE = """slider => {
  const input = slider.querySelector('input');
  const shown = () => [...slider.querySelectorAll('.frame')].findIndex(f => !f.hidden);
  const before = shown();
  input.value = input.value === input.max ? input.min : input.max;
  input.dispatchEvent(new Event('input', {bubbles: true}));
  return before !== shown() && shown() === Number(input.value);
}"""


def chromium() -> str | None:
    """Path of a Chromium or Chrome: the variable CHROMIUM, or one on the PATH."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next((path for name in names if (path := shutil.which(name))), None)


def page_problems(page: Any, *, narrow: bool) -> list[str]:
    """What is wrong with an opened page."""
    state = page.evaluate(STATE)
    found = [f"picture not drawn: {name}" for name in state["broken"]]
    if state["math"]:
        found.append(f"{state['math']} formulas not laid out")
    if state["errors"]:
        found.append(f"{state['errors']} error boxes")
    if state["text"] < 100:
        found.append("the page is empty")
    if narrow and state["overflow"] > 8:
        found.append(f"{state['overflow']} pixels wider than a narrow screen")
    if not narrow:
        for slider in page.query_selector_all(".frame-slider"):
            if not slider.evaluate(MOVE):
                found.append(f"slider {slider.get_attribute('id')} does not change its frame")
    return found


def main(folder: str, screenshots: str = "_build/screenshots") -> int:
    """Check every page under `folder`; returns 0 if all is well."""
    executable = chromium()
    if executable is None:
        print("No Chromium found (set CHROMIUM=/path/to/it): the pages were not opened in a browser")
        return 0
    from playwright.sync_api import sync_playwright

    found = [page for page in sorted(Path(folder).rglob("*.html")) if "_static" not in page.parts]
    pages = [page for page in found if 'http-equiv="Refresh"' not in page.read_text("utf-8")]  # the root only forwards
    wrong: list[str] = []
    if not pages:
        print(f"no pages under {folder}")
        return 1
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        for view, (width, scheme) in VIEWS.items():
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
            page = context.new_page()
            errors: list[str] = []
            page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            for path in pages:
                errors.clear()
                page.goto(path.resolve().as_uri(), wait_until="load")
                wrong += [f"{path.name} ({view}): {text}" for text in [*page_problems(page, narrow=width < 500), *errors]]
                target = Path(screenshots) / view / f"{path.stem}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=target, full_page=True)
            context.close()
        browser.close()
    print("\n".join(wrong) or f"{len(pages)} pages opened in {len(VIEWS)} views with the network off: all is drawn")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
