"""Seconds from submit to drawn: the app in a process of its own, sentences typed into Chromium.

    python benchmarks/app.py runs/quick [--times 20] [--threads 2]

Each sentence is one of the run's held-out spans; the median over 20 is printed. The clock starts
when the sentence is sent and stops at the first frame that shows the new cards."""

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
  const page = document.querySelector('realm-workspace');
  const watch = new MutationObserver(() => {
    if (page.result.sentence != text) return;
    watch.disconnect();
    const frame = requestAnimationFrame;
    frame(() => frame(() => done(performance.now() - start)));
  });
  watch.observe(page.querySelector('.cards'), {childList: true, subtree: true});
  page.querySelector('.own').requestSubmit();
})"""


def wait_until_prepared(page, seconds: int = 900):
    "Wait for the other moments, so that they do not share the cores."
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        page.locator("#watch > summary").click()  # opens it, or shuts it again
        page.wait_for_timeout(5_000)
        told = page.locator("#watch").inner_text()
        if "REALM" in told and "Still being prepared" not in told:
            page.locator("#watch > summary").click()
            return


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
            page.wait_for_selector(".card")
            wait_until_prepared(page)
            seconds = []
            for text, _ in pairs:
                page.locator("#own").fill(text)
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
