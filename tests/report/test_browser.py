"""The report's page in a real browser: no errors, nothing cut off, readable text, charts with a text alternative.

Needs Playwright and a Chromium: `make test-slow` installs the first, and takes the second from the system.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from score_files import write_benchmark, write_scores
from slimvox.report import read_runs, read_scores, read_speeds, report_page

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = pytest.mark.slow

WIDTHS = (360, 768, 1280, 1600)
CONTRAST = 4.5
"""Least contrast of text, WCAG 2.2 level AA."""
LOW_CONTRAST = """
(least) => {
  const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => {
    context.clearRect(0, 0, 1, 1); context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data].map((value) => value / 255);
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (rgb(colour)[3] === 1) return rgb(colour);
    }
    return [1, 1, 1, 1];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || node.closest("style, title, svg text.on, svg text.faint")) continue;
    const style = getComputedStyle(node);
    const ink = luminance(rgb(node.closest("svg") ? style.fill : style.color)), paper = luminance(behind(node));
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (contrast < least) found.push(`${contrast.toFixed(2)}: ${node.textContent.trim().slice(0, 40)}`);
  }
  return found;
}
"""
CUT_OFF = """
() => [...document.querySelectorAll("svg")].flatMap((svg) => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1
      || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
  }).map((text) => `${svg.getAttribute("aria-label")}: ${text.textContent}`);
})
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with playwright.sync_playwright() as engines:
        chromium = engines.chromium.launch(executable_path=path, args=quiet)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of one run, and that of two side by side."""
    folder = tmp_path_factory.mktemp("pages")
    scores, speeds = folder / "scores", folder / "speeds.json"
    write_scores(scores, str(runs / "learned"), {"er": 61.2, "ks": 93.0}, parameters=1, spread=1.5)
    write_benchmark(speeds, {str(runs / "learned"): 2.5}, {})
    for name, wanted in (("one", ["learned"]), ("two", ["learned", "random"])):
        found = read_runs([runs / each for each in wanted])
        page = report_page(found, read_scores([scores], found), read_speeds([speeds], found))
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in ("one", "two")}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["one", "two"])
def test_the_page_in_a_browser(browser: Any, pages: dict[str, Path], which: str, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    said: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(pages[which].as_uri())
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"the page is {wide} px wide in a window of {width} px"
        assert page.evaluate(CUT_OFF) == [], f"text outside of its chart at {width} px"
        assert page.evaluate(LOW_CONTRAST, CONTRAST) == []
    assert said == []
    assert requests == [pages[which].as_uri()]
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 3 * 128) == (scheme == "dark"), background
    context.close()


def test_each_chart_has_its_values_as_text(browser: Any, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["two"].as_uri())
    names = [chart.get_attribute("aria-label") for chart in page.get_by_role("img").all()]
    assert len(names) == page.locator("figure svg").count() > 5
    assert page.locator("svg:not([role=img]):not([aria-hidden=true])").count() == 0
    for name in names:
        title, _, values = name.partition(": ")
        assert len(title) > 5 and values, name
    (accuracy,) = [name for name in names if name.startswith("ks of each model")]
    assert accuracy == "ks of each model: learned 93.0 % ± 1.5"
    page.close()
