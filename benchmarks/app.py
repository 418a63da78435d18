"""Seconds from submit to drawn: the app in a process of its own, sentences typed into Chromium.

    python benchmarks/app.py runs/quick [--times 20] [--threads 2]

Each sentence is one of the run's held-out spans; the median over 20 is printed. The clock starts
when Enter is pressed in the page and stops at the first frame that shows the new cards."""

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

DRAWN = """text => new Promise(done => {
  const start = performance.now();
  const out = document.querySelector('#fill-out');
  const box = document.querySelector('#fill-text textarea');
  const watch = new MutationObserver(() => {
    const link = out.querySelector('.permalink');
    if (!link || new URLSearchParams(link.getAttribute('href')).get('q') != text) return;
    watch.disconnect();
    const frame = requestAnimationFrame;
    frame(() => frame(() => done(performance.now() - start)));
  });
  watch.observe(out, {childList: true, subtree: true, characterData: true});
  const press = {key: 'Enter', bubbles: true, cancelable: true};
  box.dispatchEvent(new KeyboardEvent('keypress', press));
})"""


def wait_until_prepared(page, seconds: int = 900):
    "Wait for the other moments, so that they do not share the cores."
    deadline = time.monotonic() + seconds
    page.get_by_role("tab", name="Before and after").click()
    while time.monotonic() < deadline:
        page.locator("#compare-go").click()
        page.wait_for_selector("#compare-out table", timeout=120_000)
        if "Still being prepared" not in page.locator("#compare-out").inner_text():
            return
        page.wait_for_timeout(10_000)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--threads", default="2")
    args = parser.parse_args()
    held = held_out(Explorer(args.run), 200)
    pairs = [(text, hidden) for text, hidden in held if 30 < len(text) < 300][: args.times]
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
            wait_until_prepared(page)
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
        f"submit to drawn, {len(seconds)} sentences: median {statistics.median(seconds):.2f} s, "
        f"least {min(seconds):.2f} s, most {max(seconds):.2f} s; load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
