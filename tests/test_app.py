"""The app as a visitor meets it: a real process on a free port, driven in Chromium.

Every figure is compared with the library's own."""

import concurrent.futures
import contextlib
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote, unquote, urlencode

import numpy as np
import pytest

pytest.importorskip(
    "gradio", reason="the app's extra is not installed: pip install 'realm_nb[app]'"
)
ARTEFACTS = Path(__file__).resolve().parents[1] / "artefacts"
NASTY = '<img src=x onerror="window.hacked=1"> ${window.hacked=2} {{7*7}}'


NAMELESS = """
[...document.querySelectorAll('input, textarea, button, [role=img]')].filter(e =>
  e.offsetParent && !(
    e.labels?.length || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') ||
    e.textContent.trim() || e.title)
).map(e => e.outerHTML.slice(0, 200))"""


def chromium():
    "Chromium's path; where there is none, a reason to skip, but a failure under CI."
    if path := shutil.which("chromium"):
        return path
    (pytest.fail if os.environ.get("CI", "").lower() in ("1", "true") else pytest.skip)(
        "no chromium on the path; apt-get install chromium"
    )


@contextlib.contextmanager
def serving(environment, cwd, *flags):
    "The address of an app in a process of its own."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log = Path(cwd) / "app.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "realm_nb.app", "--port", str(port), *map(str, flags)],
            cwd=cwd,
            env={**environment, "PYTHONPATH": str(ARTEFACTS.parent)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        end = time.monotonic() + 240
        while "open http" not in log.read_text():
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def state(folder):
    return {
        p.relative_to(folder): (p.stat().st_mtime_ns, p.stat().st_size)
        for p in Path(folder).rglob("*")
        if p.is_file()
    }


@pytest.fixture(scope="module")
def run(smoke_run, tmp_path_factory):
    return Path(shutil.copytree(smoke_run, tmp_path_factory.mktemp("app") / "run"))


@pytest.fixture(scope="module")
def app(run, smoke_environment, tmp_path_factory):
    before = state(run)
    with serving(smoke_environment, tmp_path_factory.mktemp("cwd"), "--run", run) as address:
        yield address
    changed = {p for p, s in state(run).items() if before.get(p) != s} | (
        before.keys() - state(run).keys()
    )
    assert changed <= {Path("metrics.jsonl")}, (
        "the app writes nothing into the run"
    )  # metrics: lines that a test adds, as training would


@pytest.fixture(scope="module")
def x(run, smoke_environment):
    from realm_nb.show.explorer import Explorer

    with pytest.MonkeyPatch.context() as m:
        m.setenv("REALM_NB_HOME", smoke_environment["REALM_NB_HOME"])
        explorer = Explorer(run)
        explorer.index("base")  # what it keeps in the cache, it keeps there
        yield explorer


@pytest.fixture(scope="module")
def browser():
    path = chromium()
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'realm_nb[dev]'"
    )
    with api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield b
        finally:
            b.close()


@contextlib.contextmanager
def visit(browser, address, path="", **context):
    "A page that must end without console errors, and have asked no other host for anything."
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    page, wrong = context.new_page(), []
    page.set_default_timeout(60_000)
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: wrong.append(str(e)))
    context.route(
        lambda url: not url.startswith((address, "data:", "blob:")),
        lambda route: (wrong.append(route.request.url), route.abort()),
    )
    try:
        page.goto(address + path)
        page.wait_for_selector(".card, .answer .error, .answer .note")
        yield page
        assert page.evaluate("window.hacked") is None
    finally:
        context.close()
    assert not wrong


def data_of(page):
    "The result that the page shows, as its own link gives it away."
    return json.loads(unquote(page.locator(".download").get_attribute("href").split(",", 1)[1]))


def until(page, condition, what):
    "The result on the page once `condition(result)` holds and nothing is under way."
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(Exception):
            idle = page.locator("realm-workspace").get_attribute("aria-busy") is None
            if idle and condition(r := data_of(page)):
                return r
        page.wait_for_timeout(50)
    pytest.fail(f"{what}: {page.locator('.answer').inner_text()[:500]}")


def percent(p):
    from realm_nb.show.draw import percent

    return percent(p)


def open_drawer(page, name):
    page.locator(f"#{name} > summary").click()


