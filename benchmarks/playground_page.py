"""Frame times of the playground's page in a real Chromium, while attempts stream in; and screenshots, to be looked at.

    make playground-test                                                   # makes .venv-clients, with playwright
    .venv-clients/bin/python -m benchmarks.playground_page http://127.0.0.1:8765 [--attempts 64] [--pictures FOLDER]

One JSON line a window size: milliseconds between two frames of the page while it draws, tasks of its scripts that took longer than
50 ms, and how long the page took to draw the cards of all attempts after the button was pressed.
"""

import argparse
import json
import os
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SIZES = {"desktop": (1280, 960), "phone": (390, 844)}
PATIENCE = 300_000  # milliseconds
WATCH = """() => {
  window.seen = { frames: [], tasks: [], on: true };
  new PerformanceObserver((list) => list.getEntries().forEach((e) => seen.tasks.push(e.duration))).observe({ entryTypes: ["longtask"] });
  let last = performance.now();
  const frame = (now) => { seen.frames.push(now - last); last = now; if (seen.on) requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
}"""


def measure(page: Page, attempts: int) -> dict[str, object]:
    """Ask once, so that the programs exist, and a second time under observation."""
    page.fill("#attempts", str(attempts))
    ended = page.locator("article.right, article.wrong")
    for turn in range(2):
        page.fill("#seed", str(5 + turn))
        if turn:
            page.evaluate(WATCH)
        page.click("#ask")
        page.wait_for_selector(".step:visible")
        expect(ended).to_have_count(attempts)
    seen = page.evaluate("() => { seen.on = false; return seen; }")
    frames = sorted(seen["frames"])
    at = lambda share: round(frames[min(len(frames) - 1, int(share * len(frames)))], 1)
    out = {
        "attempts": attempts,
        "frames": len(frames),
        "frame_ms": {"median": at(0.5), "p95": at(0.95), "worst": at(1)},
    }
    return out | {"long_tasks_ms": sorted(map(round, seen["tasks"]))[-5:], "tokens": page.locator("article .t").count()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("address")
    parser.add_argument("--attempts", type=int, default=64)
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=FLAGS)
        expect.set_options(timeout=PATIENCE)
        for name, (width, height) in SIZES.items():
            scheme = "dark" if name == "phone" else "light"
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.set_default_timeout(PATIENCE)
            page.goto(args.address)
            expect(page.locator("#prompt")).not_to_have_value("")
            line = {"benchmark": "playground_page", "page": name} | measure(page, args.attempts)
            print(json.dumps(line | {"cores": os.cpu_count()}), flush=True)
            if args.pictures:
                page.screenshot(path=args.pictures / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
