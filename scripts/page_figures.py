"""Figures of the web app in Chromium: bytes, time to interactive, accessibility, contrast.

    python scripts/page_figures.py runs/demo --shots shots/

Each page, light and dark, on a desktop and on a phone, with a processor that is slowed four times: bytes of
the first visit, first paint, time until it answers to input (the end of the last task of over 50 ms after the
first paint), violations that axe finds with an image on the page, and the least contrast of its texts. Needs
Chromium with its driver, and axe-core from ``npm ci`` in ``web/``. Exit code 1 where a bound is broken.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By

ROOT = Path(__file__).resolve().parents[1]
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
PAGES = ("", "many", "compare", "attention", "model")
#: Name -> width, height, pixels of the screen for each, touch.
SIZES = {"desktop": (1280, 900, 1, False), "phone": (390, 844, 2, True)}
#: Bounds: bytes of the first visit, contrast of small texts (WCAG 2.2, level AA).
FIRST_LOAD, CONTRAST, SLOWED = 250_000, 4.5, 4
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--lang=en"),
    *("--disable-background-networking", "--disable-component-update"),
)
#: Milliseconds of the first paint, and of the end of the last long task behind it.
TIMES = """
const done = arguments[0];
const paint = performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0;
const ends = [paint];
new PerformanceObserver((list) => ends.push(...list.getEntries().map((one) => one.startTime + one.duration)))
  .observe({type: "longtask", buffered: true});
setTimeout(() => done([paint, Math.max(...ends)]), 500);
"""
#: Violations of axe, and the least contrast that it measured.
CHECK = """
const done = arguments[0];
axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]}).then((found) => {
  const nodes = [...found.passes, ...found.violations].filter((rule) => rule.id === "color-contrast")
    .flatMap((rule) => rule.nodes).flatMap((node) => node.any).map((one) => one.data?.contrastRatio ?? 99);
  done([found.violations.map((one) => `${one.id}: ${one.nodes[0].html.slice(0, 120)}`), Math.min(...nodes)]);
});
"""


def browser() -> webdriver.Chrome:
    """Chromium without a profile."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def transferred(driver: webdriver.Chrome) -> int:
    """Bytes that came over the network since the last call, but for answers of the models."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]  # type: ignore[no-untyped-call]
    urls = {
        event["params"]["requestId"]: event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    return sum(
        int(event["params"]["encodedDataLength"])
        for event in events
        if event["method"] == "Network.loadingFinished"
        and "/v1/" not in urls.get(event["params"]["requestId"], "")
    )


def figures(address: str, page: str, scheme: str, size: str, shot: Path | None) -> dict[str, Any]:
    """Of one page in a fresh browser."""
    driver = browser()
    try:
        width, height, ratio, touch = SIZES[size]
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": touch},
        )
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        driver.execute_cdp_cmd("Emulation.setCPUThrottlingRate", {"rate": SLOWED})
        driver.get(f"{address}/#/{page}")
        wait(driver, "main section")
        driver.set_script_timeout(60)
        paint, interactive = driver.execute_async_script(TIMES)
        size_of_all = transferred(driver)
        driver.execute_cdp_cmd("Emulation.setCPUThrottlingRate", {"rate": 1})
        try:
            wait(driver, ".examples button, .chart", seconds=5)
            driver.find_elements(By.CSS_SELECTOR, ".examples button")[0].click()
            wait(driver, ".picture img, [data-testid=heat]", seconds=10)
            time.sleep(3)
        except (WebDriverException, IndexError, TimeoutError):
            pass  # a page without an image of its own
        driver.execute_script(AXE.read_text("utf-8"))
        violations, contrast = driver.execute_async_script(CHECK)
        if shot:
            tall = driver.execute_script("return document.documentElement.scrollHeight")
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": max(height, tall), "deviceScaleFactor": ratio, "mobile": touch},
            )
            time.sleep(0.5)
            driver.save_screenshot(str(shot))
        return {
            "bytes": size_of_all,
            "first_paint_ms": round(paint),
            "interactive_ms": round(interactive),
            "violations": violations,
            "contrast": contrast,
        }
    finally:
        driver.quit()


def wait(driver: webdriver.Chrome, selector: str, *, seconds: float = 60) -> None:
    """Until an element is there.

    Raises:
        TimeoutError: it does not come.
    """
    end = time.monotonic() + seconds
    while not driver.find_elements(By.CSS_SELECTOR, selector):
        if time.monotonic() > end:
            raise TimeoutError(selector)
        time.sleep(0.05)


def main() -> int:
    """Measure every page and print a table."""
    parser = argparse.ArgumentParser(description="Figures of the web app.")
    parser.add_argument("runs", type=Path, nargs="+", help="runs or bundles that are served; two to compare")
    parser.add_argument("--shots", type=Path, help="folder for a picture of each")
    parser.add_argument("--pages", default=",".join(PAGES), help="names with commas between")
    given = parser.parse_args()
    if not AXE.is_file():
        parser.error(f"{AXE} is missing: run npm ci in web/")
    command = [sys.executable, "-m", "tesela", "serve", *map(str, given.runs), "--port", "0", "--json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    faults = []
    print("| page | colours | screen | bytes | first paint | interactive | violations | least contrast |")
    print("|---|---|---|---|---|---|---|---|")
    try:
        address = json.loads(server.stdout.readline())["address"]
        for page in given.pages.split(","):
            for scheme in ("light", "dark"):
                for size in SIZES:
                    shot = given.shots and given.shots / f"{page or 'look'}-{scheme}-{size}.png"
                    if shot:
                        shot.parent.mkdir(parents=True, exist_ok=True)
                    row = figures(address, page, scheme, size, shot)
                    print(
                        f"| {page or 'look'} | {scheme} | {size} | {row['bytes']:,} "
                        f"| {row['first_paint_ms']} ms | {row['interactive_ms']} ms "
                        f"| {len(row['violations'])} | {row['contrast']} |",
                        flush=True,
                    )
                    faults += [f"{page} {scheme} {size}: {one}" for one in row["violations"]]
                    if row["bytes"] > FIRST_LOAD or row["contrast"] < CONTRAST:
                        faults.append(f"{page} {scheme} {size}: {row['bytes']} bytes, {row['contrast']}")
    finally:
        server.terminate()
        server.wait(60)
        server.stdout.close()
    print(json.dumps({"faults": faults}))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
