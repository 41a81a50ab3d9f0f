"""Progress: every item comes through, and a log gets whole lines."""

import pytest

from sensorium_models.progress import track


def test_a_log_gets_lines_and_no_carriage_returns(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(5), "count", unit="step")) == [0, 1, 2, 3, 4]
    log = capsys.readouterr().err
    assert "\r" not in log
    assert log.endswith("\n")
    assert "count: 100%" in log.splitlines()[-1]
