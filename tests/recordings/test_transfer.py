"""Transfers from a real HTTP server that fails in every way it can: whole and right, or nothing."""

import itertools
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sensorium_models import progress
from sensorium_models.recordings.patience import DownloadError, Patience
from sensorium_models.recordings.transfer import _seconds, fetch, partial_of
from tests.gin_server import (
    GinServer,
    Handler,
    busy,
    corrupt,
    drop_after,
    gin_server,
    key_of,
    other,
    stall_after,
    unlengthed,
)

CONTENT = random.Random(1).randbytes(1_000_003)
KEY = key_of(CONTENT)
PATH = "/lab/data/raw/commit/a.zip"


class Waits(list):
    """What a download would have waited for, in seconds."""

    @property
    def patience(self) -> Patience:
        return Patience(tries=4, timeout_s=20, first_wait_s=1, sleep=self.append)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def gin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GinServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with gin_server(tmp_path / "repositories") as server:
        server.files[PATH] = CONTENT
        yield server


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archives" / "a.zip"


def whole(archive: Path) -> bool:
    """The file is right and nothing else is left beside it."""
    return archive.read_bytes() == CONTENT and list(archive.parent.iterdir()) == [archive]


def starts(gin: GinServer) -> list[int]:
    """Where each request asked to begin."""
    return [int(span.removeprefix("bytes=")[:-1]) if span else 0 for _, span in gin.requests]


def test_a_file_comes_over(gin: GinServer, archive: Path, waits: Waits) -> None:
    assert fetch([gin.address + PATH], archive, KEY, patience=waits.patience) == gin.address + PATH
    assert whole(archive)
    assert waits == []
    assert starts(gin) == [0]


def test_dropped_again_and_again_it_goes_on_where_it_was(
    gin: GinServer, archive: Path, waits: Waits
) -> None:
    drops = [100_000, 1, 300_000, 7, 50_000, 200_000, 100]
    gin.faults.extend(drop_after(count) for count in drops)
    fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert whole(archive)
    # Not one byte was asked for twice, and progress is rewarded with the shortest wait.
    assert starts(gin) == [0, *itertools.accumulate(drops)]
    assert waits == [1] * len(drops)


def test_a_server_without_ranges_begins_anew_and_loses_nothing(
    gin: GinServer, archive: Path, waits: Waits
) -> None:
    gin.ranges = False
    gin.faults.extend([drop_after(600_000), drop_after(200_000)])
    fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert whole(archive)
    # The second, shorter try did not throw away what the first one had brought.
    assert starts(gin) == [0, 600_000, 600_000]
    assert waits == [1, 1]


def test_a_stalled_stream_is_cut_and_continued(gin: GinServer, archive: Path) -> None:
    gin.faults.append(stall_after(400_000))
    patience = Patience(tries=2, timeout_s=1.5, sleep=lambda seconds: None)
    fetch([gin.address + PATH], archive, KEY, patience=patience)
    assert whole(archive)
    assert starts(gin) == [0, 400_000]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_later(
    gin: GinServer, archive: Path, waits: Waits, status: int
) -> None:
    gin.faults.extend([busy(status), busy(status)])
    fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert whole(archive)
    assert waits == [1, 2]


@pytest.mark.parametrize("status", [429, 503])
def test_the_server_says_how_long_to_wait(
    gin: GinServer, archive: Path, waits: Waits, status: int
) -> None:
    gin.faults.extend([busy(status, "17"), busy(status, "0"), busy(status, "1000000")])
    fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert waits == [17, 2, 3600]  # no less than the own wait, no more than an hour


