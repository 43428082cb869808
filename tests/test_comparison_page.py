"""The page of a comparison in a browser: its drawings and pictures are there, nothing fails, light and dark."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from made_up_comparison import rows
from PIL import Image

from guide import png
from guide.comparing.asked import Asked
from guide.comparing.report import page
from guide.comparing.results import Results

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "</script><img src=x onerror=fail()>\"'&{{ 7*7 }}"
PROBE = """
<script>
addEventListener("load", () => {
  document.querySelectorAll("details").forEach((node) => { node.open = true; });
  document.getElementById("theme").click();
  setTimeout(() => {
    const said = document.createElement("pre");
    said.id = "said";
    const plot = document.querySelector(".drawing svg");
    said.textContent = JSON.stringify({
      errors: window.problems, drawings: document.querySelectorAll(".drawing svg").length, height: plot.getBoundingClientRect().height,
      shots: [...document.querySelectorAll(".shots img")].filter((image) => image.naturalWidth > 0).length,
      theme: document.documentElement.dataset.theme, ink: getComputedStyle(plot.querySelector("text")).fill,
      wide: document.documentElement.scrollWidth - innerWidth,
    });
    document.body.append(said);
  }, 300);
});
</script>
"""
WATCH = '<script>window.problems = []; addEventListener("error", (event) => problems.push(event.message ?? "error"), true);</script>'


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    frame = rows(styles=("baroque", "ukiyo-e"), prompts=4, seeds=4, named=(True, False)).sort_index()
    frame["prompt"] = frame["prompt"] + HOSTILE
    frame["image"] = [f"{row.style}_{row.named}/{row.seed}-{row.arm}-{k}.png" for k, row in enumerate(frame.itertuples())]
    for k, name in enumerate(frame["image"]):
        png.save(Image.fromarray(np.full((32, 32, 3), k % 255, np.uint8)), folder / name, {})
    asked = Asked(folder, ("baroque", "ukiyo-e"), ("clean-image",), (0, 1, 2, 3), choice_seeds=(), command=f"guide compare {HOSTILE}")
    return Results.of(frame, asked, {}, {"baroque": 0.5, "ukiyo-e": 0.8}, (), {}, {})


def test_the_page_escapes_everything(results):
    text = page(results)
    assert HOSTILE not in text
    assert "onerror=fail()>" not in text.replace("onerror=fail()&gt;", "")
    assert text.count("<script") == 1


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; install chromium to test the page in a browser")
@pytest.mark.parametrize("width", [1280, 420])
def test_in_a_browser(results, tmp_path, width):
    file = tmp_path / "report.html"
    file.write_text(page(results).replace("<body>", f"<body>{WATCH}", 1).replace("</body>", f"{PROBE}</body>", 1), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1800"]
    command = [BROWSER, *options, "--virtual-time-budget=20000", "--dump-dom", f"file://{file}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    said = re.search(r'<pre id="said">(.*?)</pre>', done.stdout, re.S)
    assert said, done.stderr[-2000:]
    found = json.loads(html.unescape(said[1]))
    assert found["errors"] == []
    assert found["drawings"] == 4
    assert found["height"] > 100
    assert found["shots"] >= 32
    assert found["theme"] == "dark"
    assert found["ink"] != "rgb(34, 34, 34)"
    assert found["wide"] <= 0
