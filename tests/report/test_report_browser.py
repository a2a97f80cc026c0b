"""The page in a real browser: headless Chromium, driven by playwright.

Needs `pip install playwright` and a Chromium: one of the system's (`apt install chromium`), or
playwright's own (`playwright install chromium`).
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from report_runs import write_run

from tikmix_hf.report import read_run, read_runs, write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHECKS = (Path(__file__).parent / "checks.js").read_text("utf-8")
# Debian's `chromium` is a script that starts this.
DEBIAN = Path("/usr/lib/chromium/chromium")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
LOOKS = [("one", width, scheme) for width in (360, 768, 1280) for scheme in ("light", "dark")]
LOOKS += [(name, *look) for name in ("many", "both") for look in ((360, "light"), (1280, "dark"))]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        installed = [own, DEBIAN, *(Path(shutil.which(name) or "/nowhere") for name in NAMES)]
        found = next((path for path in installed if path.is_file()), None)
        if found is None:
            pytest.skip("no Chromium is installed")
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports of an ordinary run, of one with very many hostile names, and of several."""
    folder = tmp_path_factory.mktemp("runs")
    bad = "</script><img src=x onerror=alert(1)>"
    hostile = (bad, '"><svg onload=alert(2)>', "nospace" * 30, *(f"d{k}" for k in range(27)))
    one = write_run(folder / "one")
    many = write_run(folder / "many", domains=hostile, targets=(bad, "nospace" * 30, "c"))
    found = {"one": read_runs([one]), "many": [read_run(many, bad)], "both": read_runs([one, many])}
    return {name: write_report(runs, folder / f"{name}.html") for name, runs in found.items()}


@pytest.fixture
def visit(browser, pages):
    """Opens a report; whatever it says on the console or asks the network for is a failure."""
    contexts, faults = [], []

    def open_page(name="one", *, width=1280, scheme="light", **settings):
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme, **settings)
        contexts.append(context)
        page = context.new_page()
        address = pages[name].as_uri()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda asked: asked.url == address or faults.append(asked.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.mark.parametrize(("name", "width", "scheme"), LOOKS)
def test_the_page_can_be_read_on_every_screen(visit, name, width, scheme):
    page = visit(name, width=width, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    assert page.evaluate(CHECKS) == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", ground))) / 3
    assert (brightness < 60) == (scheme == "dark")


def test_every_chart_is_drawn(visit):
    page = visit()
    areas = page.evaluate(
        """() => [".band", ".marks .marker", "path.line", ".bar rect:not(.track)", ".error"].map(
          (kind) => [...document.querySelectorAll(kind)].map((mark) => {
            const box = mark.getBoundingClientRect();
            return Math.max(box.width, box.height) > 1;
          }))"""
    )
    numbers = [len(kind) for kind in areas]
    # 4 mixtures of 3 domains; 6 gains, 9 losses of targets and 8 scores; 1 + 3 + 2 lines; bars of
    # 3 domains twice and of 3 updates; 8 scores' errors.
    assert numbers == [12, 6 + 9 + 8, 6, 9, 8]
    assert all(all(kind) for kind in areas)


def test_the_slider_shows_one_update_at_a_time_by_keyboard(visit):
    page = visit()
    shown = "[...document.querySelectorAll('.step')].map((step) => step.checkVisibility())"
    assert page.evaluate(shown) == [False, False, True]
    slider = page.get_by_role("slider", name="Update")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(shown) == [False, True, False]
    assert slider.get_attribute("aria-valuetext") == "Update 2 of 3, step 20"


def test_a_cell_tells_its_influence_and_error_by_mouse_touch_and_keyboard(visit):
    page = visit("one", width=360, has_touch=True)
    cell = page.locator(".step.shown tbody td").first
    cell.tap()
    tip = page.get_by_role("tooltip")
    told = tip.text_content()
    assert re.fullmatch(r"web on arc: [\d,]+ ± [\d.]+; [+−][\d.]+ against the mixture.*", told)
    box = tip.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    cell.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert tip.text_content().startswith("code on piqa: ")
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.locator(".marks .marker").first.hover()
    assert tip.text_content().startswith("arc, steps 10 to 20: predicted ")


def test_without_scripts_everything_is_there(visit):
    page = visit("one", java_script_enabled=False)
    assert [step.is_visible() for step in page.locator(".step").all()] == [True] * 3
    assert not page.locator(".slider").is_visible()
    assert page.locator(".band title").first.text_content().startswith("web: ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_print_it_is_light_and_whole(visit, scheme):
    page = visit("one", scheme=scheme)
    page.get_by_role("slider").focus()
    page.keyboard.press("Home")
    page.emulate_media(media="print", color_scheme=scheme)
    steps = "[...document.querySelectorAll('.step')].map((step) => step.checkVisibility())"
    assert page.evaluate(steps) == [False, False, True]
    assert not page.locator("nav").is_visible()
    colours = page.evaluate(
        "[document.body, document.querySelector('section')].map(e => [getComputedStyle(e).color,"
        " getComputedStyle(e).backgroundColor])"
    )
    assert {ground for _, ground in colours} == {"rgb(255, 255, 255)"}
    assert {ink for ink, _ in colours} == {"rgb(34, 38, 43)"}
    assert page.evaluate(CHECKS) == []
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 12
