"""The voting page: blind pairs, votes that last, requests that nobody's browser would send; how people and judges agree."""

import http.client
import io
import json
import socket
import threading

import numpy as np
import pytest
from made_up_comparison import rows
from PIL import Image

from guide import png
from guide.comparing import voting
from guide.comparing.ballots import FILE, Box, agreement, pairs
from probes.errors import UserError

VOTER = "a-person-1"


@pytest.fixture
def run(tmp_path):
    """A run of 8 pairs, one of whose arms the verdict likes better in every pair."""
    frame = rows({"clean-image 10": ("clean-image", 10.0, 2.0, 5.0)}, prompts=4, seeds=2, noise=0.0)
    for k, name in enumerate(frame["image"]):
        pixels = np.full((16, 16, 3), 10 * k, np.uint8)
        png.save(Image.fromarray(pixels), tmp_path / name, {"strategy": "secret-arm"})
    frame.to_parquet(tmp_path / "results.parquet")
    return tmp_path


@pytest.fixture
def server(run):
    found = voting.server(run)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def ask(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer, data


def vote(server, told, **headers):
    given = {"Content_Type": "application/json", "X_Token": server.RequestHandlerClass.booth.token} | headers
    body = told if isinstance(told, bytes) else json.dumps(told).encode()
    answer, data = ask(server, "POST", "/vote", body, **{name: value for name, value in given.items() if value is not None})
    return answer.status, json.loads(data)


def test_a_person_votes_through_to_the_end(server, run):
    seen = []
    for _ in range(8):
        pair = json.loads(ask(server, "GET", f"/pair?voter={VOTER}")[1])
        assert (pair["style"], pair["total"], pair["done"]) == ("baroque", 8, len(seen))
        seen.append(pair["pair"])
        assert vote(server, {"voter": VOTER, "pair": pair["pair"], "choice": "left"})[0] == 200
    assert len(set(seen)) == 8
    assert "pair" not in json.loads(ask(server, "GET", f"/pair?voter={VOTER}")[1])
    assert "pair" in json.loads(ask(server, "GET", "/pair?voter=another-person")[1])
    assert len((run / FILE).read_text().splitlines()) == 8


def test_nothing_tells_which_picture_is_which(server):
    pair = json.loads(ask(server, "GET", f"/pair?voter={VOTER}")[1])["pair"]
    for side in ("left", "right"):
        answer, data = ask(server, "GET", f"/picture/{pair}/{side}")
        assert answer.getheader("Content-Type") == "image/png"
        assert b"secret-arm" not in data
        assert Image.open(io.BytesIO(data)).info == {}
    page = ask(server, "GET", "/")[1]
    assert b"clean-image" not in page
    some = pairs(rows(prompts=30))
    assert 0.3 < np.mean([pair.left["strategy"] == "unguided" for pair in some]) < 0.7
    assert pairs(rows(prompts=30))[0].key == some[0].key


def test_a_vote_counts_once_and_may_be_changed(server, run):
    pair = json.loads(ask(server, "GET", f"/pair?voter={VOTER}")[1])["pair"]
    for choice in ("left", "left", "left", "right"):
        assert vote(server, {"voter": VOTER, "pair": pair, "choice": choice})[0] == 200
    assert [json.loads(line)["choice"] for line in (run / FILE).read_text().splitlines()] == ["left", "right"]
    assert Box(run / FILE).votes == {(VOTER, pair): "right"}


def test_many_at_once_lose_no_vote(server, run):
    keys = [pair.key for pair in server.RequestHandlerClass.booth.pairs]
    threads = [threading.Thread(target=vote, args=(server, {"voter": f"person-{n:04d}", "pair": key, "choice": "equal"}))
               for n in range(6) for key in keys]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Box(run / FILE).votes) == 48


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (b"{", 400), (b"[]", 400), (b"null", 400), (b"\xff\xfe", 400), (b"[" * 2000, 400), (b"x" * 5000, 413), (b"", 400),
        ({"voter": VOTER}, 400), ({"voter": VOTER, "pair": "nope", "choice": "left"}, 404),
        ({"voter": 7, "pair": "a", "choice": "left"}, 400),
        ({"voter": "../../etc/passwd", "pair": "a", "choice": "left"}, 400),
        ({"voter": VOTER, "pair": "KEY", "choice": "both"}, 400), ({"voter": VOTER, "pair": "KEY", "choice": "left", "more": "x"}, 400),
    ],
)  # fmt: skip
def test_malformed_votes_are_refused_and_leave_no_trace(server, run, told, status):
    if isinstance(told, dict) and told.get("pair") == "KEY":
        told["pair"] = server.RequestHandlerClass.booth.pairs[0].key
    found, answer = vote(server, told)
    assert found == status
    assert answer["error"]
    assert not (run / FILE).exists()
    assert ask(server, "GET", "/")[0].status == 200