def ask_own(page, text):
    page.locator("#own").fill(text)
    page.locator("#own").press("Enter")


def same(a, b):
    "Equal, figures up to what single precision and the number of threads leave open."
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        [same(a[k], b[k]) for k in a]
    elif isinstance(a, list):
        assert len(a) == len(b)
        [same(i, j) for i, j in zip(a, b)]
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)
    else:
        assert a == b


def same_page(r, filled):
    """What the page drew, `r`, is what `fill` gives for the same words. Its answer is left out: it
    was given before the words were chosen, for a blank of one piece."""
    same(r | {"answer": None}, filled | {"answer": None})


def page_agrees(page, r):
    "Cards, ribbons and sum show the figures of the result `r`, ∅ last."
    rows = [d for d in r["documents"] if d["block"] >= 0]
    rows += [d for d in r["documents"] if d["block"] < 0]
    cards = page.locator(".card").evaluate_all(
        "a => a.map(c => [Number(c.dataset.block), c.querySelector('.body').innerText])"
    )
    assert [block for block, _ in cards] == [d["block"] for d in rows]
    for (_, body), d in zip(cards, rows):
        if d["block"] >= 0:
            assert " ".join(body.split()) == " ".join(d["text"].split())
    page.get_by_label("in percent").check()
    for shown, d in zip(page.locator(".card .figures").all_inner_texts(), rows):
        figures = [percent(d[name]) for name in ("p_z", "p_y_z", "share") if name in d]
        assert all(figure in shown for figure in figures), (shown, figures)
    if "p_y_x" not in r:
        return
    assert page.locator(".p-y-x").inner_text() == percent(r["p_y_x"])
    assert page.locator(".ribbon").count() == 2 * len(rows)
    left = page.locator(".ribbons svg > rect.end").evaluate_all(
        "r => r.map(e => [e.dataset.block, Number(e.getAttribute('height'))])"
    )
    whole = 190 if page.viewport_size["width"] > 700 else 130
    heights = [h for _, h in left]
    want = [
        h for d in rows for h in (max(3, whole * d["p_z"]), max(1.5, whole * d["p_z"] * d["p_y_z"]))
    ]
    assert heights == pytest.approx(want, abs=0.2)


def test_a_sentence_is_filled_as_the_library_fills_it(app, x, browser):
    from realm_nb.show.explorer import Settings, fill, suggestions

    first = suggestions(x)
    with visit(browser, app) as page:
        r = data_of(page)
        assert r["sentence"] == first[0][0]
        same_page(r, fill(x, first[0][0], r["hidden"]))
        page_agrees(page, r)
        assert percent(fill(x, *first[0])["answers"][0]["p"]) != "" and page.locator(
            ".answer .sure"
        ).inner_text().endswith(" sure")

        page.locator(".sentence button").first.click()  # click a word to hide it
        word = until(page, lambda s: s["sentence"] != r["sentence"], "a clicked word")
        assert word["sentence"].count("[MASK]") == 1 and first[0][1] in word["sentence"]
        same_page(word, fill(x, word["sentence"], word["hidden"]))

        page.locator(".trying .chip").nth(1).click()  # pick a sentence
        second = until(page, lambda s: s["sentence"] == first[1][0], "a picked sentence")
        page.locator(".others .chip").first.click()  # look at another answer
        other = until(page, lambda s: s["hidden"] != second["hidden"], "another answer")
        same_page(other, fill(x, first[1][0], other["hidden"]))
        page_agrees(page, other)

        ask_own(page, "The capital of France is ___.")
        typed = until(page, lambda s: s["sentence"].startswith("The capital"), "a typed sentence")
        want = fill(x, "The capital of France is [MASK].", typed["hidden"])
        same_page(typed | {"given": True}, want)

        open_drawer(page, "settings")
        page.locator("[data-setting=null]").uncheck()
        alone = until(page, lambda s: not s["settings"]["null"], "without ∅")
        settings = Settings(null=False)
        want = fill(x, "The capital of France is [MASK].", alone["hidden"], settings)
        same_page(alone | {"given": True}, want)
        assert all(d["block"] >= 0 for d in alone["documents"])
        assert page.locator(".card").count() == 4

        ask_own(page, "There is no blank here.")
        page.wait_for_selector(".answer .note")
        assert "click the word" in page.locator(".answer .note").inner_text()
        page.locator(".sentence button", has_text="blank").click()
        until(
            page, lambda s: s["sentence"] == "There is no [MASK] here.", "a blank made by a click"
        )


