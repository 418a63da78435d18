"""The app as a visitor meets it: a real process on a free port, driven in Chromium.

Every figure is compared with the library's own."""

import base64
import concurrent.futures
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest

pytest.importorskip(
    "gradio", reason="the app's extra is not installed: pip install 'realm_nb[app]'"
)
ARTEFACTS = Path(__file__).resolve().parents[1] / "artefacts"
NASTY = '<img src=x onerror="window.hacked=1"> ${window.hacked=2} {{7*7}}'


NAMELESS = """
[...document.querySelectorAll('input, textarea, button, [role=img]')].filter(e =>
  e.offsetParent && e.type != 'file' && !(
    e.labels?.length || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') ||
    e.innerText?.trim() || e.title)
).map(e => e.outerHTML.slice(0, 200))"""
REACHED = "'#fill-words, #fill-hidden, #fill-go, #fill-out'"


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
        page.wait_for_selector("#fill-out article, #fill-out .error")
        yield page
        assert page.evaluate("window.hacked") is None
    finally:
        context.close()
    assert not wrong


def data_of(page, box):
    return json.loads(
        base64.b64decode(
            page.locator(f"{box} a[download]").last.get_attribute("href").split("base64,")[1]
        )
    )


def until(page, box, condition, what):
    "The result in `box` once `condition(result)` holds."
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(Exception):
            if condition(r := data_of(page, box)):
                return r
        page.wait_for_timeout(50)
    pytest.fail(f"{what}: {page.locator(box).inner_text()[:500]}")


def type_in(page, texts):
    """Fill fields by selector and see that they stay filled.

    A panel just opened may still put its first values in."""
    calm = 0
    for _ in range(40):
        for selector, text in texts.items():
            if page.locator(selector).input_value() != text:
                page.locator(selector).fill(text)
                calm = 0
        page.wait_for_timeout(150)
        calm = calm + 1 if all(page.locator(s).input_value() == t for s, t in texts.items()) else 0
        if calm == 3:
            return
    pytest.fail(f"{list(texts)} do not keep what is typed")


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


def cards_agree(page, box, documents):
    "The cards show the documents' figures, ∅ last."
    from realm_nb.show.draw import number

    rows = [d for d in documents if d["block"] >= 0] + [d for d in documents if d["block"] < 0]
    seen = page.locator(f"{box} article").evaluate_all(
        "a => a.map(c => [Number(c.dataset.block), c.querySelector('.body').innerText, "
        "[...c.querySelectorAll('.value')].map(v => v.innerText)])"
    )
    assert [s[0] for s in seen] == [d["block"] for d in rows]
    for (_, body, values), d in zip(seen, rows):
        if d["block"] >= 0:
            assert " ".join(body.split()) == " ".join(d["text"].split())
        want = (
            [number(d["p_z"])]
            + ([number(d["p_y_z"]), number(d["share"]), f"{d['r']:+.3f}"] if "r" in d else [])
            + ([f"{d['ru']:+.2f}"] if "ru" in d else [])
        )
        assert values == want


