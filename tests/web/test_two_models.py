"""Two models in a browser below a path prefix: one with hostile names, and an exported one with its maps."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from tests.runtime.bundles import LABELS, digits_run, held_out
from tests.runtime.test_engines import with_sums
from tests.web.test_app import DROP, browser, find, served, until

from tesela.models.bundle import CARD, read_info, write_info
from tesela.runtime.predictor import Predictor

__all__ = ["browser"]  # a fixture

PREFIX = "/ml/tesela"
HARM = '<img src=x onerror="window.harmed=1">'
NAMES = [f"{HARM}{label}" for label in LABELS]
IMAGE = held_out(1)[0][0]
#: Tops of the bars of each model, in pixels.
TOPS = """
return [...document.querySelectorAll(".side")].map((side) =>
  [...side.querySelectorAll(".bar")].map((bar) => bar.getBoundingClientRect().top));
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of both, below the prefix."""
    folder = tmp_path_factory.mktemp("two")
    hostile = shutil.copytree(digits_run() / "bundle", folder / "<b onclick=harm()>")
    card = f"# {HARM}\n\n<script>window.harmed = 1</script>\n\n[here](javascript:window.harmed=1)\n"
    (hostile / CARD).write_text(card, "utf-8")
    write_info(hostile, dataclasses.replace(read_info(hostile), labels=NAMES, license=HARM))
    with served(hostile, with_sums(folder), "--prefix", PREFIX) as found:
        yield found


def drop(driver: webdriver.Chrome, name: str) -> None:
    """Let the digit fall on the page."""
    find(driver, "[data-testid=stage]")
    driver.execute_script(DROP, base64.b64encode(IMAGE).decode(), name)


def requests(driver: webdriver.Chrome) -> list[str]:
    """Addresses of all requests over the network."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [one["request"]["url"] for one in sent if one["request"]["url"].startswith("http")]


def test_names_never_become_markup_and_the_prefix_is_kept(browser: webdriver.Chrome, address: str) -> None:
    """Labels, the model's name, its card and license and the file's name are shown as they are on every page.

    No script of them runs, and no request leaves the prefix.
    """
    best = Predictor(digits_run()).predict([IMAGE])[0].best.index
    browser.get(f"{address}{PREFIX}")
    drop(browser, f"{HARM}.png")
    find(browser, "[data-testid=heat]")
    assert find(browser, ".bar .label").text == NAMES[best]
    assert NAMES[best] in find(browser, "[data-testid=said]").text
    assert find(browser, ".picture img").get_attribute("alt") == f"Your image: {HARM}.png"
    browser.execute_script("location.hash = '#/compare'")
    until(browser, lambda: len(browser.find_elements(By.CSS_SELECTOR, ".side [data-testid=heat]")) == 2)
    assert NAMES[best] in find(browser, ".lead").text
    browser.execute_script("location.hash = '#/model'")
    find(browser, ".prose h1")
    assert "<b onclick=harm()>" in find(browser, ".page-title").text
    assert NAMES[0] in [one.text for one in browser.find_elements(By.CSS_SELECTOR, ".labels li")]
    links = [one.get_attribute("href") or "" for one in browser.find_elements(By.CSS_SELECTOR, ".prose a")]
    assert not any(link.startswith("javascript") for link in links)
    assert browser.find_elements(By.CSS_SELECTOR, "img[src=x], main script, b") == []
    assert browser.execute_script("return window.harmed === undefined")
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    asked = requests(browser)
    assert len(asked) > 5
    assert [url for url in asked if not f"{url}/".startswith(f"{address}{PREFIX}/")] == []


def test_what_belongs_together_lies_side_by_side(browser: webdriver.Chrome, address: str) -> None:
    """The bars of both models at the same height, however long their names are."""
    browser.set_window_size(1280, 1400)
    browser.get(f"{address}{PREFIX}/#/compare")
    drop(browser, "digit.png")
    until(browser, lambda: len(browser.find_elements(By.CSS_SELECTOR, ".side [data-testid=heat]")) == 2)
    left, right = browser.execute_script(TOPS)
    assert len(left) == len(right) == 5
    assert left[0] == pytest.approx(right[0], abs=1)
    assert sorted(left) == left


def test_an_exported_model_offers_what_it_can_do(browser: webdriver.Chrome, address: str) -> None:
    """The heat map of the predicted class, by its own methods; no choice of a class, no page of attention."""
    browser.get(f"{address}{PREFIX}/")
    drop(browser, "digit.png")
    choice = find(browser, ".model-choice select")
    choice.find_element(By.CSS_SELECTOR, "option[value=sums]").click()
    best = Predictor(digits_run()).predict([IMAGE])[0].best.label
    find(browser, f"[data-testid=heat][data-label={best}]")
    until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "button.bar") == [])
    assert len(browser.find_elements(By.CSS_SELECTOR, ".bar")) == 5
    options = browser.find_elements(By.CSS_SELECTOR, ".controls select option")
    assert [one.get_attribute("value") for one in options] == ["auto", "presence"]
    pages = [one.text for one in browser.find_elements(By.CSS_SELECTOR, "nav a")]
    assert pages == ["Recognise", "Many images", "Compare", "Model"]
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
