"""Each example is started as a reader starts it, does what its README says, and leaves nothing."""

from __future__ import annotations

import json
import re
import urllib.error

import pytest

from tests.support.browser import CHROMIUM, DRIVER
from tests.support.examples import EXAMPLES, FULL
from tests.support.pools import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("examples")]
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/Procfile"))
#: How it is run, in its README.
RUNS = re.compile(r"^```sh\n.*?^```\n", re.DOTALL | re.MULTILINE)


def hold(name: str, said: str) -> None:
    """Its README and its part of the guide show what it says, line after line, whatever the numbers are."""

    def lines(text: str) -> list[str]:
        return re.sub(r"\d+(\.\d+)?", "0", text).splitlines()

    guide = (ROOT / "docs" / "guide" / "examples.md").read_text().partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    for page in (guide, (EXAMPLES / name / "README.md").read_text()):
        block = re.findall(r"^```(?:text)?\n(.*?)^```$", RUNS.sub("", page), re.DOTALL | re.MULTILINE)[-1]
        told = iter(lines(said))
        shown = [line for line in lines(block) if not line.startswith("$ ")]
        assert shown
        assert [line for line in shown if line not in told] == [], said


def test_each_has_a_readme_that_says_the_command() -> None:
    for name in NAMES:
        readme = (EXAMPLES / name / "README.md").read_text()
        assert f"make -C examples {name}\n" in readme, name
        assert len(readme.splitlines()) <= 30, name


def test_quickstart_with_a_server_of_its_own(example) -> None:
    quickstart = example("quickstart", own_server=True)
    assert quickstart.end() == 0, quickstart.said
    for line in ("words: 6", "root: 4.0", "failed: builtins.ZeroDivisionError division by zero"):
        assert line in quickstart.said
    hold("quickstart", quickstart.said)


def test_the_shop_sends_a_receipt_with_the_order_or_none_at_all(example) -> None:
    shop = example("shop").ready()
    shop.post("/", customer="ada@example.com", total="25")
    declined = shop.post("/", customer="eve@example.com", total="99", declined="on")
    assert "The card was declined" in declined
    shop.wait_for(lambda: "To: ada@example.com" in shop.said, "the letter")
    shop.wait_for(lambda: "1 orders, 25.00 EUR" in shop.get("/"), "the sums")
    shop.wait_for(lambda: shop.sql("SELECT 1 FROM shop_order WHERE receipt_sent_at IS NOT NULL"), "the receipt")
    assert shop.sql("SELECT customer, state FROM shop_order") == [("ada@example.com", "paid")]
    assert "eve@example.com" not in shop.said
    assert shop.said.count("To: ada@example.com") == 1
    assert "cancel unpaid orders" in shop.get("/")
    assert "yesterday&#x27;s sales" in shop.get("/")
    assert shop.stop() == 0, shop.said


def test_webhooks_are_retried_and_dead_letters_can_be_sent_again(example) -> None:
    webhooks = example("webhooks").ready()
    webhooks.post("/")
    webhooks.wait_for(lambda: webhooks.sql("SELECT 1 FROM pgq_task HAVING count(*) = 4"), "all have settled")
    found = {row[0]: row[1:] for row in webhooks.sql("SELECT args->>0, success, attempt_count FROM pgq_task")}
    assert found == {"steady": (True, 1), "flaky": (True, 3), "down": (False, 4), "gone": (False, 1)}
    page = webhooks.get("/")
    assert "HTTP Error 500: Internal Server Error, after 4 attempts" in page
    assert "gone wants no more events, after 1 attempt\n" in page
    webhooks.post("/mend/")
    down = re.search(r"<td>down.*?action=\"(/retry/[^\"]+)\"", webhooks.get("/"), re.DOTALL)
    assert down
    webhooks.post(down[1])
    mended = "SELECT 1 FROM pgq_task WHERE args->>0 = 'down' AND success"
    webhooks.wait_for(lambda: webhooks.sql(mended), "the dead letter has arrived")
    assert webhooks.stop() == 0, webhooks.said