def test_fill_a_blank(app, x, browser):
    from realm_nb.show.draw import number
    from realm_nb.show.explorer import Settings, fill, suggestions

    first = suggestions(x)
    with visit(browser, app) as page:
        r = data_of(page, "#fill-out")
        same(r, fill(x, *first[0]))
        cards_agree(page, "#fill-out", r["documents"])
        assert page.locator("#fill-out .p-y-x").inner_text() == number(r["p_y_x"])
        assert page.locator("#fill-out .answer li").all_inner_texts() == [
            f"{a['text']}\n{number(a['p'])}" for a in r["answers"]
        ]
        widths = page.locator("#fill-out .stack").evaluate_all(
            "s => s.map(b => [...b.children].reduce((w, i) => w + parseFloat(i.style.width), 0))"
        )
        assert widths == pytest.approx([100, 100 * r["p_y_x"], 100], abs=0.3)

        page.locator("#fill-words button.word").first.click()  # click a word to hide it
        word = until(page, "#fill-out", lambda s: s["hidden"] != r["hidden"], "a clicked word")
        assert (
            word["sentence"].count("[MASK]") == 1
            and page.locator("#fill-hidden textarea, #fill-hidden input").input_value()
            == word["hidden"]
        )
        same(word, fill(x, word["sentence"], word["hidden"]))

        page.locator("#fill-pick input").click()
        page.get_by_role("option").nth(1).click()  # pick a sentence
        second = until(page, "#fill-out", lambda s: s["hidden"] == first[1][1], "a picked sentence")
        same(second, fill(x, *first[1]))

        page.locator("#fill-text textarea").fill("The capital of France is [MASK].")
        page.locator("#fill-hidden textarea, #fill-hidden input").fill("")
        page.locator("#fill-text textarea").press("Enter")
        typed = until(
            page, "#fill-out", lambda s: s["sentence"].startswith("The capital"), "a typed sentence"
        )
        assert not typed["given"] and typed["hidden"] == typed["answers"][0]["text"]
        same(typed, fill(x, "The capital of France is [MASK]."))

        page.get_by_role("button", name="Settings for all tabs").click()
        page.get_by_label("∅ takes part").uncheck()
        alone = until(page, "#fill-out", lambda s: not s["settings"]["null"], "without ∅")
        page.get_by_label("sequence").check()
        alone = until(
            page,
            "#fill-out",
            lambda s: s["settings"]["marginal"] == "sequence",
            "the sequence marginal",
        )
        same(
            alone,
            fill(
                x, "The capital of France is [MASK].", "", Settings(null=False, marginal="sequence")
            ),
        )
        assert page.locator("#fill-out article").count() == 4 and all(
            d["block"] >= 0 for d in alone["documents"]
        )

        page.locator("#fill-text textarea").fill("There is no blank here.")
        page.locator("#fill-text textarea").press("Enter")
        page.wait_for_selector("#fill-out .error")
        assert "click a word" in page.locator("#fill-out .error").inner_text()


def test_permalink_and_html(app, x, browser):
    from realm_nb.show.explorer import Settings, fill

    query = {
        "q": f"In [MASK] they say {NASTY}",
        "a": "Paris",
        "k": 2,
        "temperature": 0.5,
        "null": 0,
        "exclude": 0,
        "marginal": "sequence",
        "moment": x.states[-2].name,
    }
    with visit(browser, app, "?" + urlencode(query)) as page:
        r = data_of(page, "#fill-out")
        same(
            r,
            fill(
                x, query["q"], "Paris", Settings(2, 0.5, False, False, "sequence"), query["moment"]
            ),
        )
        cards_agree(page, "#fill-out", r["documents"])
        assert (
            NASTY in page.locator("#fill-out .sentence").inner_text()
            and page.locator("#fill-out img, #fill-words img").count() == 0
        )
        again = page.locator("#fill-out .permalink").get_attribute("href")
        page.goto(app + again)
        page.wait_for_selector("#fill-out article")
        assert data_of(page, "#fill-out") == r

        page.get_by_role("tab", name="Change the world").click()  # HTML in a document
        page.get_by_role("button", name="Write, edit or remove").click()
        type_in(
            page,
            {
                "#world-title textarea, #world-title input": NASTY,
                "#world-body textarea": f"The town of Paris is where {NASTY} was born, they say.",
            },
        )
        page.locator("#world-save").click()
        page.wait_for_selector("#world-out .mine article")
        assert (
            NASTY in page.locator("#world-changes").inner_text()
            and page.locator("#world-out img, #world-changes img").count() == 0
        )


def test_before_and_after(app, x, browser):
    from realm_nb.show.explorer import compare, fill, suggestions

    text, hidden = suggestions(x)[0]
    end = time.monotonic() + 120
    with visit(browser, app) as page:
        page.get_by_role("tab", name="Before and after").click()
        while True:
            page.locator("#compare-go").click()
            page.wait_for_selector("#compare-out svg")
            c = until(page, "#compare-out", lambda c: True, "a comparison")
            if not c["waiting"]:
                break
            assert time.monotonic() < end
            page.wait_for_timeout(1000)
        same(c, compare(x, text, hidden))
        assert [m["name"] for m in c["moments"]] == [m.name for m in x.states] and len(
            c["moments"]
        ) >= 4
        assert page.locator("#compare-out polyline").count() == len(c["documents"])
        spoken = page.locator("#compare-out svg").get_attribute("aria-label")
        assert all(" to ".join(map(str, d["ranks"])) in spoken for d in c["documents"])
        cards_agree(page, "#compare-out", fill(x, text, hidden)["documents"])
        slider = page.locator("#compare-at input[type=range]")
        slider.focus()
        slider.press("Home")
        page.mouse.click(5, 5)
        slider.evaluate("e => e.dispatchEvent(new PointerEvent('pointerup', {bubbles: true}))")
        page.wait_for_function(
            "document.querySelector('#compare-out .now')?.innerText.includes('base')"
        )
        cards_agree(page, "#compare-out", fill(x, text, hidden, moment="base")["documents"])


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


