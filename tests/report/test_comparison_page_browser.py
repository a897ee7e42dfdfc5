"""The page of a comparison in a real browser: it sorts, unfolds, and runs nothing foreign."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import PHONE, Visit, too_wide, width
from explanation_samples import ATTACKS, hostile_comparison, sample_comparison

from polycode_plugins.explainers.comparison.heat_texts import visible

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_comparison().report(tmp_path_factory.mktemp("sample") / "report.html")


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_comparison().report(tmp_path_factory.mktemp("attacked") / "report.html")


@pytest.fixture(scope="module")
def desk(browser: Any, sample: Path) -> Iterator[Visit]:
    with Visit(browser, sample) as visit:
        visit.draw()
        yield visit


def test_units_sort_by_score_both_ways(desk):
    page = desk.page
    scores = sorted(u.score("correlation") for u in sample_comparison())
    for order in (scores, scores[::-1]):
        page.locator("#cards").get_by_role("button", name="correlation").click()
        shown = page.locator("#cards tbody tr td:nth-child(4)").all_text_contents()
        assert shown == [f"{s:.3f}".replace("-", "−") for s in order]


def test_an_explanation_unfolds_to_heat_whose_colour_is_its_level(desk, sample):
    page = desk.page
    details = page.locator("#cards details").first
    assert not details.locator(".heat").first.is_visible()
    details.locator("summary").click()
    heat = page.locator("#cards tr.opened .heat").first
    heat.wait_for()  # in a row of its own, as wide as the table
    table = page.locator("#cards").bounding_box()
    assert heat.bounding_box()["width"] > 0.9 * table["width"]
    opacity = page.evaluate(
        """() => {
          const of = (level) => {
            const cell = document.querySelector(`#cards .h${level}`);
            return cell && getComputedStyle(cell).backgroundColor;
          };
          return [of(10), of(1)];
        }"""
    )
    assert opacity[0] != opacity[1]
    details.locator("summary").click()
    page.locator("#cards tr.opened").wait_for(state="detached")
    assert details.locator(".heat").count() > 0
    assert width(page) <= 1280
    assert desk.clean(sample)


def test_units_are_searched_and_chosen_by_kind(desk, sample):
    page = desk.page
    rows = page.locator("#cards tbody tr:not([hidden])")
    every = rows.count()
    page.locator(".kinds").select_option("projection")
    kinds = set(
        page.locator("#cards tbody tr:not([hidden])").evaluate_all(
            "all => all.map((row) => row.dataset.kind)"
        )
    )
    assert kinds == {"projection"}
    assert 0 < rows.count() < every
    page.locator(".filter[data-table=cards]").fill("no such words")
    assert rows.count() == 0
    page.locator(".filter[data-table=cards]").fill("")
    page.locator(".kinds").select_option("")
    assert rows.count() == every
    assert desk.clean(sample)


def test_hostile_tokens_run_nothing_and_are_drawn_as_they_are(browser, attacked):
    with Visit(browser, attacked, **PHONE) as visit:
        page = visit.draw()
        assert "owned" not in page.title()
        for details in page.locator("#cards details").all():
            details.locator("summary").click()
        text = page.locator("#cards").text_content()
        for attack in ATTACKS:
            assert visible(attack) in text
        assert page.locator("#cards b, #cards img, #cards script").count() == 0
        assert width(page) <= 390
        assert too_wide(page) == []
        assert visit.clean(attacked)


def test_on_a_phone_each_unit_is_a_card_and_the_heads_still_sort(browser, sample):
    with Visit(browser, sample, **PHONE) as visit:
        page = visit.page
        cards = page.locator(".cards")
        assert cards.evaluate("e => e.scrollWidth <= e.clientWidth")
        page.locator("#cards").get_by_role("button", name="correlation").click()
        lowest = min(u.score("correlation") for u in sample_comparison())
        first = page.locator("#cards tbody tr").first
        assert f"{lowest:.3f}".replace("-", "−") in first.inner_text()
        label = "e => getComputedStyle(e, '::before').content"
        assert "correlation" in first.locator("td").nth(2).evaluate(label)
        assert visit.clean(sample)
