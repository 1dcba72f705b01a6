"""Makes docs/demo.png of the running demo page, after one click.

python docs/screenshot.py http://127.0.0.1:8000/demo && pngquant --force --output docs/demo.png docs/demo.png
"""

import re
import shutil
import sys
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

SHOPPER = "shopper-0393"
"""The README's."""


def main(address: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light", reduced_motion="reduce")
        page.goto(f"{address}#{SHOPPER}")
        expect(page.locator("#who-name")).to_have_text(SHOPPER)
        page.locator(".card .look").nth(3).click()
        expect(page.locator("#said")).to_have_text(re.compile("^Looked at"))
        page.locator(".card summary").first.click()
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        page.screenshot(path=Path(__file__).with_name("demo.png"))
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