def test_change_the_world(app, x, browser):
    from realm_nb.show.explorer import Settings, fill, suggestions

    (text, hidden), settings, link = suggestions(x)[0], Settings(k=1, null=False), "?k=1&null=0"
    word, body, before, want = told(x, text, hidden, settings)
    with visit(browser, app, link) as page, visit(browser, app, link) as other:
        page.get_by_role("tab", name="Change the world").click()
        page.get_by_role("button", name="Write, edit or remove").click()
        type_in(
            page, {"#world-title textarea, #world-title input": word, "#world-body textarea": body}
        )
        page.locator("#world-save").click()
        page.wait_for_selector("#world-out .mine article")
        mine = data_of(page, "#world-out .mine")
        same(mine, want)
        assert (
            mine["answers"][0]["text"] != before
            and data_of(page, "#world-out .theirs")["answers"][0]["text"] == before
        )
        assert "The answer followed" in page.locator("#world-out .verdict").first.inner_text()
        assert page.locator("#world-out .mine .tag").count() == 1
        assert data_of(other, "#fill-out")["answers"][0]["text"] == before, (
            "another visitor sees the run's own corpus"
        )

        def says(what):
            page.wait_for_function(
                "what => document.querySelector('#world-changes').innerText.includes(what)",
                arg=what,
            )

        for title, after in (
            (word, "Nothing is changed"),
            (data_of(page, "#world-out .theirs")["documents"][0]["title"], "removed"),
        ):  # first one's own document, then the run's
            page.locator("#world-which input").click()
            page.get_by_role("option", name=title).first.click()
            page.wait_for_function(
                "document.querySelector('#world-body textarea').value.length > 0"
            )
            page.locator("#world-drop").click()
            says(after)
        theirs = data_of(page, "#world-out .theirs")["documents"][0]["block"]
        until(
            page,
            "#world-out .mine",
            lambda r: theirs not in [d["block"] for d in r["documents"]],
            "a removed passage",
        )

        with page.expect_file_chooser() as chooser:
            page.locator("#world-file").click()
        chooser.value.set_files(
            {
                "name": "more.jsonl",
                "mimeType": "application/jsonl",
                "buffer": json.dumps(
                    {"title": "Uploaded", "text": "This document comes from a file of the visitor."}
                ).encode(),
            }
        )
        says("Uploaded")
        page.locator("#world-undo").click()
        says("Nothing is changed")
        same(data_of(page, "#world-out .theirs"), fill(x, text, hidden, settings))


