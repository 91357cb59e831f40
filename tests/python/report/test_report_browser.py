"""The page as a browser shows it: errors, width, contrast, sorting."""

import re
from html.parser import HTMLParser

import pytest

pytestmark = pytest.mark.slow  # starts a browser

PAGES = ["full", "plain", "seeds"]
WIDTHS = [1280, 390]
# Ratio of luminances, as WCAG defines it, of each text and what is under it; the lowest
# for texts of the page and of the figures.
CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d");
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (colour) => rgb(colour).slice(0, 3)
    .map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (rgb(colour)[3] === 255) return luminance(colour);
    }
    return 1;
  };
  const found = {page: [99, ""], figure: [99, ""]};
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const words = texts.currentNode.data.trim();
    if (!words || element.matches("script, style, title")) continue;
    const inside = element.closest("svg");
    const style = getComputedStyle(element);
    const pair = [luminance(inside ? style.fill : style.color), paper(element)];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    const key = inside ? "figure" : "page";
    if (ratio < found[key][0]) found[key] = [ratio, words];
  }
  return found;
})()"""
COLUMN = """((title) => {
  const table = document.querySelector("table");
  const titles = [...table.tHead.rows[0].cells];
  const place = titles.findIndex((t) => t.textContent.trim() === title);
  return [
    titles[place].getAttribute("aria-sort"),
    [...table.tBodies[0].rows].map((row) => row.cells[place].textContent),
  ];
})"""
CLICK = """((title) => [...document.querySelectorAll("th button")]
  .find((button) => button.textContent.trim() === title).click())"""


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_fits_and_is_readable(browser, reports, name, width, dark):
    browser.open(reports / name / "report.html", width, dark)
    assert browser.problems() == []
    # Also the details, which are closed at first.
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (not dark)
    for lowest, words in browser.evaluate(CONTRAST).values():
        assert lowest >= 4.5, words
    smallest = browser.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')].map("
        "t => t.getBoundingClientRect().height))"
    )
    assert smallest >= 7


def test_click_on_a_title_sorts(browser, reports):
    browser.open(reports / "full" / "report.html", 1280)

    def column(title):
        return browser.evaluate(f"{COLUMN}({title!r})")

    def click(title):
        browser.evaluate(f"{CLICK}({title!r})")

    assert column("average")[0] is None
    before = column("average")[1]
    click("average")
    values = sorted(before, key=float, reverse=True)
    assert column("average") == ["descending", values]
    click("average")
    assert column("average") == ["ascending", values[::-1]]
    click("model")
    assert column("average")[0] is None
    order, names = column("model")
    assert order == "ascending" and names == sorted(names)
    # Empty cells (no mismatch) stay last, in both directions.
    for order in ("descending", "ascending"):
        click("mismatch")
        found, cells = column("mismatch")
        filled = [float(cell) for cell in cells if cell]
        assert found == order
        assert cells[len(filled) :] == [""] * 3
        assert filled == sorted(filled, reverse=order == "descending")


def test_sorting_by_keyboard(browser, reports):
    """Titles are buttons: Enter on one sorts."""
    browser.open(reports / "full" / "report.html", 390)
    browser.evaluate("document.querySelectorAll('th button')[2].focus()")
    key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
    browser.page("Input.dispatchKeyEvent", type="keyDown", **key)
    browser.page("Input.dispatchKeyEvent", type="keyUp", **key)
    assert browser.evaluate(f"{COLUMN}('movie')")[0] == "descending"


class Links(HTMLParser):
    """Values of all attributes that load something."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.tags = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        names = ("src", "href", "xlink:href", "srcset", "action")
        self.found += [value for name, value in attrs if name in names]


@pytest.mark.parametrize("name", PAGES)
def test_page_needs_no_other_file(reports, name):
    text = (reports / name / "report.html").read_text()
    links = Links()
    links.feed(text)
    assert all(link.startswith(("#", "data:")) for link in links.found), links.found
    assert not links.tags & {"b", "iframe", "object", "embed"}  # <b>: the YAML's
    assert not re.findall(r"url\((?!#)|@import", text)