def test_a_link_opens_the_same_page_and_text_stays_text(app, x, browser):
    from realm_nb.show.explorer import Settings, fill
    from realm_nb.show.world import EditedCorpus
    from realm_nb.text.wikitext import Document

    query = {
        "q": f"In [MASK] they say {NASTY}",
        "a": "Paris",
        "k": 2,
        "temperature": 0.5,
        "null": 0,
        "exclude": 0,
        "marginal": "token",
        "moment": x.states[-2].name,
    }
    text = f"The town of Paris is where {NASTY} was born, they say."
    own = {"added": [{"title": NASTY, "text": text}], "removed": [3], "of": len(x.store)}
    path = "?" + urlencode(query) + "#" + quote(json.dumps(own))
    with visit(browser, app, path) as page:
        r = data_of(page)
        world = EditedCorpus(x.store, x.tokenizer, [Document(NASTY, text)], [3])
        settings = Settings(2, 0.5, False, False, "token")
        same_page(r, fill(x, query["q"], r["hidden"], settings, query["moment"], world))
        assert NASTY in page.locator(".cards").inner_text()
        assert page.locator("realm-workspace img").count() == 0
        again = page.locator(".permalink").get_attribute("href")
        assert json.loads(unquote(again.split("#")[1])) == own, "what was added travels along"
        page.goto("about:blank")
        page.goto(app + again)
        page.wait_for_selector(".card")
        assert data_of(page) == r


def test_watch_it_learn(app, x, browser):
    from realm_nb.show.explorer import compare, suggestions

    text, hidden = suggestions(x)[0]
    end = time.monotonic() + 120
    with visit(browser, app) as page:
        while True:
            open_drawer(page, "watch")
            page.wait_for_selector("#watch svg.ranks, #watch .error")
            if "Still being prepared" not in page.locator("#watch").inner_text():
                break
            assert time.monotonic() < end
            open_drawer(page, "watch")
            page.wait_for_timeout(1000)
        c = compare(x, text, hidden)
        assert len(c["moments"]) >= 4
        labels = page.locator("#watch tbody th").all_inner_texts()
        assert labels == [m["label"] for m in c["moments"]]
        assert page.locator("#watch polyline").count() >= len(c["documents"])
        spoken = page.locator("#watch svg.ranks").get_attribute("aria-label")
        assert all(" to ".join(map(str, d["ranks"])) in spoken for d in c["documents"])
        page.locator("#moment-at").focus()
        page.keyboard.press("Home")
        r = until(page, lambda r: r["moment"] == "base", "the first moment, by a key")
        page_agrees(page, r)
        assert "base" in page.locator("#watch .now").inner_text()


def told(x, text, hidden, settings):
    "A document that changes the first answer, by the library's own word."
    from realm_nb.show.explorer import fill
    from realm_nb.show.world import EditedCorpus
    from realm_nb.text.wikitext import Document

    before = fill(x, text, hidden, settings)["answers"][0]["text"]
    for word, times in [
        (w, n)
        for w in ("1969", "Paris", "Moon", "London", "Einstein", "Venus")
        for n in (30, 12, 1)
    ]:
        body = text.replace("[MASK]", word) + f" It was {' '.join([word] * times)}."
        seen = fill(
            x,
            text,
            hidden,
            settings,
            world=EditedCorpus(x.store, x.tokenizer, [Document(word, body)]),
        )
        if seen["answers"][0]["text"] != before:
            return word, body, before, seen
    pytest.fail("no document changes the answer")