def test_a_report_says_how_far_it_is(example) -> None:
    reports = example("reports").ready()
    reports.post("/", rows="60")
    reports.post("/", rows="10000")
    reports.wait_for(lambda: re.search(r'value="\d+" max="60"', reports.get("/1/")), "its progress")
    reports.wait_for(lambda: "Download" in reports.get("/1/"), "the report")
    assert len(reports.get("/1/report.csv").splitlines()) == 61
    reports.wait_for(lambda: 'max="10000"' in reports.get("/2/"), "the long one runs")
    reports.post("/2/cancel/")
    reports.wait_for(lambda: "data-poll" not in reports.get("/2/"), "the end of the long one")
    with pytest.raises(urllib.error.HTTPError) as refused:
        reports.get("/2/report.csv")
    refused.value.close()
    assert reports.stop() == 0, reports.said


def test_a_view_awaits_results(example) -> None:
    asgi = example("asgi").ready()
    prices = asgi.json("/quotes/3/")
    assert prices.pop("Lost Parcels") == "no price: Lost Parcels does not answer"
    assert [re.fullmatch(r"\d+\.\d+ EUR", price) is not None for price in prices.values()] == [True, True]
    look = asgi.json("/later/3/")["look"]
    assert asgi.json(look)["success"] is True
    hold("asgi", json.dumps(asgi.json("/quotes/3/")))
    assert re.search(r"<td>Fast Feet<td>\d+\.\d+ EUR", asgi.get("/?weight=3"))
    assert "Ensure this value is less than or equal to 1000." in asgi.get("/?weight=1001")
    assert asgi.stop() == 0, asgi.said


def test_letters_do_not_wait_for_reports(example) -> None:
    queues = example("two-queues")
    assert queues.end() == 0, queues.said
    assert re.search(r"100 letters by pool mail after .* s\n4 reports by pool reports after .* s\n", queues.said)
    hold("two-queues", queues.said)


def test_the_ledger_stays_exact(example) -> None:
    transfers = 3000 if FULL else 150
    ledger = example("ledger", TRANSFERS=str(transfers))
    assert ledger.end() == 0, ledger.said
    assert f"{transfers} of {transfers} transfers made, 0 of them not exactly once" in ledger.said
    assert "The ledger is exact." in ledger.said
    killed = re.search(r"^(\d+) workers killed", ledger.said, re.MULTILINE)
    assert killed
    assert int(killed[1]) > 0
    hold("ledger", ledger.said)


def test_a_wrong_name_is_answered_with_the_names(example) -> None:
    wrong = example("shpo")
    assert wrong.end() == 2
    assert f"NAME is one of: {', '.join(NAMES)}" in wrong.said


@pytest.mark.skipif(not FULL, reason="PGQ_EXAMPLES is not full: make examples-test")
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)")
@pytest.mark.parametrize("name", ["shop", "webhooks", "reports", "asgi"])
def test_a_page_fits_a_phone_and_the_browser_has_no_complaints(example, chromium, name) -> None:
    page = example(name).ready()
    for width in (1280, 320):
        chromium.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False
        )
        chromium.open(page.address)
        if name == "asgi":
            chromium.fill("[name=weight]", "3")
        chromium.leave_by("main form button")
        assert not chromium.run("return document.documentElement.scrollWidth > innerWidth")
        labels = "return [...document.querySelectorAll('main form:first-of-type input:not([type=hidden])')]"
        assert chromium.run(f"{labels}.every(field => field.labels.length === 1)")
    if name == "reports":  # The script replaces the fragment until it is a link.
        chromium.fill("[name=rows]", "20")
        chromium.leave_by("main form button")
        page.wait_for(lambda: "Report 3: ready" in chromium.text, "the report")
    assert chromium.complaints() == []
