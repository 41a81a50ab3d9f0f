"""Progress: every item comes through, and a log gets whole lines."""

import pytest

from sensorium_models.progress import meter, track


def test_a_log_gets_lines_and_no_carriage_returns(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(5), "count", unit="step")) == [0, 1, 2, 3, 4]
    log = capsys.readouterr().err
    assert "\r" not in log
    assert log.endswith("\n")
    assert "count: 100%" in log.splitlines()[-1]


def test_a_download_that_goes_on_counts_what_was_there(capsys: pytest.CaptureFixture[str]) -> None:
    with meter("mouse", total=4_000_000, done=1_000_000) as show:
        show(3_000_000)
        show(2_000_000)  # a server that began anew
        show(4_000_000)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("mouse:  25%")
    assert "1.00M/4.00M" in first
    assert last.startswith("mouse: 100%")
    assert "B/s]" in last
