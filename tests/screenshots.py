"""Take the pictures of docs/app.md anew: python tests/screenshots.py [RUN]; the run is apexgen-demo unless given.

Needs a Chromium (`playwright install chromium`), and a run of the embedded model, such as `make demo` leaves.
"""

import re
import subprocess
import sys
from pathlib import Path

from browser import launched

IMAGES = Path(__file__).parent.parent / "docs/images"
SHOTS = {"app.png": (1280, 900, "light"), "app-mobile.png": (390, 844, "dark")}  # width, height, scheme
PROMPTS = ("three rings", "a white cross and a purple square", "a photo of a red circle")


def take(run: str, folder: Path = IMAGES) -> None:
    command = [sys.executable, "-u", "-m", "apexgen", "app", run]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        [address] = re.findall(r"http://\S+", process.stdout.readline())
        with launched() as browser:
            for name, (width, height, scheme) in SHOTS.items():
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                page.goto(address)
                for count, prompt in enumerate(PROMPTS, 1):
                    page.fill("#prompt textarea", prompt)
                    page.click("#draw")
                    page.wait_for_function(
                        f"document.querySelectorAll('#gallery .thumbnail-item').length == {count}", timeout=120_000
                    )
                page.wait_for_timeout(2000)  # the page scrolls to what was drawn
                page.evaluate("window.scrollTo(0, 0)")
                page.screenshot(path=folder / name, full_page=True)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    take(*sys.argv[1:])
