"""The report as a page: whole, escaped, self-contained; and in a browser it draws, sorts, filters and opens pictures without an error."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from probes import encoders, judge
from probes.auditing import columns
from probes.auditing.damage import overlay, where
from probes.auditing.page import charts
from probes.auditing.page.gallery import page
from probes.auditing.report import Report
from probes.auditing.summary import summarise

HOSTILE = "</script><img src=x onerror=fail()>\n\"'&{{ 7*7 }}.png"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """
<script>
const wait = () => new Promise((resolve) => setTimeout(resolve, 60));
const names = () => [...document.querySelectorAll(".card .name")].map((node) => node.textContent);
const set = (id, value) => { const node = document.getElementById(id); node[node.type === "checkbox" ? "checked" : "value"] = value;
  node.dispatchEvent(new Event("input", { bubbles: true })); };
(async () => {
  const found = {};
  await wait();
  found.drawn = names().length;
  found.images = [...document.querySelectorAll(".card img")].filter((image) => image.naturalWidth > 0).length > 0;
  const sort = [...document.getElementById("sort").options].find((option) => option.text === "year").value;
  set("sort", sort);
  found.high = names()[0];
  set("down", false);
  found.low = names()[0];
  set("outcome", "kept");
  found.kept = document.getElementById("count").textContent;
  document.querySelector(".controls [type=reset]").click();
  await wait();
  found.all = document.getElementById("count").textContent;
  document.querySelector(".confusion button").click();
  found.cell = document.getElementById("count").textContent;
  document.querySelector(".card").click();
  found.open = document.getElementById("detail").open;
  found.focus = document.activeElement.textContent;
  found.trust = document.getElementById("detail").textContent.includes("on unseen artists");
  document.getElementById("detail").dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  document.getElementById("detail").close();
  await wait();
  found.back = document.activeElement.className.startsWith("card ") && document.activeElement === document.querySelectorAll(".card")[1];
  const dots = [...document.querySelectorAll("circle[data-row]")];
  found.stops = dots.filter((dot) => dot.tabIndex === 0).length;
  dots[0].focus();
  dots[0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  found.moved = document.activeElement === dots[1] && dots[1].tabIndex === 0 && dots[0].tabIndex === -1;
  dots[1].dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
  found.entered = document.getElementById("detail").open;
  document.getElementById("detail").close();
  await wait();
  found.ends = document.querySelectorAll("#ends button").length;
  document.activeElement.blur();
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "/" }));
  found.typed = document.activeElement.id;
  document.activeElement.blur();
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "m" }));
  found.maps = getComputedStyle(document.querySelector(".card .map")).display;
  document.getElementById("theme").click();
  found.theme = document.documentElement.dataset.theme;
  found.errors = window.problems;
  const said = document.createElement("pre");
  said.id = "said";
  said.textContent = JSON.stringify(found);
  document.body.append(said);
})();
</script>
"""
WATCH = """<script>window.problems = []; onerror = (message) => { problems.push(String(message)); };
addEventListener("securitypolicyviolation", (event) => problems.push(event.blockedURI));
const shout = console.error; console.error = (...words) => { problems.push(words.join(" ")); shout(...words); };</script>"""


def thumbnail(k):
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(k).integers(0, 255, (12, 16, 3), np.uint8)).resize((144, 108)).save(held, "JPEG", quality=62)
    return held.getvalue()


def report(count):
    """`count` readings of a hostile name, the last of which could not be read."""
    rng = np.random.default_rng(0)
    rows = [{
        "image": f"pictures/{k:05d}.png", "variant": ("guided", "unguided")[k % 2], "prompt": "a jug", "reason": "kept baroque 0.91",
        "style_target": ("baroque", "rococo")[k % 2], "style_top": "baroque", "style_probability": rng.random(),
        "style_log_odds": rng.normal(), "verdict_style": ("baroque", "cubism")[k % 3 == 0], "verdict_log_odds": rng.normal(),
        "verdict_style_probability": rng.random(), "kept": bool(k % 5), "year": 1500 + (k * 37) % 400, "verdict_year": 1600.0,
        "period_low": 1600, "period_high": 1700, "artifacts": rng.random(),
    } for k in range(count - 1)]  # fmt: skip
    rows[0] |= {"image": f"pictures/{HOSTILE}", "prompt": HOSTILE, "reason": HOSTILE, "group": HOSTILE}
    rows.append({"image": "pictures/=last.png", "error": HOSTILE, "style_target": ""})
    frame = columns.of_rows(rows)
    summary = summarise(frame, encoders.load("embedded"), judge.load("verdict"), {"style": "0.27 on unseen artists"}, steered=False)
    summary |= {"noted": {HOSTILE: 1}, "sentences": [HOSTILE]}
    small, damaged = [thumbnail(k) for k in range(20)], overlay(np.eye(4))
    return Report.finished(frame, summary, lambda chosen: [(small[k % 20], damaged) for k in chosen])


class Whole(HTMLParser):
    """Fails on a tag that is left open; collects what would be fetched, and the tags there are."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.fetched = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.fetched += [value for name, value in attributes if name in ("src", "href") and not value.startswith("#")]
        if tag not in ("meta", "input", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def held(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def test_a_page_is_whole_and_fetches_nothing():
    found = Whole(page(report(5)))
    assert found.fetched == []
    assert "img" not in found.tags
    assert found.tags.count("script") == 2


def test_hostile_names_stay_text():
    text = page(report(5))
    assert "<img" not in text
    assert "49.png" not in text
    data = held(text)
    assert data["names"][0] == HOSTILE.replace("\n", "\N{REPLACEMENT CHARACTER}")
    assert data["words"]["prompt"][0] == HOSTILE
    assert data["outcome"][-1] == "error"


def test_a_report_without_readings_or_pictures_is_a_page():
    summary = report(2).summary | {"styles": {}, "confusion": {}, "judge": None, "sentences": [], "guide_and_verdict_kappa": None}
    for rows in ([], [{"image": "a.png", "error": "empty"}], [{"image": "a.png", "year": 1650.0, "style_top": "baroque"}]):
        Whole(page(Report.of(rows, summary)))


def test_a_large_report_shows_the_best_the_worst_and_others(monkeypatch):
    monkeypatch.setattr("probes.auditing.page.gallery.SHOWN", 2200)
    many = report(3000)
    data = held(page(many))
    assert len(data["names"]) == 2200
    odds = many.rows["verdict_log_odds"].dropna().sort_values().index
    names = set(data["names"])
    assert {f"{k:05d}.png" for k in [*odds[:900], *odds[-900:]] if k} <= names
    assert len(page(many)) / 2200 < 12_000


def test_histograms_count_what_they_are_given():
    chart = charts.histogram("P", {"guide": [0.0, 0.1, 0.99, 1.0, float("nan")]}, span=(0.0, 1.0), bins=2)
    assert [bar.said for bar in chart.bars] == ["2 between 0 and 0.5", "2 between 0.5 and 1"]
    assert charts.histogram("P", {"guide": [float("nan")]}) is None
    assert charts.round_span(1603, 1987) == (1600, 2000)
    assert charts.round_span(1703, 1905) == (1650, 1950)  # no axis of years that is half empty
    low, high = charts.round_span(0.5, 0.5)
    assert low < 0.5 < high


def test_scatters_put_agreement_on_the_line():
    points = [(1600.0, 1600.0, 0, "kept", "a"), (1800.0, 1700.0, 1, "lost", "b"), (float("nan"), 1.0, 2, "read", "c")]
    chart = charts.scatter("Years", points)
    (x0, y0, x1, y1), (first, second) = chart.line, chart.dots
    assert first.y - y0 == pytest.approx((first.x - x0) * (y1 - y0) / (x1 - x0))
    assert second.y > y0 + (second.x - x0) * (y1 - y0) / (x1 - x0)  # below the line: an SVG counts downwards


def test_damage_is_placed_and_drawn():
    severity = np.zeros((9, 12))
    severity[:3, :3] = 0.5
    assert where(severity) == "upper left"
    assert where(np.ones((9, 9))) == where(np.zeros((9, 9))) == "everywhere"
    assert where(0.6 + severity) == "everywhere"
    assert where(0.1 + severity) == "upper left"  # a soft photograph with a defect
    severity[:] = 0
    severity[4, 6] = 1
    assert where(severity) == "centre"
    drawn = np.asarray(Image.open(io.BytesIO(overlay(severity))))
    assert drawn.shape == (9, 12, 4)
    assert drawn[..., 3].sum() == 255 == drawn[4, 6, 3]
    assert base64.b64encode(overlay(severity))


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; install chromium to test the page in a browser")
@pytest.mark.parametrize("count", [5, 5000])
def test_in_a_browser(count, tmp_path):
    text = page(report(count))
    file = tmp_path / "audit.html"
    file.write_text(text.replace("<body>", f"<body>{WATCH}", 1).replace("</body>", f"{PROBE}</body>", 1), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,1800"]
    command = [BROWSER, *options, "--virtual-time-budget=20000", "--dump-dom", f"file://{file}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    said = re.search(r'<pre id="said">(.*?)</pre>', done.stdout, re.S)
    assert said, done.stderr[-2000:]
    found = json.loads(html.unescape(said[1]))
    years = {f"{k:05d}.png": 1500 + (k * 37) % 400 for k in range(1, count - 1)}
    assert found["errors"] == []
    assert 0 < found["drawn"] <= 5000
    assert found["images"]
    assert years[found["high"]] == max(years.values())
    assert years.get(found["low"], 1500) == 1500
    assert found["kept"].startswith(f"{sum(bool(k % 5) for k in range(count - 1))} of {count}")
    assert found["all"] == f"{count} of {count}"
    assert "meant as" in found["cell"]
    assert (found["open"], found["focus"], found["maps"]) == (True, "Close", "block")
    assert found["trust"]
    assert (found["back"], found["stops"], found["moved"], found["entered"]) == (True, 1, True, True)
    assert found["theme"] == "dark"
    assert found["ends"] == (12 if count > 12 else 0)
    assert found["typed"] == "find"