@pytest.mark.parametrize(
    "nonsense", ["Wed, 21 Oct 99999999999 07:28:00 GMT", "\u00b2", "9" * 5000, "-5", "soon"]
)
def test_headers_that_make_no_sense_are_taken_as_absent(
    gin: GinServer, archive: Path, waits: Waits, nonsense: str
) -> None:
    def lengthy(handler: Handler, content: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", nonsense)
        handler.end_headers()
        handler.wfile.write(content)
        handler.close_connection = True

    def ranged(handler: Handler, content: bytes) -> None:
        handler.answer(206, b"part", Content_Range=f"bytes {nonsense}-9/{nonsense}")

    gin.faults.extend([busy(503, nonsense), lengthy])
    fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert whole(archive)
    assert waits == [1]  # as without the header
    archive.unlink()
    gin.faults.extend([drop_after(10), ranged])
    with pytest.raises(DownloadError, match="another part of the file"):
        fetch([gin.address + PATH], archive, KEY, patience=waits.patience)


def test_retry_after_may_be_a_date_or_nonsense() -> None:
    now = datetime.now(UTC)
    assert 3000 < _seconds(format_datetime(now + timedelta(hours=1), usegmt=True)) <= 3600
    assert _seconds(format_datetime(now - timedelta(hours=1), usegmt=True)) == 0
    assert _seconds("soon") == _seconds("") == _seconds("-3") == 0


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(gin: GinServer, archive: Path, waits: Waits, status: int) -> None:
    gin.faults.append(busy(status))
    with pytest.raises(DownloadError, match=rf"{PATH} answers {status}"):
        fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert not archive.exists()
    assert waits == []
    assert len(gin.requests) == 1


def test_mirrors_are_tried_in_order_and_continue_each_other(
    gin: GinServer, archive: Path, waits: Waits
) -> None:
    gin.files |= {"/one/a.zip": CONTENT, "/two/a.zip": CONTENT, "/three/a.zip": CONTENT}
    addresses = [f"{gin.address}/{place}/a.zip" for place in ("none", "one", "two", "three")]
    # The second goes away for good in the middle of the file.
    gin.faults.extend([busy(404), drop_after(300_000), *[busy(503)] * 4])
    assert fetch(addresses, archive, KEY, patience=waits.patience) == addresses[2]
    assert whole(archive)
    assert [path for path, _ in gin.requests] == ["/none/a.zip", *["/one/a.zip"] * 5, "/two/a.zip"]
    assert starts(gin)[-1] == 300_000


def test_an_address_that_brings_nothing_is_given_up(
    gin: GinServer, archive: Path, waits: Waits
) -> None:
    gin.faults.extend([drop_after(0)] * 9)
    with pytest.raises(DownloadError, match="brought nothing new 4 times in a row"):
        fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert waits == [1, 2, 4]
    assert not archive.exists()


def test_nobody_there(archive: Path, waits: Waits) -> None:
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9/a\.zip brought nothing new.*refused"):
        fetch(["http://127.0.0.1:9/a.zip"], archive, KEY, patience=waits.patience)
    assert not archive.exists()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_server_that_nobody_vouches_for_is_refused_at_once(
    tmp_path: Path, archive: Path, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(made, check=True, capture_output=True)
    with gin_server(tmp_path / "repositories", certificate=(certificate, key)) as server:
        server.files[PATH] = CONTENT
        with pytest.raises(DownloadError, match="cannot be trusted"):
            fetch([server.address + PATH], archive, KEY, patience=waits.patience)
        assert waits == []
        assert server.requests == []
        # The usual setting of the HTTP client says whom to trust.
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        fetch([server.address + PATH], archive, KEY, patience=waits.patience)
    assert whole(archive)


@pytest.mark.parametrize("length", [len(CONTENT) - 1, len(CONTENT) + 1, 120])
def test_a_file_of_another_length_is_not_even_begun(
    gin: GinServer, archive: Path, waits: Waits, length: int
) -> None:
    gin.faults.append(other(bytes(length)))
    with pytest.raises(
        DownloadError, match=rf"offers {length} bytes where the key says {KEY.size}"
    ):
        fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert not archive.exists()
    assert partial_of(archive, KEY).stat().st_size == 0


@pytest.mark.parametrize(
    ("body", "message"),
    [(CONTENT + b"more", "sends more than"), (CONTENT[:1000], "brought nothing new")],
    ids=["long", "short"],
)
def test_a_wrong_length_that_no_header_tells(
    gin: GinServer, archive: Path, waits: Waits, body: bytes, message: str
) -> None:
    gin.faults.extend([unlengthed(body)] * 4)
    with pytest.raises(DownloadError, match=message):
        fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert not archive.exists()
    # Nothing of it stays to spoil the file of another address.
    assert partial_of(archive, KEY).stat().st_size == 0


def test_the_right_body_without_a_length_is_taken(
    gin: GinServer, archive: Path, waits: Waits
) -> None:
    gin.faults.append(unlengthed(CONTENT))
    fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert whole(archive)


def test_a_login_page_is_no_archive(gin: GinServer, archive: Path, waits: Waits) -> None:
    page = other(b"<html>" + bytes(KEY.size - 6), Content_Type="text/html; charset=utf-8")
    gin.faults.append(page)
    with pytest.raises(DownloadError, match="web page"):
        fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert not archive.exists()


def test_corrupt_bytes_are_fetched_anew(gin: GinServer, archive: Path, waits: Waits) -> None:
    gin.faults.append(corrupt)
    fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert whole(archive)
    assert starts(gin) == [0, 0]


def test_a_corrupt_source_is_left_for_a_mirror(gin: GinServer, archive: Path, waits: Waits) -> None:
    gin.files["/mirror/a.zip"] = CONTENT
    gin.faults.extend([drop_after(500_000), corrupt, corrupt])
    addresses = [gin.address + PATH, f"{gin.address}/mirror/a.zip"]
    assert fetch(addresses, archive, KEY, patience=waits.patience) == addresses[1]
    assert whole(archive)
    assert starts(gin) == [0, 500_000, 0, 0]


def test_never_verified_never_under_its_name(gin: GinServer, archive: Path, waits: Waits) -> None:
    gin.faults.extend([corrupt] * 9)
    with pytest.raises(DownloadError, match="another checksum 2 times"):
        fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert not archive.exists()


def test_redirects_are_followed_with_the_range(gin: GinServer, archive: Path, waits: Waits) -> None:
    gin.files["/elsewhere"] = CONTENT

    def moved(handler: Handler, content: bytes) -> None:
        handler.answer(302, Location="/elsewhere")

    gin.faults.extend([moved, drop_after(123_456), moved])
    fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert whole(archive)
    assert gin.requests[-1] == ("/elsewhere", "bytes=123456-")


def test_a_circle_of_redirects_is_a_refusal(gin: GinServer, archive: Path, waits: Waits) -> None:
    def moved(handler: Handler, content: bytes) -> None:
        handler.answer(302, Location=PATH)

    gin.faults.extend([moved] * 40)
    with pytest.raises(DownloadError, match="cannot be asked"):
        fetch([gin.address + PATH], archive, KEY, patience=waits.patience)


@pytest.mark.parametrize(
    "location", ["http://[::1", "http://x:99999/", "\xff", "ftp://x/y", "http://...."]
)
def test_a_redirect_to_no_address_is_a_refusal(
    gin: GinServer, archive: Path, waits: Waits, location: str
) -> None:
    def moved(handler: Handler, content: bytes) -> None:
        handler.answer(302, Location=location)

    gin.files["/mirror/a.zip"] = CONTENT
    gin.faults.append(moved)
    addresses = [gin.address + PATH, f"{gin.address}/mirror/a.zip"]
    assert fetch(addresses, archive, KEY, patience=waits.patience) == addresses[1]
    assert whole(archive)
    gin.faults.append(moved)
    archive.unlink()
    with pytest.raises(DownloadError, match=rf"{PATH} cannot be asked"):
        fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert waits == []


@pytest.mark.parametrize("span", ["bytes 5-9/{size}", "bytes 400000-400009/77", "nonsense", ""])
def test_another_part_than_asked_for_is_refused(
    gin: GinServer, archive: Path, waits: Waits, span: str
) -> None:
    def answer(handler: Handler, content: bytes) -> None:
        handler.send_response(206)
        handler.send_header("Content-Range", span.format(size=KEY.size))
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(bytes(10))

    gin.faults.extend([drop_after(400_000), answer])
    with pytest.raises(DownloadError, match=r"another part|offers 77 bytes"):
        fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    # What came before stays for the next run.
    assert partial_of(archive, KEY).read_bytes() == CONTENT[:400_000]
    fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert whole(archive)


def test_the_next_run_goes_on_and_another_key_does_not(
    gin: GinServer, archive: Path, waits: Waits, capsys: pytest.CaptureFixture[str]
) -> None:
    gin.faults.extend([drop_after(700_000), busy(404)])
    with pytest.raises(DownloadError):
        fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    changed = CONTENT[::-1]
    gin.files["/new"] = changed
    fetch([f"{gin.address}/new"], archive, key_of(changed), patience=waits.patience)
    assert archive.read_bytes() == changed
    assert gin.requests[-1] == ("/new", None)
    assert f"{partial_of(archive, KEY)} is left of another version" in capsys.readouterr().err
    archive.unlink()
    fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert gin.requests[-1] == (PATH, "bytes=700000-")
    assert whole(archive)


def test_complete_but_not_yet_named_needs_no_network(archive: Path, waits: Waits) -> None:
    archive.parent.mkdir()
    partial_of(archive, KEY).write_bytes(CONTENT)
    fetch(["http://127.0.0.1:9/a.zip"], archive, KEY, patience=waits.patience)
    assert whole(archive)
    assert waits == []


@pytest.mark.parametrize("left", [bytes(len(CONTENT)), CONTENT + b"too long"])
def test_a_spoilt_remainder_is_thrown_away(
    gin: GinServer, archive: Path, waits: Waits, left: bytes
) -> None:
    archive.parent.mkdir()
    partial_of(archive, KEY).write_bytes(left)
    fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert whole(archive)


def test_an_archive_that_appears_meanwhile_is_not_replaced(
    gin: GinServer, archive: Path, waits: Waits
) -> None:
    def appears(handler: Handler, content: bytes) -> None:
        archive.write_text("mine")
        handler.serve(content)

    gin.faults.append(appears)
    with pytest.raises(DownloadError, match="nothing was put over it"):
        fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert archive.read_text() == "mine"


def test_the_disk_is_checked_before_anything_is_asked_for(
    gin: GinServer, archive: Path, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(free=KEY.size - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    with pytest.raises(DownloadError, match=r"0\.0 GB are still to come.*Free some"):
        fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert gin.requests == []
    # What is here already needs no room.
    partial_of(archive, KEY).write_bytes(CONTENT[:1])
    fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert whole(archive)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_is_a_sentence(gin: GinServer, archive: Path, waits: Waits) -> None:
    archive.parent.mkdir()
    partial_of(archive, KEY).symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"cannot be written \(No space left on device\)"):
        fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert len(gin.requests) == 1
    assert not archive.exists()


def test_two_processes_do_not_write_one_file(gin: GinServer, archive: Path, waits: Waits) -> None:
    def second(handler: Handler, content: bytes) -> None:
        with pytest.raises(DownloadError, match="another process is downloading"):
            fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
        handler.serve(content)

    gin.faults.append(second)
    fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    assert whole(archive)
    assert len(gin.requests) == 1


SCRIPT = """
import sys
from pathlib import Path
from sensorium_models.recordings.annex import AnnexKey
from sensorium_models.recordings.patience import Patience
from sensorium_models.recordings.transfer import fetch
fetch([sys.argv[1]], Path(sys.argv[2]), AnnexKey.parse(sys.argv[3]), patience=Patience(tries=1))
if sys.platform == "linux":
    # The peak of this program alone; getrusage counts the parent from which it was forked.
    print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_and_started_again_it_goes_on(gin: GinServer, archive: Path) -> None:
    gin.faults.append(stall_after(650_000))
    address, partial = gin.address + PATH, partial_of(archive, KEY)
    with start(address, archive, KEY.text) as killed:
        deadline = time.monotonic() + 60
        while not partial.exists() or partial.stat().st_size < 650_000:
            assert killed.poll() is None, killed.communicate()
            assert time.monotonic() < deadline, "nothing arrived"
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
    assert not archive.exists()
    with start(address, archive, KEY.text) as again:
        _, log = again.communicate(timeout=60)
    assert again.returncode == 0, log
    assert whole(archive)
    assert starts(gin) == [0, 650_000]
    assert "650000 bytes are here already" in log


def test_the_log_shows_rate_and_time_left(
    gin: GinServer,
    archive: Path,
    waits: Waits,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half-way, after an interruption: `a:  50%|...| 500k/1.00M [00:01<00:01, 400kB/s]`."""
    gin.faults.append(drop_after(500_000))
    # Every step of the bar, not one in ten seconds, however fast it comes.
    monkeypatch.setattr(progress, "LOG_INTERVAL_SECONDS", 0)
    fetch([gin.address + PATH], archive, KEY, patience=waits.patience)
    log = capsys.readouterr().err
    assert "\r" not in log
    assert "1.00M/1.00M" in log
    assert "B/s]" in log
    left = re.findall(r"a: +(\d+)%\|.*/1\.00M \[\d\d:\d\d<(\d\d:\d\d), .*B/s\]", log)
    under_way = [time_left for percent, time_left in left if 0 < int(percent) < 100]
    assert under_way, log  # a time, where before the first byte there is a question mark
    assert "?" in log.splitlines()[0]
    assert left[-1] == ("100", "00:00")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_gigabytes_stay_under_100_mb_of_memory(gin: GinServer, archive: Path) -> None:
    size = 2 * 10**9
    piece = bytes(10**6)
    # MD5 of 2e9 zero bytes: head -c 2000000000 /dev/zero | md5sum
    key = "MD5-s2000000000--5ab9550b6548d740cc7713661f22e9af"

    def sparse(handler: Handler, content: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        for _ in range(size // len(piece)):
            handler.wfile.write(piece)

    gin.faults.append(sparse)
    try:
        with start(gin.address + PATH, archive, key) as process:
            printed, log = process.communicate(timeout=300)
        assert process.returncode == 0, log
        assert archive.stat().st_size == size
        assert int(printed) * 1024 < 100e6
    finally:
        shutil.rmtree(archive.parent)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    faults=st.lists(
        st.one_of(
            st.integers(0, 5000).map(drop_after),
            st.sampled_from([busy(503), busy(429, "1"), corrupt, other(b"short")]),
        ),
        max_size=8,
    ),
    ranges=st.booleans(),
    mirrors=st.integers(0, 2),
)
def test_whatever_happens_it_is_the_right_file_or_none(
    gin: GinServer, archive: Path, faults: list, ranges: bool, mirrors: int
) -> None:
    content = CONTENT[:4000]
    key = key_of(content)
    shutil.rmtree(archive.parent, ignore_errors=True)
    gin.files["/a"], gin.ranges = content, ranges
    gin.faults.clear()
    gin.faults.extend(faults)
    patience = Patience(tries=3, timeout_s=20, sleep=lambda seconds: None)
    try:
        fetch([f"{gin.address}/a"] * (mirrors + 1), archive, key, patience=patience)
    except DownloadError:
        assert not archive.exists()
    else:
        assert archive.read_bytes() == content
    gin.faults.clear()
    if not archive.exists():
        # Nothing that a failed run leaves behind spoils the next one.
        fetch([f"{gin.address}/a"], archive, key, patience=patience)
        assert archive.read_bytes() == content