@pytest.mark.parametrize(
    "headers",
    [{"X_Token": None}, {"X_Token": "guess"}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"},
     {"Content_Type": "text/plain"}],
)  # fmt: skip
def test_votes_from_elsewhere_are_refused(server, run, headers):
    pair = server.RequestHandlerClass.booth.pairs[0].key
    status, _ = vote(server, {"voter": VOTER, "pair": pair, "choice": "left"}, **headers)
    assert status in (403, 415)
    assert not (run / FILE).exists()


@pytest.mark.parametrize("path", ["/picture/../../results.parquet/left", "/picture/" + "0" * 24 + "/left", "/results.parquet",
                                  "/%2e%2e/x", "/pair?voter=", "/pair?voter=%00%00%00%00%00%00%00%00", "/pair"])  # fmt: skip
def test_other_paths_are_refused(server, path):
    assert ask(server, "GET", path)[0].status in (400, 404)


def test_other_names_and_methods_are_refused(server):
    assert ask(server, "GET", "/", Host="evil.example")[0].status == 403
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "NONSENSE"):
        answer, data = ask(server, method, "/vote", b"{}")
        assert (answer.status, answer.getheader("Content-Type"), answer.getheader("Allow")) == (405, "application/json", "GET, HEAD, POST")
        assert json.loads(data) == {"error": "This page takes GET and POST alone."}
    answer, data = ask(server, "HEAD", "/")
    assert (answer.status, data) == (200, b"")
    assert int(answer.getheader("Content-Length")) > 1000
    assert ask(server, "GET", "/", Host=f"localhost:{server.server_address[1]}")[0].status == 200


@pytest.mark.parametrize("raw", [b"\x16\x03\x01garbage\r\n\r\n", b"GET\r\n\r\n",
                                 b"POST /vote HTTP/1.1\r\nHost: {}\r\nContent-Length: -5\r\n\r\n",
                                 b"POST /vote HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])  # fmt: skip
def test_raw_nonsense_does_not_end_the_vote(server, raw):
    port = server.server_address[1]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
        wire.sendall(raw.replace(b"{}", f"127.0.0.1:{port}".encode()))
        wire.shutdown(socket.SHUT_WR)
        answer = wire.recv(4096)
    assert any(code in answer for code in (b"400", b"411"))
    assert b"<html" not in answer.lower()
    assert ask(server, "GET", "/")[0].status == 200


def test_the_server_is_on_the_loopback_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    answer, _ = ask(server, "GET", "/")
    policy = answer.getheader("Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.getheader("Access-Control-Allow-Origin") is None


def test_votes_outlast_a_cut_line(run):
    box = Box(run / FILE)
    box.put(VOTER, "a", "left")
    with (run / FILE).open("ab") as file:
        file.write(b'{"voter": "cut')
    again = Box(run / FILE)
    again.put(VOTER, "b", "right")
    assert Box(run / FILE).votes == {(VOTER, "a"): "left", (VOTER, "b"): "right"}


def test_agreement_of_people_with_judges(run):
    assert agreement(run) is None
    box = Box(run / FILE)
    some = pairs(voting.load_rows(run))
    for pair in some:
        guided = "left" if pair.left["strategy"] != "unguided" else "right"
        box.put(VOTER, pair.key, guided)
        box.put("person-two", pair.key, guided if pair is not some[0] else "equal")
    box.put(VOTER, "of another run", "left")
    found = agreement(run)
    assert (found["votes"], found["voters"], found["ties"]) == (16, 2, 1)
    assert found["judges"]["verdict"].mean == 1  # it prefers the guided one in every pair, and so do they
    assert found["arms"]["clean-image 10"].mean == 1
    assert found["people"] == pytest.approx(7 / 8)
    assert any("verdict prefers what people prefer in 100%" in sentence for sentence in found["sentences"])


def test_many_votes_on_few_pairs_of_one_prompt_are_not_many_pairs(run):
    rows({"clean-image 10": ("clean-image", 10.0, 2.0, 0.0)}, prompts=1, seeds=6).to_parquet(run / "results.parquet")
    box = Box(run / FILE)
    for k, pair in enumerate(pairs(voting.load_rows(run))):
        for person in range(20):
            box.put(f"person-{person:04d}", pair.key, "left" if k % 2 else "right")
    found = agreement(run)["judges"]["verdict"]
    assert (found.pairs, found.clusters) == (120, 6)


def test_runs_without_pairs_are_refused(tmp_path, run):
    with pytest.raises(UserError, match="no results"):
        voting.Booth.of(tmp_path / "nowhere")
    next(run.rglob("*.png")).unlink()
    with pytest.raises(UserError, match="missing"):
        voting.Booth.of(run)