def test_a_fact_is_taught_rewritten_undone_and_seen_by_nobody_else(app, x, browser):
    from realm_nb.show.explorer import Settings, suggestions

    (text, hidden), link = suggestions(x)[0], "?k=1&null=0"
    _, body, _, want = told(x, text, hidden, Settings(k=1, null=False))
    with visit(browser, app, link) as page, visit(browser, app, link) as other:
        first, theirs = data_of(page), data_of(other)
        page.locator("#fact").fill(body)
        page.locator("#about").fill(text.replace("[MASK]", "___"))
        page.locator(".teach .go").click()
        page.wait_for_selector(".turned")
        mine = data_of(page)
        own = [d for d in mine["documents"] if d["block"] >= len(x.store)]
        assert [d["text"] for d in own] == [want["documents"][0]["text"]]
        assert "Trained steps: 0" in page.locator(".turned").inner_text()
        assert page.locator(".lane").count() == 2 and page.locator(".card .tag").count() == 1
        hues = page.locator(".lane[data-lane=after] i").evaluate_all("e => e.map(i => i.className)")
        assert hues == page.locator(".card").evaluate_all("e => e.map(c => c.classList[1])")
        assert data_of(other) == theirs, "another visitor sees the run's own corpus"

        page.get_by_role("button", name="rewrite").first.click()
        page.locator(".card textarea").fill("Nobody has ever seen this text, they say here.")
        page.locator(".card .go").click()
        until(page, lambda r: "Nobody has ever" not in str(first) and r != mine, "a rewritten text")
        page.locator(".undo").click()
        until(page, lambda r: r == mine, "the rewriting undone")
        page.get_by_role("button", name="forget").first.click()
        until(page, lambda r: len(x.store) > r["documents"][0]["block"], "a text forgotten")
        gone = data_of(page)["documents"][0]["block"]
        page.get_by_role("button", name="leave out").first.click()
        until(page, lambda r: r["documents"][0]["block"] != gone, "a passage left out")
        page.get_by_role("button", name="put back").click()
        until(page, lambda r: r["documents"][0]["block"] == gone, "a passage put back")


def test_question_library_and_curves(app, x, run, browser):
    from realm_nb.show.explorer import corpus_map

    with visit(browser, app) as page:
        open_drawer(page, "question")
        page.locator("#ask-text").fill("Who was born in Warsaw?")
        page.locator("#ask-text").press("Enter")
        page.wait_for_selector("#ask-out article")
        assert "realm_nb.train --run" in page.locator("#ask-out").inner_text()

        open_drawer(page, "library")
        page.wait_for_selector("#library svg")
        dots = page.locator("#library circle:not(.found)").evaluate_all(
            "c => c.map(e => [e.textContent, +e.getAttribute('cx'), +e.getAttribute('cy')])"
        )
        m = corpus_map(x)
        assert [d[0] for d in dots] == m["titles"]
        assert page.locator("#library circle.found").count() == 4
        order = np.array(m["points"])[:, 0].argsort()
        assert (np.diff(np.array([d[1] for d in dots])[order]) >= -0.11).all(), (
            "left to right as the first component says"
        )

        open_drawer(page, "watch")
        page.wait_for_selector("#watch .curves svg")
        stages = page.locator("#watch h3").all_inner_texts()
        assert stages == ["warmup: step 12", "ict: step 12", "pretrain: step 12"]
        with open(run / "metrics.jsonl", "a") as f:
            f.write(
                json.dumps({"stage": "pretrain", "step": 13, "loss": 1.0})
                + '\n{"stage": "pretrain", "st'
            )
        page.wait_for_function(
            "document.querySelector('#watch').innerText.includes('pretrain: step 13')"
        )

        open_drawer(page, "many")
        page.locator("#many textarea").fill("Paris lies in [France] today.\nRome lies in ___ too.")
        page.locator("#many .go").click()
        page.wait_for_function("document.querySelectorAll('#many tbody tr').length == 2")
        assert "of 1" in page.locator("#many .drawn p").inner_text()


