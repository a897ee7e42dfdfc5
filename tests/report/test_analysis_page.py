"""The report as a document: whole, closed, faithful to the results, deaf to foreign text."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import html
import json
import math
import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from plotly.offline import get_plotlyjs
from report_reading import Reading, faults, read
from report_samples import BROKEN, FEW, HOSTILE, Spread, planted

import polycode_plugins as pc
from polycode_plugins.metrics import chapter
from polycode_plugins.pages import charts, depth_charts
from polycode_plugins.pages.escaping import csp_hash, plotly_text, script_json
from polycode_plugins.pages.pages import Page, Prose, Section, render
from polycode_plugins.report.analysis_page import page_of


@pytest.fixture(scope="module")
def text(report) -> str:
    return report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text) -> Reading:
    return read(text)


@pytest.fixture(scope="module")
def hostile_text(hostile_report) -> str:
    return hostile_report.read_text(encoding="utf-8")


def shown(text: str) -> str:
    """Text without what cannot be written, or would turn the text around it."""
    return text.replace("\udcff", "\\udcff").replace("\u202e", "\\u202e")


def rows(reading: Reading, id: str) -> list[list[str]]:
    """The body of a table, as text."""
    body: list[list[str]] = []
    inside = False
    for element in reading.elements:
        if element.tag == "table":
            inside = element.attributes.get("id") == id  # sheets for paper have none
        elif inside and element.tag == "tr" and "tbody" in element.inside:
            body.append([])
        elif inside and element.tag in {"td", "th"} and "tbody" in element.inside:
            body[-1].append(element.text)
    return body


# -- the file -----------------------------------------------------------------------------------


def test_it_is_one_closed_well_formed_file(report, text, page):
    assert text.startswith("<!doctype html>")
    assert faults(text) == []
    assert [p.name for p in report.parent.iterdir()] == ["report.html"]
    assert report.stat().st_size < 3_000_000


def test_the_policy_allows_the_pages_own_scripts_and_nothing_else(page):
    meta = page.one("meta", http_equiv="Content-Security-Policy")
    policy = dict(d.strip().split(" ", 1) for d in meta.attributes["content"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data: blob:"
    scripts = [e.text for e in page.all("script") if not e.attributes.get("type")]
    expected = {csp_hash(s) for s in [*scripts, get_plotlyjs()]}
    assert set(policy["script-src"].split()) == expected


def test_plotly_is_inside_as_its_package_ships_it(page):
    packed = page.one("script", id="plotly").text
    assert gzip.decompress(base64.b64decode(packed)).decode("utf-8") == get_plotlyjs()


def test_the_same_analysis_gives_the_same_file_also_after_loading(analysis, text, tmp_path):
    analysis.save(tmp_path / "run")
    again = pc.Analysis.load(tmp_path / "run").report(tmp_path / "again.html")
    stable = re.compile(r"<pre id=\"run\".*?</pre>", re.DOTALL)  # a saved record is sorted
    assert stable.sub("", again.read_text(encoding="utf-8")) == stable.sub("", text)


def test_a_place_that_cannot_be_written_is_refused_and_stays_as_it_was(analysis, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(pc.StateError, match="cannot write"):
        analysis.report(tmp_path / "file" / "report.html")
    assert (tmp_path / "file").read_text() == "mine"


def test_without_plotly_the_charts_are_pictures(analysis, tmp_path, monkeypatch):
    for name in [m for m in sys.modules if m.partition(".")[0] == "plotly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    from polycode_plugins.pages import pages as module

    module._plotly.cache_clear()
    try:
        text = analysis.report(tmp_path / "report.html").read_text()
    finally:
        module._plotly.cache_clear()
    assert '<script type="text/plain" id="plotly"></script>' in text
    assert text.count('<img class="static" src="data:image/svg+xml') == 4
    assert faults(text) == []


# -- what it says -------------------------------------------------------------------------------


def test_every_site_is_in_the_table_the_chooser_and_the_charts(analysis, page):
    sites = list(analysis)
    assert [row[0] for row in rows(page, "metric-0-table")] == sites
    assert [e.attributes["data-name"] for e in page.all("div", class_="row")] == sites
    figures = page.figures()
    assert list(figures) == [
        f"metric-0-{n}" for n in ("exponent", "spectra", "dimensions", "action")
    ]
    spectra = [t for t in figures["metric-0-spectra"]["data"] if t["meta"].startswith("spectrum-")]
    assert [t["name"] for t in spectra] == sites
    hovers = [h for t in figures["metric-0-exponent"]["data"] for h in t.get("text", [])]
    assert all(any(f"<b>{site}</b>" in h for h in hovers) for site in sites)


def test_the_table_holds_the_results(analysis, page):
    head = [e.text for e in page.all("th") if "thead" in e.inside]
    for site, row in zip(analysis, rows(page, "metric-0-table"), strict=True):
        cells = dict(zip(head[: len(row)], row, strict=True))
        result = analysis[site, "spectrum"]
        assert cells["exponent"] == f"{result.exponent:.3f}"
        assert cells["95% interval"] == f"{result.interval[0]:.3f} – {result.interval[1]:.3f}"
        assert float(cells["participation ratio"]) == pytest.approx(
            result.participation_ratio, rel=5e-3
        )
        assert cells["samples"] == f"{result.n_samples:,}"
        assert cells["width"] == "96"


def test_the_action_stands_beside_that_of_its_power_law(analysis, page):
    drawn = {t["name"]: t for t in page.figures()["metric-0-action"]["data"]}
    broken = {site for site in analysis if analysis[site, "spectrum"].power_law.broken}
    assert broken
    assert not broken & set(drawn)  # they have no exponent to be drawn at
    figure = page.one("figure", id="metric-0-action")
    assert f"{len(broken)} site" in figure.text
    for site, row in zip(analysis, rows(page, "metric-0-actions"), strict=True):
        result = analysis[site, "spectrum"]
        if site in broken:
            continue
        share = 1 - 1 / result.n_samples
        expected = 3 / (2 * 96) * result.total_variance / result.eigenvalues[0] * share
        assert drawn[site]["y"] == pytest.approx([expected], rel=1e-5)
        assert drawn[site]["x"] == pytest.approx([max(0.0, result.exponent)], rel=1e-5)
        assert float(row[2]) == pytest.approx(expected, rel=0.05)
        law = 3 / (2 * 96) * (np.arange(1, 97) ** -max(0.0, result.exponent)).sum()
        assert float(row[3]) == pytest.approx(law, rel=0.05)


def test_the_planted_exponents_are_drawn_with_their_intervals(analysis, page):
    data = page.figures()["metric-0-exponent"]["data"]
    (points,) = [t for t in data if t["mode"] == "markers"]
    for i, site in enumerate(analysis):
        result = analysis[site, "spectrum"]
        assert points["x"][i] == i
        assert points["y"][i] == pytest.approx(result.exponent, rel=1e-5)
        top = points["y"][i] + points["error_y"]["array"][i]
        bottom = points["y"][i] - points["error_y"]["arrayminus"][i]
        assert (bottom, top) == pytest.approx(result.interval, rel=1e-4)
        if i not in (BROKEN, FEW):
            assert points["y"][i] == pytest.approx(0.6 + 0.05 * i, abs=0.06)


def test_a_broken_law_is_a_cross_a_gap_and_a_sentence(analysis, page):
    broken = [analysis[site, "spectrum"].power_law.broken for site in analysis]
    assert broken[BROKEN]
    data = page.figures()["metric-0-exponent"]["data"]
    (points,) = [t for t in data if t["mode"] == "markers"]
    assert [s == "x" for s in points["marker"]["symbol"]] == broken
    (line,) = [t for t in data if t["mode"] == "lines" and t["line"]["dash"] == "solid"]
    assert [y is None for y in line["y"]] == broken
    (sentence,) = [e.text for e in page.all("li") if "do not follow one power law" in e.text]
    assert f"blocks.{BROKEN}.hook_resid_post" in sentence
    assert "not one power law" in page.one("figure", id="metric-0-exponent").text
    verdict = rows(page, "metric-0-table")[BROKEN][4]
    rank = analysis[f"blocks.{BROKEN}.hook_resid_post", "spectrum"].power_law.evidence.rank
    assert verdict == f"broken at {rank}"


def test_few_samples_are_said_in_words(page):
    (warnings,) = page.all("aside", class_="warnings")
    assert f"At blocks.{FEW}.hook_resid_post: there are no more samples than units" in warnings.text


def test_sound_results_carry_no_warning(analysis):
    def warned(**changes):
        law = dataclasses.replace(sound.power_law, **{"broken": False, **changes})
        return dataclasses.replace(sound, power_law=law).warnings

    sound = analysis["blocks.0.hook_resid_post", "spectrum"]
    assert warned() == ()
    assert warned(broken=True)


def test_a_published_regression_has_no_bars_and_is_warned_of(tmp_path):
    published = pc.measure({"layer": planted(1.0, samples=300)}, [pc.metrics.Spectrum(fit="huber")])
    reading = read(published.report(tmp_path / "r.html").read_text(encoding="utf-8"))
    (points,) = [
        t for t in reading.figures()["metric-0-exponent"]["data"] if t["mode"] == "markers"
    ]
    assert "error_y" not in points
    assert "no error bars" in reading.one("figure", id="metric-0-exponent").text
    assert "biased by the finite number" in reading.one("aside", class_="warnings").text
    assert rows(reading, "metric-0-table")[0][3] == "undefined"


def test_spectra_are_the_eigenvalues_and_the_lines_are_the_fits(analysis, page):
    data = {t["meta"]: t for t in page.figures()["metric-0-spectra"]["data"]}
    for i, site in enumerate(analysis):
        result, drawn = analysis[site, "spectrum"], data[f"spectrum-{i}"]
        for rank, value in zip(drawn["x"], drawn["y"], strict=True):
            assert value == pytest.approx(result.eigenvalues[int(rank) - 1], rel=1e-5)
        law, fit = result.power_law, data[f"beside-{i}"]
        assert tuple(fit["x"]) == law.ranks
        rise = math.log(fit["y"][1] / fit["y"][0]) / math.log(fit["x"][1] / fit["x"][0])
        assert rise == pytest.approx(law.line_slope, abs=1e-4)
    colours = [data[f"spectrum-{i}"]["line"]["color"] for i in range(12)]
    assert colours == [f"scale:{i / 11:.3f}" for i in range(12)]


def test_every_chart_has_a_picture_for_paper(page):
    pictures = page.all("img", class_="static")
    assert len(pictures) == len(page.figures())
    for picture in pictures:
        kind, _, content = picture.attributes["src"].partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(base64.b64decode(content)).tag.endswith("svg")
        assert picture.attributes["alt"]


# -- the record ---------------------------------------------------------------------------------


def test_the_record_holds_the_command_and_everything_recorded(hostile, hostile_text):
    reading = read(hostile_text)
    assert reading.one("pre", id="command").text == shown(hostile.run["command"])
    text = reading.one("pre", id="run").text
    assert f"torch: {hostile.run['libraries']['torch']}" in text
    assert "<i>option</i>: </script><!--" in text


# -- metrics without a section of their own ------------------------------------------------------


def test_a_third_partys_result_has_reading_chart_table_plots_and_warnings(hostile, hostile_text):
    reading = read(hostile_text)
    assert "how <far> activations reach" in reading.one("section", id="metric-1").text
    (points,) = reading.figures()["metric-1-depth"]["data"]
    results = [hostile[site][hostile.metrics[1]] for site in hostile]
    assert points["y"] == pytest.approx([r.spread for r in results], rel=1e-5)
    axis = reading.figures()["metric-1-depth"]["layout"]["yaxis"]
    assert axis["title"]["text"] == "spread (&lt;units&gt;²)"
    assert "spread (<units>²)" in [e.text for e in reading.all("th")]
    table_rows = rows(reading, "metric-1-table")
    assert [row[0] for row in table_rows] == [shown(n) for n in HOSTILE]
    assert [row[3] for row in table_rows].count("undefined") == 1
    assert table_rows[2][3] == "undefined"
    assert {row[5] for row in table_rows} == {"yes", "no"}
    pictures = [e for e in reading.all("img") if e.attributes["alt"].startswith("Plot of")]
    assert len(pictures) == len(HOSTILE) - 1  # the one that raises is told of instead
    warnings = " ".join(e.text for e in reading.all("aside", class_="warnings"))
    assert f"At {HOSTILE[1]}: the scale is & stays arbitrary" in warnings
    assert "failed with RuntimeError: no plot for </p><script>alert(1)</script>" in warnings


def test_a_subclass_of_a_special_result_keeps_the_special_section(analysis):
    from polycode_plugins.metrics.spectrum.result import SpectrumResult

    class Special(SpectrumResult):
        pass

    class Plain(pc.Result):
        def scalars(self):
            return {"word": "no number"}

    def kinds(results):
        metric = analysis.statistics.metrics[0]
        view = chapter.View("m", "m", metric, analysis.sites[: len(results)], results)
        return [type(part).__name__ for part in chapter.chapter_of(view)]

    site = next(iter(analysis))
    special = Special(**vars(analysis[site, "spectrum"]))
    assert kinds([special]).count("Chart") == 4
    assert kinds([Plain()]) == ["Table"]


def test_metrics_of_one_kind_do_not_share_ids(analysis, tmp_path):
    two = [pc.metrics.Spectrum(), pc.metrics.Spectrum(fit="huber", label="huber"), Spread()]
    both = pc.measure({"a.0": planted(1.0), "a.1": planted(1.2)}, two)
    text = both.report(tmp_path / "r.html").read_text(encoding="utf-8")
    ids = [e.attributes["id"] for e in read(text).elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    assert faults(text) == []


# -- foreign text -------------------------------------------------------------------------------


def test_hostile_names_are_text_and_nothing_else(hostile_text):
    assert faults(hostile_text) == []
    reading = read(hostile_text)
    body = reading.one("main").text
    for name in HOSTILE:
        assert shown(name) in body
    assert reading.one("h1").text == "Analysis of <img src=x onerror=alert(1)>"


@pytest.mark.parametrize("name", HOSTILE[:3] + HOSTILE[5:7])
def test_the_check_would_see_a_name_that_got_through(hostile_text, name):
    escaped = html.escape(name).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    assert escaped in hostile_text
    assert faults(hostile_text.replace(escaped, name))


def test_json_in_a_script_cannot_leave_it(hostile_text):
    values = {"name": HOSTILE, "nan": math.nan, "list": (1, math.inf, -math.inf)}
    text = str(script_json(values))
    assert not re.search(r"[<>&'\u2028\u2029]", text)
    names = [name.replace("\udcff", "\\udcff") for name in HOSTILE]  # UTF-8 cannot hold it
    assert json.loads(text) == {"name": names, "nan": None, "list": [1, None, None]}
    for element in read(hostile_text).all("script", type="application/json"):
        assert not re.search(r"[<>&'\u2028\u2029]", element.text)


def decoded_by_plotly(text: str) -> str:
    """Plotly's own decoding of entities (convertEntities): one pass, numbers and a few names."""
    named = {"amp": "&", "lt": "<", "gt": ">", "nbsp": "\xa0", "mu": "μ", "times": "×", "deg": "°"}
    return re.sub(
        r"&(#\d+|[a-z]+);",
        lambda m: chr(int(m[1][1:])) if m[1][0] == "#" else named.get(m[1], m[0]),
        text,
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_plotly_draws_names_letter_for_letter(name):
    escaped = plotly_text(name)
    assert "<" not in escaped
    assert "%{" not in escaped
    assert decoded_by_plotly(escaped) == " ".join(name.split())


def test_hover_labels_hold_no_markup_but_their_own(hostile_text):
    for figure in read(hostile_text).figures().values():
        for trace in figure["data"]:
            texts = [trace["name"], trace.get("hovertemplate", ""), *trace.get("text", [])]
            for text in texts:
                bare = re.sub(r"</?b>|<br>|<extra></extra>", "", text)
                assert "<" not in bare
                assert set(re.findall(r"%\{.*?\}", text)) <= {"%{text}", "%{x}", "%{y:.3g}"}


def test_the_shell_escapes_every_part_of_any_page():
    attack = "</p></main><script>alert(1)</script>"
    text = render(Page(attack, attack, [Section("one", attack, [Prose([attack])])]))
    assert faults(text) == []
    assert faults(text.replace("&lt;/p&gt;", "</p>"))


# -- pieces -------------------------------------------------------------------------------------


def test_the_legend_tells_families_and_quantities_apart_by_sign():
    sites = [
        pc.Site(f"{kind}.{i}", 2 * i + (kind == "mlp")) for i in (0, 1) for kind in ("a", "mlp")
    ]
    none = [None] * 4

    def legend(*quantities):
        made = [chapter.quantity(name, [1.0] * 4, none) for name in quantities]
        drawn = depth_charts.by_depth("c", "t", "c", charts.Axis("x"), sites, made)
        return [(sign, text) for _, sign, text in drawn.legend]

    assert legend("one") == [("●", "a.*"), ("■", "mlp.*")]
    assert legend("one", "two") == [
        ("●", "one · a.*"),
        ("■", "one · mlp.*"),
        ("●", "two · a.*"),
        ("■", "two · mlp.*"),
    ]


def test_one_site_is_enough(tmp_path):
    alone = pc.measure({"layer": planted(1.0)}, ["spectrum"])
    text = alone.report(tmp_path / "r.html").read_text(encoding="utf-8")
    assert faults(text) == []
    assert "The exponent of layer is" in text
    titles = [section.title for section in page_of(alone).sections]
    assert titles == ["What was found", "What was measured", "Spectrum", "Record"]


def test_plots_say_how_to_read_them_and_scalars_have_names(tmp_path):
    values = np.random.default_rng(0).standard_normal((12, 9, 20))
    analysis = pc.measure({"a": values}, ["action", "capacity"])
    text = analysis.report(tmp_path / "report.html").read_text(encoding="utf-8")
    for label in ("action", "capacity"):
        assert html.escape(analysis["a", label].picture) in text
    assert "Von Neumann ratio by depth" in text


def test_the_columns_of_any_metric_are_explained_in_the_words_of_its_result(tmp_path):
    values = np.random.default_rng(0).standard_normal((12, 9, 20))
    analysis = pc.measure({"a": values}, ["action", "capacity"])
    reading = read(analysis.report(tmp_path / "report.html").read_text(encoding="utf-8"))
    terms, said = ([e.text for e in reading.all(tag)] for tag in ("dt", "dd"))
    explained = dict(zip(terms, said, strict=True))
    assert explained["expected (activation²)"] == (
        "exact mean over projections, (k / 2 width) tr S."
    )
    assert explained["interval low (activation²)"].startswith("lower end of 95% interval")
    assert explained["lost to correlation (bits)"].startswith(
        "Bits of the redundancy"
    )  # a property
    assert explained["effective samples"].startswith("effective_samples, effective_from: ")
    assert "undefined where the layer is constant" in explained["action / total variance (no unit)"]
    assert not any("`" in text for text in said)