def test_ask_map_and_curves(app, x, run, browser):
    from realm_nb.show.explorer import corpus_map, look_up

    with visit(browser, app) as page:
        page.get_by_role("tab", name="Ask a question").click()
        page.locator("#ask-text textarea").fill("Who was born in Warsaw?")
        page.locator("#ask-text textarea").press("Enter")
        page.wait_for_selector("#ask-out article")
        found = look_up(x, "Who was born in Warsaw?")
        same(data_of(page, "#ask-out"), found)
        cards_agree(page, "#ask-out", found["documents"])
        assert "realm_nb.train --run" in page.locator("#ask-out").inner_text()

        page.get_by_role("tab", name="Corpus map").click()
        page.wait_for_selector("#map-out svg")
        dots = page.locator("#map-out circle:not(.found)").evaluate_all(
            "c => c.map(e => [e.textContent, +e.getAttribute('cx'), +e.getAttribute('cy')])"
        )
        m = corpus_map(x)
        assert [d[0] for d in dots] == m["titles"] and page.locator(
            "#map-out circle.found"
        ).count() == 4
        inner = np.array(m["points"])[:, 0].argsort()[len(dots) // 10 : -len(dots) // 10]
        assert (np.diff(np.array([d[1] for d in dots])[inner]) >= -0.11).all(), (
            "left to right as the first component says"
        )

        page.get_by_role("tab", name="Training curves").click()
        page.wait_for_selector("#curves-out svg")
        stages = page.locator("#curves-out h3").all_inner_texts()
        assert stages == ["warmup: step 12", "ict: step 12", "pretrain: step 12"]
        with open(run / "metrics.jsonl", "a") as f:
            f.write(
                json.dumps({"stage": "pretrain", "step": 13, "loss": 1.0})
                + '\n{"stage": "pretrain", "st'
            )
        page.wait_for_function(
            "document.querySelector('#curves-out').innerText.includes('pretrain: step 13')"
        )


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
        page.get_by_role("tab", name="Ask a question").click()
        page.locator("#ask-text textarea").fill(first)
        page.locator("#ask-text textarea").press("Enter")
        r = until(page, "#ask-out", lambda r: r["question"] == first, "an answer")
        same(r, answerer.facts(first, 4))
        cards_agree(page, "#ask-out", r["evidence"])
        assert page.locator("#ask-out .answer .filled").inner_text() == r["answer"]
        assert r["answer"].lower() in [
            m.lower() for m in page.locator("#ask-out mark").all_inner_texts()
        ], "the answer is marked in its evidence"
        assert (
            page.locator("#ask-out .answer li").count() == len(r["alternatives"]) > 1
            and page.locator("#ask-out .p-y-x").inner_text()
            == page.locator("#ask-out .answer li b").first.inner_text()
        )
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 850})
            page.screenshot(path=ARTEFACTS / f"an-answer-{width}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= width

        page.get_by_role("button", name="Settings for all tabs").click()
        page.locator("#k input[type=number]").fill("2")
        page.keyboard.press("Enter")
        page.locator("#ask-text textarea").fill(second)
        page.locator("#ask-go").click()
        r = until(page, "#ask-out", lambda r: r["question"] == second, "another answer")
        same(r, answerer.facts(second, 2))
        page.locator("#ask-text textarea").fill("  ")
        page.locator("#ask-go").click()
        page.wait_for_selector("#ask-out .error")


def test_phone_dark_keyboard_and_labels(app, browser):
    ARTEFACTS.mkdir(exist_ok=True)
    tabs = {
        "Fill a blank": "#fill-out article",
        "Ask a question": "#ask-text",
        "Before and after": "#compare-go",
        "Change the world": "#world-go",
        "Corpus map": "#map-out svg",
        "Training curves": "#curves-out svg",
    }
    for width, scheme in ((390, "dark"), (1280, "light")):
        with visit(
            browser, app, viewport={"width": width, "height": 850}, color_scheme=scheme
        ) as page:
            for name, selector in tabs.items():
                page.get_by_role("tab", name=name).click()
                page.wait_for_selector(selector)
                if name == "Before and after":
                    page.locator("#compare-go").click()
                    page.wait_for_selector("#compare-out svg")
                if name == "Change the world":
                    page.locator("#world-go").click()
                    page.wait_for_selector("#world-out article")
                assert page.evaluate("document.documentElement.scrollWidth") <= width, name
                page.screenshot(
                    path=ARTEFACTS / f"{name.lower().replace(' ', '-')}-{width}.png", full_page=True
                )
                nameless = page.evaluate(NAMELESS)
                assert not nameless, name
            if width == 390:
                assert (
                    page.evaluate("getComputedStyle(document.querySelector('.realm h1')).color")
                    == "rgb(236, 239, 244)"
                )
            else:
                page.get_by_role("tab", name="Fill a blank").click()
                page.locator("#fill-text textarea").focus()
                reached = []
                for _ in range(40):
                    page.keyboard.press("Tab")
                    reached.append(page.evaluate(f"document.activeElement.closest({REACHED})?.id"))
                    if reached[-1] == "fill-go":
                        break
                order = list(dict.fromkeys(r for r in reached if r))
                assert order == ["fill-words", "fill-hidden", "fill-go"]
                page.keyboard.press("Enter")
                page.wait_for_selector("#fill-out article")


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
            marginal="sequence",
            moment="",
            added=[extra],
            removed=[0],
            api_name="/fill",
        ),
        fill(x, text, hidden, Settings(3, 2.0, False, True, "sequence"), world=world),
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
        assert "python -m realm_nb.train" in page.locator(".note").inner_text()
        assert (
            page.locator("#fill-out article").count() == 5
            and "not read" in page.locator("#fill-out").inner_text()
        )
        page.get_by_role("tab", name="Before and after").click()
        page.locator("#compare-go").click()
        page.wait_for_selector("#compare-out .error")
        page.get_by_role("tab", name="Training curves").click()
        page.wait_for_selector("#curves-out .error")
        assert "python -m realm_nb.train" in page.locator("#curves-out").inner_text()
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