def test_ask_a_reader(run, smoke_environment, tmp_path, browser, monkeypatch):
    """A reader trained on the small encyclopedia's questions answers them on the page.

    With the library's own figures."""
    from realm_nb.core.folder import Run
    from realm_nb.qa.ask import Answerer
    from realm_nb.qa.finetune import FinetuneConfig
    from realm_nb.text.sources import load_questions
    from realm_nb.train import run_stages
    from realm_nb.workspace import Workspace

    monkeypatch.setenv("REALM_NB_HOME", smoke_environment["REALM_NB_HOME"])
    tuned = Path(shutil.copytree(run, tmp_path / "tuned"))
    workspace = Workspace.open(tuned)
    workspace.run = Run(tuned, quiet=True)
    workspace.config.finetune = FinetuneConfig(
        questions="mini",
        left_out="",
        validation=10,
        start="base",
        steps=30,
        batch=8,
        lr=2e-4,
        lr_head=1e-3,
        tune_steps=2,
        tune_batch=4,
        retriever_blocks=50,
    )
    run_stages(workspace, ["finetune"])
    answerer, (first, second) = Answerer(tuned), [q["question"] for q in load_questions("mini")[:2]]
    with (
        serving(smoke_environment, tmp_path, "--run", run, "--qa", tuned) as address,
        visit(browser, address) as page,
    ):
        open_drawer(page, "question")
        page.locator("#ask-text").fill(first)
        page.locator("#ask-text").press("Enter")
        page.wait_for_selector("#ask-out .filled")
        r = answerer.facts(first, 4)
        assert page.locator("#ask-out .answer .filled").inner_text() == r["answer"]
        assert r["answer"].lower() in [
            m.lower() for m in page.locator("#ask-out mark").all_inner_texts()
        ], "the answer is marked in its evidence"
        assert page.locator("#ask-out .answer li").count() == len(
            r["alternatives"]
        ) > 1 and page.locator("#ask-out .p-y-x").inner_text() == percent(r["probability"])
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 850})
            page.screenshot(path=ARTEFACTS / f"an-answer-{width}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= width

        page.locator("#ask-text").fill(second)
        page.locator("#ask-go").click()
        other = answerer.facts(second, 4)["answer"]
        page.wait_for_function(
            "a => document.querySelector('#ask-out .filled')?.innerText == a", arg=other
        )
        page.locator("#ask-text").fill("  ")
        page.locator("#ask-go").click()
        page.wait_for_selector("#ask-out .error")


DRAWERS = {
    "watch": "#watch svg.ranks",
    "why": "#why table",
    "library": "#library svg",
    "many": "#many textarea",
    "question": "#ask-text",
    "settings": "#settings select",
}


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_every_part_fits_and_has_a_name(width, scheme, app, browser):
    ARTEFACTS.mkdir(exist_ok=True)
    with visit(browser, app, viewport={"width": width, "height": 850}, color_scheme=scheme) as page:
        answer = page.locator(".answer .headline").bounding_box()
        assert answer["y"] + answer["height"] < 850, "the answer stands above the fold"
        for name, selector in DRAWERS.items():
            open_drawer(page, name)
            page.wait_for_selector(selector)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            assert not page.evaluate(NAMELESS), name
        page.screenshot(path=ARTEFACTS / f"app-{width}.png", full_page=True)
        levels = page.locator(":is(h1, h2, h3, h4)").evaluate_all(
            "h => h.filter(e => e.offsetParent).map(e => Number(e.tagName[1]))"
        )
        assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels)), levels


def test_the_keyboard_reaches_everything(app, browser):
    with visit(browser, app) as page:
        page.locator(".sentence button").first.focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate(
            "document.activeElement == document.querySelectorAll('.sentence button')[1]"
        )
        stops = page.locator(".sentence button").evaluate_all(
            "b => b.filter(e => e.tabIndex == 0).length"
        )
        assert stops == 1, "the words are one stop of the Tab key"
        before = data_of(page)
        page.keyboard.press("Enter")
        until(page, lambda r: r["sentence"] != before["sentence"], "a word hidden by a key")
        reached = set()
        for _ in range(80):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate(
                    "(e => e.closest('section')?.className + e.tagName)(document.activeElement)"
                )
            )
        assert {"teachTEXTAREA", "tryingINPUT", "undefinedSUMMARY"} <= reached, reached
        assert page.locator(".answer").get_attribute("aria-live") == "polite"


