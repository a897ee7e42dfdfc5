"""The report in a real browser: it draws, obeys, fits a phone and paper, and asks for nothing."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browsing import A4, PHONE, Visit, too_wide, width
from report_samples import HOSTILE

from polycode_plugins.pages import Page, Section, render, tables

pytestmark = pytest.mark.browser


SPECTRA = "#metric-0-spectra"


@pytest.fixture(scope="module")
def desk(browser: Any, report: Path) -> Iterator[Visit]:
    """The sample report on a desktop, every chart drawn; tests leave it as they like."""
    with Visit(browser, report, permissions=["clipboard-read", "clipboard-write"]) as visit:
        visit.draw()
        yield visit


@pytest.fixture(scope="module")
def phone(browser: Any, hostile_report: Path) -> Iterator[Visit]:
    """The hostile report on a phone: the longest names on the smallest screen."""
    with Visit(browser, hostile_report, **PHONE) as visit:
        visit.draw()
        yield visit


def curves(page: Any, kind: str) -> int:
    """Curves of one kind that are really drawn in the eigenspectra."""
    return page.evaluate(
        """kind => {
          const plot = document.querySelector("#metric-0-spectra .plot");
          const drawn = [...plot.querySelectorAll(".scatterlayer .trace")]
            .filter((t) => t.querySelector("path.js-line")?.getAttribute("d"));
          return drawn.filter((t) => t.__data__[0].trace.meta.startsWith(kind)).length;
        }""",
        kind,
    )


# -- on a desktop -------------------------------------------------------------------------------


def test_it_draws_every_layer_without_a_word_or_a_request(desk, report, analysis):
    page = desk.page
    assert curves(page, "spectrum-") == len(analysis)
    assert curves(page, "beside-") == 3
    points = page.eval_on_selector_all("#metric-0-exponent .points path", "all => all.length")
    assert points == len(analysis)
    assert page.locator("#metric-0-table tbody tr").count() == len(analysis)
    assert width(page) <= 1280
    assert desk.clean(report)


def test_the_chooser_shows_and_hides_what_it_says(desk, report, analysis):
    page = desk.page
    chooser = page.locator(f"{SPECTRA} .chooser")
    chooser.get_by_label("fitted line: none").click()
    chooser.get_by_label("spectrum: none").click()
    assert (curves(page, "spectrum-"), curves(page, "beside-")) == (0, 0)
    site = list(analysis)[5]
    chooser.get_by_label(f"spectrum of {site}").check()
    chooser.get_by_label(f"fitted line of {site}").check()
    assert (curves(page, "spectrum-"), curves(page, "beside-")) == (1, 1)
    shown = page.evaluate(
        "() => document.querySelector('#metric-0-spectra .plot').data"
        ".filter((t) => t.visible && t.meta.startsWith('spectrum')).map((t) => t.name)"
    )
    assert shown == [site]
    chooser.get_by_label("spectrum: all").click()
    chooser.get_by_label("fitted line: all").click()
    assert (curves(page, "spectrum-"), curves(page, "beside-")) == (len(analysis), len(analysis))
    assert desk.clean(report)


def test_a_column_sorts_both_ways(desk, analysis):
    page = desk.page
    order = sorted(analysis, key=lambda site: analysis[site, "spectrum"].participation_ratio)
    for expected in (order, order[::-1]):
        page.locator("#metric-0-table").get_by_role("button", name="participation ratio").click()
        assert page.locator("#metric-0-table tbody th").all_text_contents() == expected
    page.locator("#metric-0-table").get_by_role("button", name="site", exact=True).click()
    assert page.locator("#metric-0-table tbody th").all_text_contents() == list(
        analysis
    )  # 2 before 10


def test_a_table_is_saved_with_its_numbers_in_full(desk, report, analysis, tmp_path):
    page = desk.page
    with page.expect_download() as waiting:
        page.locator(".csv[data-table=metric-0-table]").click()
    assert waiting.value.suggested_filename == "metric-0-table.csv"
    waiting.value.save_as(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["site"] for line in lines] == list(analysis)
    for line, site in zip(lines, analysis, strict=True):
        result = analysis[site, "spectrum"]
        assert float(line["exponent"]) == result.exponent
        assert float(line["participation ratio"]) == result.participation_ratio
        assert line["ranks"].startswith("11–")
    assert desk.clean(report)


def test_more_columns_come_on_demand_and_a_column_leads_to_what_it_means(desk, report):
    page = desk.page
    table = page.locator("#metric-0-table")
    width_of_vectors = table.get_by_role("button", name="width")
    assert not width_of_vectors.is_visible()
    button = page.locator(".columns[data-table=metric-0-table]")
    button.click()
    assert width_of_vectors.is_visible()
    button.click()
    assert not width_of_vectors.is_visible()
    table.get_by_label("What exponent means").click()
    meaning = page.get_by_text("decay of the power law: eigenvalue in proportion")
    assert meaning.first.is_visible()
    assert desk.clean(report)


def test_many_rows_are_filtered(browser, tmp_path):
    sites = [f"blocks.{i}.{kind}" for i in range(10) for kind in ("attn", "mlp")]
    columns = [tables.names("site", sites), tables.column("place", range(20))]
    page_of = Page("p", "s", [Section("one", "One", [tables.Table("long", "All", columns)])])
    path = tmp_path / "page.html"
    path.write_text(render(page_of))
    with Visit(browser, path) as visit:
        visit.page.get_by_label("Filter the rows of: All").fill("MLP blocks.1")
        shown = visit.page.locator("#long tbody tr:not([hidden]) th").all_text_contents()
        assert shown == ["blocks.1.mlp"]
        assert visit.page.get_by_role("status").text_content() == "1 of 20"
        assert visit.clean(path)


def test_a_chart_can_be_taken_away_and_a_record_copied(desk, report):
    page = desk.page
    image = page.evaluate(
        "Plotly.toImage(document.querySelector('#metric-0-exponent .plot'),"
        " { format: 'png', width: 400, height: 300 })"
    )
    assert image.startswith("data:image/png;base64,")
    page.locator("[data-copy=run]").click()
    page.get_by_text("Copied").wait_for()
    record = page.locator("#run").text_content()
    assert page.evaluate("navigator.clipboard.readText()") == record
    assert desk.clean(report)


def test_dark_and_light_are_readable_and_follow_a_change(desk):
    page = desk.page
    paper = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        expected = "'rgb(29, 36, 48)'" if scheme == "light" else "'rgb(230, 233, 237)'"
        tick = "document.querySelector('.chart .xtick text')"
        page.wait_for_function(f"() => getComputedStyle({tick}).fill === {expected}")
        shades = page.evaluate(
            """() => {
              const luminance = (c) => {
                const [r, g, b] = c.match(/[\\d.]+/g).map((v) => (v / 255) ** 2.2);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
              };
              const of = (selector, property) =>
                luminance(getComputedStyle(document.querySelector(selector))[property]);
              return [of("body", "backgroundColor"), of("body", "color"),
                of(".chart", "backgroundColor"), of(".chart .xtick text", "fill"),
                of(".chart", "backgroundColor"), of(".chart figcaption p", "color")];
            }"""
        )
        for pair in (shades[0:2], shades[2:4], shades[4:6]):
            assert (max(pair) + 0.05) / (min(pair) + 0.05) > 4.5  # WCAG's contrast, level AA
        paper[scheme] = shades[0]
    assert paper["light"] > 0.8
    assert paper["dark"] < 0.02


def test_paper_gets_white_pages_and_the_static_charts(desk):
    page = desk.page
    page.set_viewport_size(A4)
    page.emulate_media(color_scheme="dark")
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF-")
    page.emulate_media(media="print", color_scheme="dark")
    shown = page.evaluate(
        """() => {
          const visible = (s) => [...document.querySelectorAll(s)].filter((e) => e.offsetHeight);
          return {
            pictures: visible(".static").filter((i) => i.naturalWidth).length,
            interactive: visible(".plot, .chooser, button.copy, nav").length,
            paper: getComputedStyle(document.body).backgroundColor,
            ink: getComputedStyle(document.body).color,
          };
        }"""
    )
    white, ink = "rgb(255, 255, 255)", "rgb(29, 36, 48)"
    assert shown == {"pictures": 4, "interactive": 0, "paper": white, "ink": ink}
    assert width(page) <= A4["width"]
    assert too_wide(page) == []
    assert off_paper(page) == []


def off_paper(page: Any) -> list[str]:
    """Tables and cells that hold more than their place on the paper, which cannot be scrolled."""
    return page.evaluate(
        """paper => [
          ...[...document.querySelectorAll("table")].filter((t) => t.offsetHeight)
            .filter((t) => t.getBoundingClientRect().right > paper + 1),
          ...[...document.querySelectorAll("td, th")].filter((c) => c.offsetHeight)
            .filter((c) => c.scrollWidth > c.clientWidth + 1),
        ].map((e) => e.textContent.trim().slice(0, 60))""",
        A4["width"],
    )


def test_tables_fit_the_paper_in_whatever_font(browser, report):
    """Also in letters far wider and larger than those that the columns were counted for."""
    with Visit(browser, report, viewport=A4) as visit:
        visit.page.emulate_media(media="print")
        for font in ("serif", "monospace", "16px/1.5 monospace"):
            kind = "font" if "px" in font else "font-family"
            style = f"table, table * {{ {kind}: {font} !important; }}"
            added = visit.page.add_style_tag(content=style)
            assert off_paper(visit.page) == [], font
            assert width(visit.page) <= A4["width"], font
            added.evaluate("style => style.remove()")


def test_a_choice_made_before_the_chart_is_drawn_counts_and_sites_can_be_filtered(
    browser, report, analysis
):
    with Visit(browser, report) as visit:
        page = visit.page
        assert page.locator(f"{SPECTRA}[data-state]").count() == 0
        page.get_by_label("filter sites").fill("BLOCKS.1")
        assert page.locator(".row[data-name]:visible").count() == 3  # 1, 10, 11
        page.locator("[data-kind=spectrum][data-to=none]").evaluate("button => button.click()")
        page.get_by_label("filter sites").fill("")
        assert page.locator("[data-kind=spectrum]:checked").count() == len(analysis) - 3
        visit.draw(SPECTRA)
        assert curves(page, "spectrum-") == len(analysis) - 3


def test_without_scripts_pictures_and_tables_are_there(browser, report, analysis):
    with Visit(browser, report, java_script_enabled=False) as visit:
        page = visit.page
        for picture in page.locator(".static").all():
            assert picture.bounding_box()["height"] > 200
        assert not page.locator(".chooser").is_visible()
        assert not page.locator(".interactive").is_visible()
        assert page.locator("#metric-0-table tbody th").all_text_contents() == list(analysis)
        assert visit.clean(report)


# -- on a phone, and against attacks --------------------------------------------------------------


def test_a_phone_needs_no_sideways_scrolling(phone, hostile_report):
    page = phone.page
    assert width(page) <= 390
    assert too_wide(page) == []
    for figure in page.query_selector_all("figure.chart"):
        inside, outside = figure.query_selector(".main-svg").bounding_box(), figure.bounding_box()
        assert outside["x"] <= inside["x"]
        assert inside["x"] + inside["width"] <= outside["x"] + outside["width"]
    # The table scrolls by itself, and its first column stays.
    page.locator(".scroll").first.evaluate("e => { e.scrollLeft = 200 }")
    assert page.locator("#metric-0-table tbody th").first.bounding_box()["x"] >= 0
    assert phone.clean(hostile_report)


def test_hostile_names_execute_nothing_and_are_drawn_as_they_are(phone, hostile_report):
    page = phone.page
    for i, name in enumerate(HOSTILE):
        expected = "".join(name.replace("\udcff", "\\udcff").split())
        page.evaluate(
            """i => {
              const plot = document.querySelector("#metric-0-exponent .plot");
              const curve = plot.data.findIndex((t) => t.mode === "markers");
              Plotly.Fx.unhover(plot);
              Plotly.Fx.hover(plot, [{ curveNumber: curve, pointNumber: i }]);
            }""",
            i,
        )
        page.wait_for_function(
            """expected => document.querySelector("#metric-0-exponent .hovertext")
              ?.textContent.replace(/\\s/g, "").startsWith(expected + "depth")""",
            arg=expected,
        )
        assert page.locator(".hovertext a").count() == 0
    assert page.title() == "Analysis of <img src=x onerror=alert(1)>"
    assert phone.clean(hostile_report)


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A server on this machine, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("guarded", [True, False])
def test_what_would_get_past_the_escaping_meets_the_policy(
    browser, report, tmp_path, listener, guarded
):
    address, asked = listener
    attack = (
        "<script>document.title = 'owned'</script>"
        "<img src=x onerror=\"document.title = 'owned'\">"
        f"<img src='{address}/image'><link rel=stylesheet href='{address}/style'>"
        f"<iframe src='{address}/frame'></iframe><script src='{address}/script'></script>"
    )
    text = report.read_text(encoding="utf-8").replace("<main>", f"<main>{attack}")
    if not guarded:  # without the policy the attack works, so that its failing means something
        text = text.replace("Content-Security-Policy", "x-no-policy")
    page = tmp_path / "attacked.html"
    page.write_text(text, encoding="utf-8")
    with Visit(browser, page) as visit:
        assert (visit.page.title() == "owned") != guarded
        assert sorted(asked) == ([] if guarded else ["/frame", "/image", "/script", "/style"])
        if guarded:
            visit.draw("#metric-0-exponent")  # its own scripts run all the same
            assert any("Content Security Policy" in line for line in visit.said)
