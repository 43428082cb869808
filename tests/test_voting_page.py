"""The voting page in a browser: a person's keys become votes."""

import json
import re
import shutil
import subprocess
import threading

import numpy as np
import pytest
from made_up_comparison import rows
from PIL import Image

from guide import png
from guide.comparing import voting
from guide.comparing.ballots import FILE

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
KEYS = """
const pause = () => new Promise((resolve) => setTimeout(resolve, 400));
(async () => {
  await pause();
  for (const key of ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "ArrowLeft"]) {
    dispatchEvent(new KeyboardEvent("keydown", { key }));
    await pause();
  }
  document.title = "done";
})();
"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; install chromium to test the page in a browser")
def test_keys_become_votes_and_one_goes_back(tmp_path, monkeypatch):
    frame = rows(prompts=2, seeds=2)
    for name in frame["image"]:
        png.save(Image.fromarray(np.zeros((16, 16, 3), np.uint8)), tmp_path / name, {})
    frame.to_parquet(tmp_path / "results.parquet")
    page = voting.Handler._page
    monkeypatch.setattr(voting.Handler, "_page", lambda self: page(self).replace(b"</script>", KEYS.encode() + b"</script>"))
    server = voting.server(tmp_path)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    command = [BROWSER, *options, "--virtual-time-budget=8000", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    server.shutdown()
    server.server_close()
    votes = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert [vote["choice"] for vote in votes] == ["left", "right", "equal", "left"]
    assert votes[1]["pair"] == votes[2]["pair"]  # one step back, another choice
    assert len({vote["pair"] for vote in votes}) == 3
    assert re.search("Which one is more baroque", done.stdout)
