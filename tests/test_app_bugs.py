"""What was once wrong with the app, each in a sentence: on the page, in its API, at its door."""

import contextlib
import http.client
import json
import time
from types import SimpleNamespace
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
from test_app import app, ask_own, browser, data_of, open_drawer, run, serving, until, visit, x

from realm_nb.core.errors import UserError

__all__ = ["app", "browser", "run", "x"]  # fixtures

CONTRAST = """
(() => {
const parse = c => (c.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const light = ([r, g, b]) => {
  const one = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const [x, y, z] = [r, g, b].map(v => one(v / 255));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const ground = e => {
  for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0.5) return c;
  }
  return [255, 255, 255];
};
const faint = [];
for (const e of document.querySelectorAll('.realm *')) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.getClientRects().length) continue;
  const style = getComputedStyle(e);
  const ink = e.closest('svg') ? style.fill : style.color;
  const [a, b] = [light(parse(ink)), light(ground(e))].sort((p, q) => q - p);
  const ratio = (a + 0.05) / (b + 0.05);
  const name = e.className.baseVal ?? e.className;
  if (ratio < 4.5) faint.push([name, e.textContent.slice(0, 30), ratio]);
}
return faint;
})()"""


def ask(address, path="", method="GET", body=None, **headers):
    "(status, headers, body) of one plain request; `Host` may be any."
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    connection.putrequest(method, "/" + path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read().decode("utf-8", "replace")
    connection.close()
    return found


def call(address, name, **given):
    from gradio_client import Client

    return Client(address, verbose=False).predict(api_name=name, **given)


# ---------------------------------------------------------------- the page


def test_a_sentence_that_is_replaced_does_not_keep_the_old_hidden_word(app, browser):
    with visit(browser, app, "?" + urlencode({"q": "Born in [MASK].", "a": "Warsaw"})) as page:
        ask_own(page, "George Gershwin was born in ___.")
        until(page, lambda r: r["sentence"].startswith("George"), "the new sentence")
        assert "Hidden was" not in page.locator(".answer").inner_text()
        assert "a=" not in page.locator(".permalink").get_attribute("href")


def test_of_many_questions_in_a_moment_the_last_is_answered(app, browser):
    with visit(browser, app) as page:
        for city in ("Paris", "Rome", "Madrid", "Vienna"):
            page.locator("#own").fill(f"In {city} they speak ___ today.")
            page.locator("#own").press("Enter")
        until(page, lambda r: "Vienna" in r["sentence"], "the last question")
        page.wait_for_timeout(1500)
        assert "Vienna" in data_of(page)["sentence"]
        assert "Vienna" in page.locator(".sentence").inner_text()


def test_the_blank_is_no_word_to_hide(app, browser):
    with visit(browser, app, "?" + urlencode({"q": "It is [MASK] here [MASK] they say."})) as page:
        page.locator(".sentence .blank").click()
        assert page.locator(".sentence button", has_text="MASK").count() <= 1
        page.locator(".sentence button", has_text="here").click()
        r = until(page, lambda r: "here" not in r["sentence"], "another blank")
        assert r["sentence"].count("[MASK]") == 1 and "[[" not in r["sentence"]


def test_a_setting_that_is_typed_counts(app, browser):
    with visit(browser, app) as page:
        open_drawer(page, "settings")
        page.locator("[data-setting=k]").fill("2")
        page.keyboard.press("Enter")
        until(page, lambda r: r["settings"]["k"] == 2, "k, typed")
        page.locator("[data-setting=temperature]").focus()
        page.locator("[data-setting=temperature]").fill("2.5")
        page.keyboard.press("Tab")
        until(page, lambda r: r["settings"]["temperature"] == 2.5, "a temperature, typed")


def test_a_link_with_twenty_passages_leaves_the_page_usable(app, browser):
    with visit(browser, app, "?k=20") as page:
        assert len(data_of(page)["documents"]) == 21
        ask_own(page, "The river Thames flows through ___.")
        until(page, lambda r: "Thames" in r["sentence"], "a question after it")


@pytest.mark.parametrize(
    "path",
    [
        "?q=&k=abc",
        "?q=[MASK]&k=99999&temperature=nan&null=maybe",
        "?k=-1&exclude=&moment=later&marginal=word#%7Bnonsense",
        "?q=It+is+[MASK]+here.#" + '{"added":7,"removed":"x","of":1}',
        "?q=" + 6000 * "x",
    ],
    ids=lambda path: path[:30],
)
def test_an_address_with_nonsense_opens_the_page(path, app, browser):
    with visit(browser, app, path) as page:
        assert page.locator(".card").count() >= 4
        assert data_of(page)["settings"]["k"] == 4


def test_a_text_that_is_too_long_is_told(app, browser):
    with visit(browser, app) as page:
        ask_own(page, "word " * 1000 + "___")
        page.wait_for_selector(".answer .error")
        assert "600 is the most" in page.locator(".answer .error").inner_text()


def test_a_passage_has_one_colour_at_every_moment_and_in_every_picture(app, browser):
    script = """[...document.querySelectorAll('.card, .ribbon, .end, .ranks g')].map(e =>
        [e.dataset.block, [...e.classList].find(c => /^c[1-8]$|^null$/.test(c))])"""
    with visit(browser, app) as page:
        open_drawer(page, "watch")
        page.wait_for_selector("svg.ranks")
        seen = page.evaluate(script)
        page.locator("#moment-at").focus()
        page.keyboard.press("Home")
        until(page, lambda r: r["moment"] == "base", "the first moment")
        seen += page.evaluate(script)
        hues = {}
        for block, hue in seen:
            assert hues.setdefault(block, hue) == hue, block
        ready = page.locator("#watch tbody tr").count()
        assert int(page.locator("#moment-at").get_attribute("max")) == ready - 1


def test_the_page_tells_about_the_hidden_word_only_where_there_is_one(app, browser):
    with visit(browser, app, "?" + urlencode({"q": "They speak [MASK] in Paris."})) as page:
        assert page.locator(".verdict").count() == 0
        open_drawer(page, "watch")
        page.wait_for_selector("#watch thead")
        assert "hidden" not in page.locator("#watch thead").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(scheme, app, browser):
    with visit(browser, app, color_scheme=scheme) as page:
        for name in ("watch", "why", "library", "question", "settings"):
            open_drawer(page, name)
        page.wait_for_selector("svg.ranks")
        assert page.evaluate(CONTRAST) == []
        for selector in (".sentence button", ".sentence .blank", ".chip", ".act"):
            page.locator(selector).first.hover()
            assert page.evaluate(CONTRAST) == [], f"under the pointer: {selector}"


def test_tables_break_no_word_on_a_phone(app, browser):
    with visit(browser, app, viewport={"width": 390, "height": 844}) as page:
        for name in ("watch", "why"):
            open_drawer(page, name)
            page.wait_for_selector(f"#{name} table")
            how = page.locator(f"#{name} :is(th, td)").evaluate_all(
                "c => [...new Set(c.map(e => getComputedStyle(e).overflowWrap))]"
            )
            assert how == ["normal"]
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


# ---------------------------------------------------------------- the figures


def test_the_terms_add_up_whatever_the_number_of_word_pieces(x):
    from realm_nb.show.explorer import fill

    r = fill(x, "The physicist [MASK] was born in Warsaw.", "Marie Curie")
    assert len(r["pieces"]) > 1
    assert sum(d["p_z"] * d["p_y_z"] for d in r["documents"]) == pytest.approx(r["p_y_x"], rel=1e-4)
    assert all(-1 <= d["r"] <= 1 for d in r["documents"])
    for d in r["documents"]:
        assert np.prod(d["pieces"]) == pytest.approx(d["p_y_z"], rel=1e-3)


def test_the_sentences_own_block_is_left_out_though_nobody_says_what_is_hidden(x):
    from realm_nb.show.explorer import Settings, fill, look_up

    block = next(b for b in range(len(x.store)) if len(x.store.text(b).split()) > 12)
    words = x.store.sentence_text(next(iter(x.store.sentence_ids(block)))).split()
    text = " ".join([*words[:4], "[MASK]", *words[5:]])
    given = Settings(k=20, exclude=False)
    assert block in [d["block"] for d in look_up(x, text, given)["documents"]]
    for found in (fill(x, text, "", Settings(k=20)), look_up(x, text, Settings(k=20))):
        assert block not in [d["block"] for d in found["documents"]]


def test_the_headline_is_no_piece_of_a_word_and_no_echo(x, app):
    seen = call(app, "/show", text="The capital of Angola is [MASK].")
    said = seen["headline"]["y"]
    usable = [a for a in seen["answers"] if a["usable"]]
    assert said == usable[0]["text"] and "##" not in said and said not in "the capital of angola is"
    assert seen["result"]["hidden"] == said


def test_no_point_of_the_map_is_moved_and_no_label_is_cut():
    from realm_nb.show.draw import map_svg

    points = [[0.0, 0.0]] * 300 + [[100.0, 1.0], [200.0, 1.0], [-300.0, -9.0]]
    titles = ["A title of some length"] * 300 + ["far", "farther", "the farthest of all titles"]
    page = map_svg({"points": points, "titles": titles, "blocks": list(range(303))}, [])
    places = [float(part.split('"')[0]) for part in page.split('cx="')[1:]]
    assert len({*places[300:]}) == 3 and min(places) > 0 and max(places) < 760
    labels = [float(part.split('"')[0]) for part in page.split('<text x="')[1:]]
    assert labels and all(80 <= x <= 680 for x in labels)


def test_an_earlier_moments_map_is_not_mirrored(x):
    from realm_nb.show.explorer import corpus_map

    newest, base = (np.array(corpus_map(x, moment)["points"]) for moment in ("", "base"))
    for turn in ([-1, 1], [1, -1], [-1, -1]):
        assert (newest * base).sum() > (newest * base * turn).sum()


def test_a_count_that_falls_back_has_no_running_mean():
    from realm_nb.show.draw import _curve

    saw = [float(i % 7) for i in range(70)]
    stale, loss = (_curve(key, list(range(70)), saw) for key in ("stale", "loss"))
    assert stale["mean"] == stale["points"] and loss["mean"] != loss["points"]


# ---------------------------------------------------------------- the API


@pytest.mark.parametrize(
    ("given", "needle"),
    [
        ({"k": "4"}, "k takes a number"),
        ({"k": 2.5}, "k takes a number"),
        ({"removed": ["a"]}, "there is no block 'a'"),
        ({"removed": list(range(100_000))}, "more than 1,000 blocks"),
        ({"removed": "abc"}, "removed takes a list"),
        ({"added": [{"title": "T"}]}, "text"),
        (
            {"added": [{"title": "T", "text": "One more text of some words."}] * 5000},
            "20 is the most",
        ),
    ],
    ids=lambda v: f"{v!r:.30}",
)
def test_the_api_says_in_one_line_what_is_wrong(given, needle, app):
    for name in ("/fill", "/show"):
        start = time.monotonic()
        with pytest.raises(Exception, match=needle) as e:
            call(app, name, text="Born in [MASK].", **given)
        assert "\n" not in str(e.value) and time.monotonic() - start < 30


def test_the_api_describes_its_parameters(app):
    from gradio_client import Client

    described = Client(app, verbose=False).view_api(return_format="dict")["named_endpoints"]
    names = [p["parameter_name"] for p in described["/fill"]["parameters"]]
    assert " ".join(names[:8]) == "text hidden k temperature null exclude marginal moment"
    status, _, body = ask(app, "gradio_api/info")
    assert (
        status == 200 and "1 to 20" in json.loads(body)["named_endpoints"]["/fill"]["description"]
    )


# ---------------------------------------------------------------- the door


def test_a_name_that_is_not_the_apps_is_refused(app):
    port = urlsplit(app).port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", ""):
        for path in ("", "config", "gradio_api/info"):
            status, _, body = ask(app, path, Host=host)
            assert status in (400, 421) and len(body) < 100, (host, path)
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
        assert ask(app, Host=host)[0] == 200, host


def test_another_page_may_not_use_the_app(app):
    body = json.dumps({"data": []}).encode()
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://["):
        for method, path in (
            ("POST", "gradio_api/call/moments"),
            ("POST", "gradio_api/upload"),
            ("GET", "config"),
        ):
            more = {"Origin": origin, "Content_Type": "application/json"}
            status, _, told = ask(app, path, method, body if method == "POST" else None, **more)
            assert status in (400, 403) and len(told) < 100, (origin, path)
    own = {"Origin": app.rstrip("/"), "Content_Type": "application/json"}
    assert ask(app, "gradio_api/call/moments", "POST", body, **own)[0] == 200


def test_the_page_may_load_and_send_nothing_elsewhere(app):
    _, headers, _ = ask(app)
    policy = headers["content-security-policy"]
    for part in ("default-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"):
        assert part in policy
    assert headers["x-content-type-options"] == "nosniff"


def test_a_password_keeps_others_out(run, smoke_environment, tmp_path):
    with serving(smoke_environment, tmp_path, "--run", run, "--password", "open sesame") as address:
        status, _, page = ask(address)
        assert "data-setup" not in page
        body = json.dumps({"data": []}).encode()
        post = {"Content_Type": "application/json"}
        assert ask(address, "gradio_api/call/moments", "POST", body, **post)[0] == 401
        post = {"Content_Type": "application/x-www-form-urlencoded"}
        for word, status in (("wrong", 400), ("open sesame", 200)):
            form = urlencode({"username": "me", "password": word}).encode()
            assert ask(address, "login", "POST", form, **post)[0] == status
    assert "warning" not in (tmp_path / "app.log").read_text()


def test_who_opens_the_app_to_others_is_warned(capsys, monkeypatch, run):
    from realm_nb.show import app as module

    def stop(*_):
        raise UserError("it would open now")

    monkeypatch.setattr(module, "Site", stop)
    for host, password, warned in (
        ("0.0.0.0", "", True),
        ("0.0.0.0", "secret", False),
        ("127.0.0.1", "", False),
    ):
        flags = ["--run", str(run), "--host", host, "--password", password]
        assert module.main(flags) == 2
        assert ("warning: whoever reaches" in capsys.readouterr().err) == warned


def test_only_facts_that_turn_the_answer_over_are_offered(monkeypatch):
    from realm_nb.show import app as module

    facts = json.loads(module._read_file("facts.json"))
    assert len(facts) == 12 and all(f["ask"].count("[MASK]") == 1 for f in facts)
    assert all(f["answer"] in f["text"] and f["answer"] not in f["ask"] for f in facts)
    follows = {f["ask"]: f["answer"].lower() for f in facts[:5]}

    def show(site, query, y=""):
        said = follows.get(query.text, "nothing") if query.added else "nothing"
        return {"headline": {"y": said}}

    monkeypatch.setattr(module, "show", show)
    site = SimpleNamespace(reads=True, facts=[], facts_done=False)
    with contextlib.suppress(UserError):
        module.Site.prove_facts(site)
    assert site.facts == facts[:5] and site.facts_done
