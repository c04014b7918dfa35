"""The page in a real Chromium: load, ask, stream, stop, compare, step, hover, keys, errors, the run page, no outside request."""

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
FLAGS += ("--disable-component-update", "--disable-sync")
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
PATIENCE = 180_000  # milliseconds: programs are compiled meanwhile


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def page(request, browser, address):
    """The page with a problem on it. At the end nothing was asked of another server, and nothing was wrong in its scripts."""
    width, height = request.param
    scheme = "dark" if width < 500 else "light"
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page, outside, wrong = context.new_page(), [], []
    page.on("request", lambda r: None if r.url.startswith(address) else outside.append(r.url))
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page.goto(address)
    expect(page.locator("#prompt")).to_have_value(re.compile(r"pays .* for two of"))
    yield page
    assert not outside and not wrong
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off at the side"
    context.close()


def ask(page, **fields):
    for name, value in fields.items():
        page.fill(f"#{name}", str(value))
    page.click("#ask")


def test_attempts_stream_in_and_end_green_or_red(page):
    ask(page, attempts=8, seed=1, max_tokens=30)
    expect(page.locator("article")).to_have_count(8)
    expect(page.locator("article.right, article.wrong")).to_have_count(8)
    assert page.locator("article.right").count() and page.locator("article.wrong").count()
    expect(page.locator(".tile b").first).to_have_text(re.compile(r"\d of 8"))
    expect(page.locator(".push").first).to_contain_text("advantage")
    expect(page.locator("article .why").first).to_have_text(re.compile("answers|cut off|no final answer"))


def test_a_token_tells_its_id_its_probability_and_alternatives(page):
    ask(page, attempts=1, seed=1, max_tokens=20)
    expect(page.locator("article.right, article.wrong")).to_have_count(1)
    page.locator("article .t").nth(1).hover()
    expect(page.locator("#tip")).to_be_visible()
    expect(page.locator("#tip")).to_contain_text(re.compile(r"id \d+, probability"))
    expect(page.locator("#tip tr")).to_have_count(5)
    box = page.locator("article .tokens").first
    box.focus()
    box.press("ArrowRight")
    box.press("ArrowRight")
    expect(page.locator("article .t.here")).to_have_count(1)


def test_the_ids_are_one_sequence_of_numbers(page):
    ask(page, attempts=1, seed=1, max_tokens=20)
    expect(page.locator("article.right, article.wrong")).to_have_count(1)
    page.click("[data-view=ids]")
    assert all(text.isdigit() for text in page.locator("article .t").all_text_contents())
    page.locator("h2").first.click()
    page.keyboard.press("1")
    expect(page.locator("[data-view=text]")).to_have_attribute("aria-checked", "true")


def test_stop_ends_the_attempts_and_frees_the_device(page):
    ask(page, attempts=64, max_tokens=170)
    expect(page.locator("article .t").first).to_be_visible()
    page.click("#halt")
    expect(page.locator("#ask")).to_be_enabled()
    expect(page.locator("#device")).to_have_text("ready")
    expect(page.locator("#error")).to_be_hidden()


def test_two_policies_answer_side_by_side_with_the_same_noise(page):
    page.select_option("[aria-label='beside it: run or model']", "toy")
    page.locator("[aria-label='beside it: checkpoint']").fill("0")
    expect(page.locator(".policy output").nth(0)).to_have_text("rl@9")
    expect(page.locator(".policy output").nth(1)).to_have_text("rl@7")
    ask(page, attempts=4, seed=5, max_tokens=20)
    expect(page.locator(".column")).to_have_count(2)
    expect(page.locator("article.right, article.wrong")).to_have_count(8)
    expect(page.locator(".column > h2").nth(1)).to_have_text("toy/rl@7")


def test_a_step_says_what_it_did_and_a_second_one_goes_on(page):
    ask(page, attempts=8, seed=1, max_tokens=20)
    page.wait_for_selector(".step:visible")
    page.click(".step")
    expect(page.locator(".said")).to_have_text(re.compile(r"Step 1: Right attempts became [\d.,]+ times likelier"))
    expect(page.locator(".change").first).to_contain_text("log-probability")
    page.click(".step")
    expect(page.locator(".said")).to_have_text(re.compile("Step 2: "))
    expect(page.locator(".policy output").first).to_have_text(re.compile(r"rl@9~"))
    page.click("text=Ask again")
    expect(page.locator(".column > h2").first).to_have_text(re.compile(r"toy/rl@9~"))
    expect(page.locator("article.right, article.wrong")).to_have_count(8)
    page.click("text=Reset")
    expect(page.locator(".policy output").first).to_have_text("rl@9")


def test_what_is_wrong_is_said_in_one_line_and_never_becomes_html(page):
    page.fill("#prompt", "<img src=x onerror=alert(1)> <b>bold</b>")
    page.click("#ask")
    expect(page.locator("#error")).to_contain_text("is not in this task's vocabulary")
    assert page.locator("img, main b b").count() == 0
    page.click("#next")
    expect(page.locator("#error")).to_be_hidden()


def test_keys_ask_change_the_problem_and_stop(page):
    before = page.input_value("#prompt")
    page.locator("h1").click()
    page.keyboard.press("n")
    expect(page.locator("#prompt")).not_to_have_value(before)
    page.fill("#max_tokens", "150")
    page.keyboard.press("Control+Enter")
    expect(page.locator("article .t").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#ask")).to_be_enabled()


def test_the_run_page_draws_the_curves_of_the_run(page):
    page.click("#tab-run")
    expect(page.locator("figure")).not_to_have_count(0)
    expect(page.locator("#run-progress")).to_contain_text("rl 9 of 4")
    expect(page.locator("figure figcaption").first).to_have_text("Accuracy on held-out problems")


@pytest.mark.skipif(not os.environ.get("SCREENSHOTS"), reason="SCREENSHOTS=FOLDER writes pictures of the page")
def test_pictures(page):
    folder, name = Path(os.environ["SCREENSHOTS"]), "phone" if page.viewport_size["width"] < 500 else "desktop"
    ask(page, attempts=8, seed=1, max_tokens=40)
    page.wait_for_selector(".step:visible")
    page.screenshot(path=folder / f"playground_{name}.png")
