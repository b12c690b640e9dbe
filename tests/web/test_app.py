"""The web app: the build that the package holds, and the journey through it in a browser.

The journey needs Chromium and its driver (Debian: ``apt-get install chromium chromium-driver``).
"""

from __future__ import annotations

import base64
import contextlib
import csv
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scripts.page_figures import AXE, CHECK
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait
from tests.runtime.bundles import digits_run, held_out
from tests.serve.clients import client

from tesela.runtime.predictor import Predictor
from tesela.serve.page import page_files, takes_gzip

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "web" / "src"
LANGUAGES = ("en", "es", "vi")
#: Most bytes that the first visit transfers.
FIRST_LOAD = 250_000
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1280,1000"),
)
#: Lets a file fall on the page, as a hand would.
DROP = """
const [content, name] = arguments;
const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
const held = new DataTransfer();
held.items.add(new File([bytes], name, {type: "image/png"}));
for (const kind of ["dragenter", "dragover", "drop"])
  document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: held, bubbles: true, cancelable: true}));
"""


def texts(language: str) -> dict[str, str]:
    """Key -> text of a language, flat."""

    def flat(entries: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
        for key, value in entries.items():
            if isinstance(value, dict):
                yield from flat(value, f"{before}{key}.")
            else:
                yield f"{before}{key}", value

    return dict(flat(json.loads((SOURCE / "locales" / f"{language}.json").read_text(encoding="utf-8"))))


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_every_language_says_everything(language: str) -> None:
    """The same keys as English, the same values to fill in, and nothing left empty."""
    english, other = texts("en"), texts(language)
    assert other.keys() == english.keys()
    for key, text in other.items():
        assert text.strip(), key
        assert set(re.findall(r"\{\{\w+\}\}", text)) == set(re.findall(r"\{\{\w+\}\}", english[key])), key


def test_the_build_holds_every_text() -> None:
    """The committed build is that of the committed texts."""
    built = page_files()["/static/app.js"][1].decode()
    for language in LANGUAGES:
        missing = [text for text in texts(language).values() if not re.search(literal(text), built)]
        assert missing == []


def literal(text: str) -> str:
    """A pattern for a text as a string in JavaScript, whichever quotes the build chose."""
    return r"[\"'`]" + re.sub(r"(\\?[\"'`])", lambda _: "\\\\?[\"'`]", re.escape(text)) + r"[\"'`]"


def test_the_first_load_is_small_and_complete() -> None:
    """What the page names is there, and its bytes on the wire are within the bound."""
    page = page_files()["/"][1].decode()
    parts = [f"/{part}" for part in re.findall(r'(?:src|href)="\./([^"]+)"', page)]
    with client(onnx_only=True) as api:
        seen: dict[str, str] = {}
        todo = ["/", *parts]
        while todo:
            path = todo.pop()
            answer = api.get(path)
            assert (answer.status_code, answer.headers["content-encoding"]) == (200, "gzip"), path
            seen[path] = answer.text
            # static imports of a script belong to the first load, dynamic ones do not
            for name in re.findall(r'(?:from|import)"\./([\w.-]+)"', answer.text):
                if f"/static/{name}" not in seen:
                    todo.append(f"/static/{name}")
    assert "/static/app.js" in seen and "/static/app.css" in seen
    assert sum(len(gzip.compress(text.encode(), 9)) for text in seen.values()) <= FIRST_LOAD


def test_every_part_that_a_script_asks_for_exists() -> None:
    files = page_files()
    for path, (kind, content) in files.items():
        if kind.startswith("text/javascript"):
            for name in re.findall(r"""(?:from|import)\(?[`"']\./([\w.-]+)[`"']""", content.decode()):
                assert f"/static/{name}" in files, path


def test_nothing_names_another_host() -> None:
    """Neither the build nor the lock file, and no text of the server can become markup."""
    for path, (_, content) in page_files().items():
        found = set(re.findall(r"https?://[\w.-]+", content.decode()))
        assert found <= {"http://www.w3.org"}, path  # names of XML, not addresses
    lock = json.loads((ROOT / "web" / "package-lock.json").read_text(encoding="utf-8"))
    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []
    for source in SOURCE.rglob("*.ts*"):
        text = source.read_text(encoding="utf-8")
        assert not re.search(r"dangerouslySetInnerHTML|innerHTML|outerHTML|insertAdjacentHTML", text), source


def test_the_page_may_use_the_camera() -> None:
    """Only the page itself, and nothing else of the device."""
    with client(onnx_only=True) as api:
        rules = api.get("/").headers["permissions-policy"].split(", ")
    assert rules == ["camera=(self)", "geolocation=()", "microphone=()"]


def test_a_browser_that_has_a_part_gets_no_body() -> None:
    """And one that takes no gzip gets the part as it is."""
    with client(onnx_only=True) as api:
        plain = api.get("/static/app.css", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == page_files()["/static/app.css"][1]
        again = api.get("/static/app.css", headers={"if-none-match": plain.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("header", "taken"),
    [("gzip, br", True), ("br;q=1.0, GZIP;q=0.5", True), ("gzip;q=0", False), ("x-gzip", False), ("", False)],
)
def test_gzip_is_read_off_the_header(header: str, taken: bool) -> None:
    assert takes_gzip(header) is taken


@contextlib.contextmanager
def served(*words: Path | str) -> Iterator[str]:
    """The address of a server of runs in a process of its own."""
    command = [sys.executable, "-m", "tesela", "serve", *map(str, words), "--port", "0", "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["address"]
    process.terminate()
    process.wait(30)
    process.stdout.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server of the small digits model."""
    with served(digits_run()) as found:
        yield found


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """Chromium with a profile of its own; what it saves goes to ``tmp_path / "saved"``."""
    if CHROMIUM is None or DRIVER is None:
        if os.environ.get("CI"):
            pytest.fail("a browser is needed: apt-get install chromium chromium-driver")
        pytest.skip("no Chromium with its driver here: the web app was not tried in a browser")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--lang=en"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "saved")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def test_the_journey_in_a_browser(browser: webdriver.Chrome, address: str, tmp_path: Path) -> None:
    """A digit is dropped, recognised and explained; another class, another language, the overlay saved.

    Reference: the predictor in this process. The console stays free of errors (the policy holds), and no
    request leaves for another host.
    """
    image = held_out(3)[0][2]
    wanted = Predictor(digits_run()).predict([image], top=5)[0].scores
    browser.get(address)
    find(browser, "[data-testid=stage]")
    browser.execute_script(DROP, base64.b64encode(image).decode(), "digit.png")

    heat = find(browser, "[data-testid=heat]")
    bars = [bar.text.split("\n") for bar in browser.find_elements(By.CSS_SELECTOR, ".bar")]
    assert [label for label, _ in bars] == [score.label for score in wanted]
    assert [float(value.rstrip("%")) for _, value in bars] == pytest.approx(
        [score.probability * 100 for score in wanted], abs=0.06
    )
    assert wanted[0].label in find(browser, "[data-testid=said]").text
    assert heat.get_attribute("data-label") == wanted[0].label
    first = heat.get_attribute("src")

    other = wanted[1].label
    find(browser, f".bar[data-label={other}]").click()
    heat = find(browser, f"[data-testid=heat][data-label={other}]")
    assert heat.get_attribute("src") != first

    for language, title in (("es", "Lo que ve el modelo"), ("vi", "Mô hình nhìn thấy gì")):
        Select(find(browser, "[data-testid=language]")).select_by_value(language)
        until(browser, lambda: find(browser, "#result-title").text == title)  # noqa: B023 - called at once
        assert find(browser, "html").get_attribute("lang") == language

    find(browser, "[data-testid=save-overlay]").click()
    saved = tmp_path / "saved" / f"digit.{other}.png"
    until(browser, saved.is_file)
    pixels = np.asarray(Image.open(saved).convert("RGB")).astype(int)
    assert pixels.shape == (256, 256, 3)  # 8 x 8, enlarged by a whole factor
    assert np.abs(pixels - pixels.mean(axis=2, keepdims=True)).max() > 40  # colour over a grey digit

    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert hosts(browser) == {address}


def test_many_images_become_a_table(browser: webdriver.Chrome, address: str, tmp_path: Path) -> None:
    """Sorted by a column and saved as CSV, with the labels of the predictor; what is no image says so."""
    images = held_out(6)[0]
    wanted = [found.scores[0] for found in Predictor(digits_run()).predict(images, top=1)]
    browser.get(f"{address}/#/many")
    find(browser, ".strip")
    for number, image in enumerate([*images, b"no image"]):
        browser.execute_script(DROP, base64.b64encode(image).decode(), f"{number}, here.png")
    until(
        browser, lambda: len(browser.find_elements(By.CSS_SELECTOR, "tbody .wide, tbody .wrong")) == 6 * 2 + 1
    )

    column = browser.find_elements(By.CSS_SELECTOR, ".sort")[2]
    assert column.text == "Probability"
    column.click()
    assert column.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    browser.find_elements(By.CSS_SELECTOR, ".strip button")[1].click()
    saved = tmp_path / "saved" / "predictions.csv"
    until(browser, saved.is_file)
    with saved.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    found = [float(row["probability"]) for row in rows[:6]]
    assert found == sorted(found, reverse=True)
    by_name = {row["name"]: row for row in rows[:6]}
    for number, score in enumerate(wanted):
        row = by_name[f"{number}, here.png"]
        assert row["label"] == score.label
        assert float(row["probability"]) == pytest.approx(score.probability, abs=1e-4)
    assert (rows[6]["name"], rows[6]["label"]) == ("6, here.png", "")
    assert rows[6]["error"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that ``tesela demo`` makes, as a newcomer does."""
    run = tmp_path_factory.mktemp("demo") / "run"
    command = [sys.executable, "-m", "tesela", "demo", "--out", str(run)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return run


def test_the_journey_of_a_newcomer(browser: webdriver.Chrome, demo: Path, tmp_path: Path) -> None:
    """The demo's run is served; a digit is dropped, recognised and explained for another class in another
    language, the overlay saved; an example is clicked; the model's page has its attention distances; axe
    finds nothing on any page."""
    with served(demo) as address:
        browser.get(address)
        find(browser, "[data-testid=stage]")
        digit = (demo / "examples" / "digit-3.png").read_bytes()
        browser.execute_script(DROP, base64.b64encode(digit).decode(), "digit-3.png")
        assert find(browser, "[data-testid=heat]").get_attribute("data-label") == "3"
        Select(find(browser, "[data-testid=language]")).select_by_value("es")
        other = browser.find_elements(By.CSS_SELECTOR, ".bar")[1].get_attribute("data-label")
        find(browser, f".bar[data-label='{other}']").click()
        find(browser, f"[data-testid=heat][data-label='{other}']")
        find(browser, "[data-testid=save-overlay]").click()
        until(browser, (tmp_path / "saved" / f"digit-3.{other}.png").is_file)
        assert violations(browser) == []

        assert len(browser.find_elements(By.CSS_SELECTOR, ".examples button")) == 8
        before = find(browser, ".picture img").get_attribute("src")
        browser.find_elements(By.CSS_SELECTOR, ".examples button")[2].click()
        until(browser, lambda: find(browser, ".picture img").get_attribute("src") != before)
        find(browser, "[data-testid=heat]")
        for page, part in (("many", ".strip"), ("attention", ".picture img"), ("model", "svg.chart circle")):
            browser.get(f"{address}/#/{page}")
            find(browser, part)
            assert violations(browser) == [], page
        assert hosts(browser) == {address}


def violations(browser: webdriver.Chrome) -> list[str]:
    """What axe finds; the tests of the browser need ``npm ci`` in ``web/`` where CI runs."""
    if not AXE.is_file():
        if os.environ.get("CI"):
            pytest.fail("axe-core is needed: npm ci in web/")
        return []
    browser.execute_script(AXE.read_text("utf-8"))
    found: list[str] = browser.execute_async_script(CHECK)[0]
    return found


def find(browser: webdriver.Chrome, selector: str) -> WebElement:
    """The element, waited for."""
    return WebDriverWait(browser, 20).until(lambda page: page.find_element(By.CSS_SELECTOR, selector))


def until(browser: webdriver.Chrome, true: Callable[[], bool]) -> None:
    WebDriverWait(browser, 20).until(lambda _: true())


def hosts(browser: webdriver.Chrome) -> set[str]:
    """Scheme and host of every request over the network."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    return {"/".join(url.split("/")[:3]) for url in urls if url.startswith("http")}