def test_client_and_many_visitors(app, x):
    from gradio_client import Client

    from realm_nb.show.explorer import Settings, fill, look_up, suggestions
    from realm_nb.show.world import EditedCorpus
    from realm_nb.text.wikitext import Document

    client = Client(app, verbose=False)
    text, hidden = suggestions(x)[0]
    same(client.predict(text, hidden, api_name="/fill"), fill(x, text, hidden))
    extra = {"title": "Extra", "text": "One more document is sent along with the question."}
    world = EditedCorpus(x.store, x.tokenizer, [Document(**extra)], [0])
    same(
        client.predict(
            text=text,
            hidden=hidden,
            k=3,
            temperature=2.0,
            null=False,
            exclude=True,
            marginal="token",
            moment="",
            added=[extra],
            removed=[0],
            api_name="/fill",
        ),
        fill(x, text, hidden, Settings(3, 2.0, False, True, "token"), world=world),
    )
    same(client.predict("Warsaw", api_name="/look_up"), look_up(x, "Warsaw"))
    assert client.predict(api_name="/moments") == [m.name for m in x.states]
    assert {"warmup", "ict", "pretrain"} == set(client.predict(api_name="/curves"))
    for bad, what in (
        ({"text": "no blank"}, "blank"),
        ({"text": "x" * 700 + "[MASK]"}, "600"),
        ({"text": text, "k": 99}, "k is 99"),
        ({"text": text, "moment": "later"}, "moment"),
        ({"text": text, "added": [extra] * 21}, "20 is the most"),
        ({"text": text, "added": [{"title": "T", "text": "y" * 5000}]}, "4,000"),
    ):
        with pytest.raises(Exception, match=re.escape(what)):
            client.predict(**bad, api_name="/fill")

    pairs = suggestions(x, 8) * 2

    def ask(pair):
        return Client(app, verbose=False).predict(*pair, api_name="/fill")

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, pairs))
    for pair, r in zip(pairs, found):
        same(r, fill(x, *pair))


def test_uploads_are_bounded(app):
    import urllib.error
    import urllib.request

    size = 300 * 1024
    body = (
        b'--boundary\r\nContent-Disposition: form-data; name="files"; filename="big.jsonl"\r\n\r\n'
        + b"x" * size
        + b"\r\n--boundary--\r\n"
    )
    request = urllib.request.Request(
        app + "gradio_api/upload",
        body,
        {"Content-Type": "multipart/form-data; boundary=boundary"},
    )
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(request)
    assert e.value.code == 413


def test_without_a_run(browser, smoke_environment, tmp_path):
    with (
        serving(
            {**smoke_environment, "REALM_NB_HOME": str(tmp_path / "home")}, tmp_path
        ) as address,
        visit(browser, address) as page,
    ):
        assert "python -m realm_nb.train" in page.locator("header .note").inner_text()
        assert page.locator(".card").count() == 5
        assert "not read" in page.locator(".answer").inner_text()
        assert page.locator("#watch").count() == 0, "nothing was trained, nothing to watch"
        open_drawer(page, "library")
        page.wait_for_selector("#library svg")
    assert not (tmp_path / "runs").exists()


def test_command_line(capsys, tmp_path):
    from realm_nb.show.app import main

    for flags, needle in (
        (["--run", str(tmp_path)], "config.json"),
        (["--port", "many"], "--port takes a whole number"),
        (["--prot", "1"], "--prot"),
    ):
        assert main(flags) == 2
        err = capsys.readouterr().err.strip()
        assert err.startswith("error: ") and needle in err and "\n" not in err


def test_the_exported_page_needs_no_server(run, x, smoke_environment, tmp_path, browser):
    "One file, opened from the disk: sentences and moments answer, and nothing is asked for."
    from realm_nb.show.app import Query as Q
    from realm_nb.show.app import Site, export, show

    with pytest.MonkeyPatch.context() as m:
        m.setenv("REALM_NB_HOME", smoke_environment["REALM_NB_HOME"])
        site = Site(run)
        export(site, tmp_path / "demo.html", n=2)
        want = show(site, Q(*site.first[1]))["result"]
    address = (tmp_path / "demo.html").as_uri()
    with visit(browser, address) as page:
        assert page.locator(".answer .headline").inner_text()
        page.locator(".trying .chip").nth(1).click()
        r = until(page, lambda r: r["sentence"] == site.first[1][0], "the second sentence")
        same(r, want)
        open_drawer(page, "watch")
        page.wait_for_selector("#watch svg.ranks")
        page.locator("#moment-at").focus()
        page.keyboard.press("Home")
        until(page, lambda r: r["moment"] == "base", "the first moment")
        page.locator(".sentence button").first.click()
        page.wait_for_selector(".answer .error")
        assert "recording" in page.locator(".answer .error").inner_text()
    assert list(tmp_path.iterdir()) == [tmp_path / "demo.html"]
