"""Seconds from submit to drawn: the app in a process of its own, sentences typed into Chromium, the median over 20.

    python benchmarks/app.py runs/quick [--times 20] [--threads 2]

Each sentence is one of the run's held-out spans. The clock starts when Enter is pressed in the page and stops at the first frame that shows the new cards."""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time

from playwright.sync_api import sync_playwright

from realm_nb.show.explorer import Explorer, held_out

DRAWN = """text => new Promise(done => { const start = performance.now(), out = document.querySelector('#fill-out'), box = document.querySelector('#fill-text textarea');
  const watch = new MutationObserver(() => { const a = out.querySelector('.permalink'); if (!a || new URLSearchParams(a.getAttribute('href')).get('q') != text) return;
    watch.disconnect(); requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start))); });
  watch.observe(out, {childList: true, subtree: true, characterData: true});
  box.dispatchEvent(new KeyboardEvent('keypress', {key: 'Enter', bubbles: true, cancelable: true})); })"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--threads", default="2")
    args = parser.parse_args()
    pairs = [(t, h) for t, h in held_out(Explorer(args.run), 200) if 30 < len(t) < 300][
        : args.times
    ]
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "realm_nb.app", "--run", args.run, "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": args.threads},
    )
    try:
        print(server.stdout.readline().strip())
        with sync_playwright() as p:
            browser = p.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{port}/")
            page.wait_for_selector("#fill-out article")
            deadline = time.monotonic() + 900
            while (
                True
            ):  # the other moments are being prepared: wait, so that they do not share the cores
                page.get_by_role("tab", name="Before and after").click()
                page.locator("#compare-go").click()
                page.wait_for_selector("#compare-out table", timeout=120_000)
                if (
                    "Still being prepared" not in page.locator("#compare-out").inner_text()
                    or time.monotonic() > deadline
                ):
                    break
                page.wait_for_timeout(10_000)
            page.get_by_role("tab", name="Fill a blank").click()
            seconds = []
            for text, hidden in pairs:
                page.locator("#fill-hidden textarea, #fill-hidden input").fill(hidden)
                page.locator("#fill-text textarea").fill(text)
                seconds.append(page.evaluate(DRAWN, text) / 1000)
            browser.close()
    finally:
        server.terminate()
        server.wait()
    print(
        f"submit to drawn over {len(seconds)} sentences: median {statistics.median(seconds):.2f} s, least {min(seconds):.2f} s, most {max(seconds):.2f} s; load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
