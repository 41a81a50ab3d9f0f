"""Quality sheets and the leakage audit come out of the workflow before anything is trained."""

import json

import pandas as pd
import pytest

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

ANIMALS = ("tinyA", "tinyB", "tinyF")


def test_recordings_bring_quality_sheets_and_splits_bring_the_audit(
    tmp_path, make_tiny_lab
) -> None:  # type: ignore[no-untyped-def]
    lab = make_tiny_lab(tmp_path / "lab")
    tables = ["leakage_open.csv", "shared_videos.md"]
    run = lab.snakemake("recordings", *(f"results/report/tables/{name}" for name in tables))
    assert run.jobs["draw_quality"] == len(ANIMALS)
    assert "train" not in run.jobs
    report = lab.results / "report"
    for animal in ANIMALS:
        assert (report / f"figures/quality_{animal}.pdf").read_bytes().startswith(b"%PDF")
        assert (report / f"figures/quality_{animal}.png").stat().st_size > 20_000
        caption = json.loads((report / f"figures/quality_{animal}.json").read_text())["caption"]
        assert "Few repeats of a video: 2 in oracle" in caption
        assert "The recording is simulated" in caption

    shared = pd.read_csv(report / "tables/shared_videos.csv")
    pairs = set(zip(shared["animal"], shared["other_animal"], strict=True))
    assert pairs == {("tinyA", "tinyF")}  # one pair saw the same movies, the other animal none
    trained = shared[(shared["tier"] == "train") & (shared["other_tier"] == "train")]
    assert trained["videos"].tolist() == [4]
    audit = pd.read_csv(report / "tables/leakage_open.csv")
    assert set(audit["system"]) == {"factorized_tiny", "linear_tiny"}
    assert (audit["scored"] == audit["tested"]).all()
    for end in ("md", "tex", "json"):
        assert (report / f"tables/leakage_open.{end}").stat().st_size > 100

    figure = report / "figures/quality_tinyB.pdf"
    figure.unlink()
    assert lab.plan("recordings").jobs == {"draw_quality": 1, "recordings": 1}
    # What the sheet is measured against is part of what decides it.
    table = "recordings={tinyA: {stimulus_types: {live_test_bonus: [images]}}}"
    planned = lab.plan("results/report/figures/quality_tinyA.pdf", config=(table,)).jobs
    assert planned["draw_quality"] == 1
