"""The whole workflow on simulated recordings: what runs, what runs again, what never does."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from sensorium_models.allocator import KEEPING
from sensorium_models.configuration import REPOSITORY
from sensorium_models.networks.build import animal_facts, build_encoder
from sensorium_models.networks.published import write_checkpoint
from sensorium_models.predictions import Predictions
from sensorium_models.recordings.store import Recording
from sensorium_models.study import read_study
from tests.workflow.conftest import Lab, make_lab

pytestmark = pytest.mark.workflow

MEMBERS = ["seed1", "seed2"]

OWN_CORE = '''"""A core of a lab's own."""

import torch
from torch import nn


class BlurringCore(nn.Module):
    history_frames = 0

    def __init__(self, *, in_channels, frame_shape, channels):
        super().__init__()
        self.out_channels = channels
        self.out_shape = tuple(-(-size // 4) for size in frame_shape)
        self.shrink = nn.Conv3d(in_channels, channels, (1, 3, 3), (1, 4, 4), (0, 1, 1))
        self.blur = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, inputs):
        shrunk = torch.relu(self.shrink(inputs))
        batch, channels, frames = shrunk.shape[:3]
        blurred = self.blur(shrunk.transpose(1, 2).flatten(0, 1))
        return blurred.unflatten(0, (batch, frames)).transpose(1, 2)

    def regularizer(self):
        return torch.zeros(())
'''
OWN_SYSTEM = """
extends: factorized_tiny
title: Blurred
core: blurring:BlurringCore
core_settings: {channels: 3}
members: {seed: [1]}
recipe: {schedule: {max_epochs: 1}}
"""


def content_hashes(results: Path) -> dict[str, str]:
    """Hashes of weights, predictions and scores: what must not differ between two runs."""
    hashes = {}
    for path in sorted(results.glob("members/**/weights.safetensors")):
        tensors = load_file(path)
        hashes[str(path.relative_to(results))] = hashlib.sha256(
            b"".join(name.encode() + tensors[name].tobytes() for name in sorted(tensors))
        ).hexdigest()
    for path in sorted(results.glob("*/predictions/**/*.h5")):
        digest = hashlib.sha256()
        with h5py.File(path) as file:
            for animal in sorted(file):
                digest.update(file[f"{animal}/predictions"][:].tobytes())
        hashes[str(path.relative_to(results))] = digest.hexdigest()
    tables = ["scores/*.parquet", "intervals.parquet", "comparisons.parquet"]
    for path in sorted(path for name in tables for path in results.glob(f"*/{name}")):
        table = pd.read_parquet(path).to_csv(index=False)
        hashes[str(path.relative_to(results))] = hashlib.sha256(table.encode()).hexdigest()
    assert hashes
    return hashes


def test_everything_is_made_and_then_nothing_is_to_do(lab: Lab) -> None:
    results = lab.results
    for member in MEMBERS:
        record = json.loads(
            (results / f"members/clean/factorized_tiny/{member}/run.json").read_text()
        )
        assert record["environment"]["packages"]["torch"].startswith("2.13")
        assert record["environment"]["allocator"] == KEEPING
        assert record["wall_seconds"] > 0
    assert not list(results.glob("members/**/*.checkpoint*"))
    page = (results / "report.html").read_text()
    assert "Factorized (tiny)" in page
    assert "imulated" in page
    names = ["leaderboard_open", "ensemble_size_open", "traces_open", "training_curves_clean"]
    names += [
        "scores_by_type_open",
        "neuron_distribution_open",
        "reliability_open",
        "paired_differences_open",
    ]
    names += ["seed_stability_open", "readout_positions_clean", "retinotopy_clean"]
    names += ["example_trial", "stimuli", "composition"]
    for name in [*names, "quality_tinyA", "quality_tinyB", "quality_tinyF"]:
        assert (results / f"report/figures/{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (results / f"report/figures/{name}.png").stat().st_size > 5000
        assert f'id="figure-{name}"' in page
    assert 'id="table-leakage_open"' in page
    for name in (
        "shared_videos",
        "seed_stability_open",
        "reproduction",
        "lineage_clean",
        "receipts",
    ):
        assert f'id="table-{name}"' in page
    for suffix in ("csv", "md", "tex"):
        assert (results / f"report/tables/leaderboard_open.{suffix}").stat().st_size > 100
    assert lab.plan("all").nothing_to_do


def test_withheld_tiers_and_trained_videos_are_not_scored(lab: Lab) -> None:
    scores = pd.read_parquet(lab.results / "open" / "scores")
    assert scores[["protocol", "score_unit", "frame_convention"]].notna().all(axis=None)
    assert set(scores["animal"].dropna()) == {"tinyA", "tinyB"}
    assert set(scores["protocol"]) == {"open"}
    assert set(scores["score_unit"]) == {"per_frame_published", "per_neuron_train"}
    assert "train" not in set(scores["tier"])
    headline = pd.read_parquet(lab.results / "open" / "scores" / "factorized_tiny.parquet")
    assert set(headline["score_unit"]) == {"per_frame_published"}
    scored = scores[scores["single_trial_correlation"].notna()]
    assert set(scored["tier"]) == {
        "live_test_main",
        "live_test_bonus",
        "final_test_main",
        "final_test_bonus",
    }
    # 300-frame movies are scored on frames 50..298: 249 frames for each of two repeats.
    movie = scored[(scored["tier"] == "live_test_main")].iloc[0]
    assert movie["frames"] == 2 * 249


def test_three_lines_of_the_readme_rank_the_systems(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    block = next(block for block in blocks if "open/scores" in block)
    exec(block.replace("results/demo", str(lab.results)))
    printed = capsys.readouterr().out
    places = [printed.index(system) for system in ("factorized_tiny", "linear_tiny")]
    board = pd.read_csv(lab.results / "report/tables/leaderboard_open.csv")
    board = board[(board["tier"] == "final_test_main") & (board["members"] != 2)]
    scores = board.set_index("system")["single_trial_correlation"]
    # The best comes last.
    assert (places[0] < places[1]) == (scores["factorized_tiny"] < scores["linear_tiny"])


def test_a_stage_can_be_made_again_alone(lab: Lab) -> None:
    figure = lab.results / "report/figures/leaderboard_open.pdf"
    figure.unlink()
    run = lab.snakemake("results/report/figures/leaderboard_open.pdf")
    assert run.jobs == {"draw_leaderboard": 1}
    assert figure.exists()
    stages = ["recordings", "splits", "members", "ensembles", "scores", "figures", "tables"]
    assert lab.plan(*stages).nothing_to_do
    # The page shows the new figure.
    assert lab.plan("report").jobs.keys() <= {"page", "report"}
    planned = lab.plan("scores", "--forcerun", "evaluate").jobs
    assert planned["evaluate"] == 2
    assert not {"train", "predict", "preprocess"} & planned.keys()


def test_a_member_is_judged_by_what_it_learned_from(lab: Lab) -> None:
    """As one that was adopted under another training set: it has seen what its own split says."""
    member = "members/clean/factorized_tiny/seed1"
    kept = lab.results / member / "split.parquet"
    rows = pd.read_parquet(kept)
    split = pd.read_parquet(lab.results / "splits/clean/factorized_tiny/seed1.parquet")
    tested = split[(split["role"] == "test") & (split["tier"] == "live_test_main")]
    shown = tested[tested["animal"] == "tinyA"]
    seen = shown.iloc[:1].assign(role="train")
    pd.concat([rows, seen], ignore_index=True).to_parquet(kept, index=False)
    lab.snakemake("scores")
    scores = pd.read_parquet(lab.results / "open/scores/factorized_tiny.parquet")
    scores = scores[(scores["animal"] == "tinyA") & (scores["tier"] == "live_test_main")]
    left_out = scores.groupby("member")["trials_left_out"].first()
    # All repeats of that video, for the member and for the ensemble that it is part of.
    repeats = int((shown["video_id"] == seen["video_id"].iloc[0]).sum())
    assert left_out.to_dict() == {"seed1": repeats, "seed2": 0, "ensemble": repeats}


def test_every_figure_is_a_job_of_its_own(lab: Lab) -> None:
    figures = sorted((lab.results / "report/figures").glob("*.pdf"))
    for figure in figures:
        figure.unlink()
    wanted = [str(figure.relative_to(lab.folder)) for figure in figures]
    assert sum(lab.plan(*wanted).jobs.values()) == len(figures)
    assert lab.plan(wanted[0]).jobs.keys() == {"draw_composition"}


def test_snakemakes_own_report_has_captions_and_categories(
    finished_lab: Lab, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    finished_lab.snakemake("--report", str(report))
    text = report.read_text(encoding="utf-8")
    figures = [path.stem for path in (finished_lab.results / "report/figures").glob("*.png")]
    tables = [path.stem for path in (finished_lab.results / "report/tables").glob("*.csv")]
    shown = dict(re.findall(r'"name": "([\w.]+)", "filename".*?"caption": "<p>(.*?)</p>', text))
    assert {f"{name}.png" for name in figures} <= shown.keys()
    assert {f"{name}.csv" for name in tables} <= shown.keys()
    assert all("{{" not in caption for caption in shown.values())
    assert "protocol open" in shown["leaderboard_open.png"]
    for category in ("Scores", "Training", "Readouts", "Recordings", "Leakage", "Lineage"):
        assert f'"{category}"' in text


def test_a_comment_makes_nothing_run_again(lab: Lab) -> None:
    for name in ("factorized_tiny", "linear_tiny"):
        file = lab.systems / f"{name}.yaml"
        file.write_text(f"# A remark.\n{file.read_text()}\n")
    (lab.folder / "tiny.yaml").write_text("# One more.\n" + (lab.folder / "tiny.yaml").read_text())
    assert lab.plan("all").nothing_to_do


def test_a_changed_value_stops_before_replacing_finished_members(lab: Lab) -> None:
    file = lab.systems / "factorized_tiny.yaml"
    file.write_text(file.read_text().replace("max_epochs: 2", "max_epochs: 1"))
    refused = lab.plan("all", check=False)
    assert refused.code != 0
    assert "2 finished members would be trained again" in refused.output
    assert "clean/factorized_tiny/seed1: system.recipe.schedule.max_epochs" in refused.output
    assert "linear_tiny" not in refused.output

    # Asked to, it trains that system again and what depends on it, and nothing else.
    replaced = lab.plan("all", config=("replace_members=true",)).jobs
    assert replaced["train"] == 2
    assert replaced["predict"] == 2
    assert replaced["ensemble"] == 1
    assert replaced["evaluate"] == 1
    assert not {"simulate", "preprocess", "videos"} & replaced.keys()

    # Or the members stand as they are: nothing of them runs again, now and later.
    adopted = lab.snakemake("all", config=("adopt_members=true",))
    assert not {"train", "predict"} & adopted.jobs.keys()
    assert "adopted" in adopted.output
    assert not {"train", "predict"} & lab.plan("all").jobs.keys()


def test_another_seed_trains_and_predicts_one_member(lab: Lab) -> None:
    before = content_hashes(lab.results)
    file = lab.systems / "factorized_tiny.yaml"
    file.write_text(file.read_text().replace("seed: [1, 2]", "seed: [1, 2, 3]"))
    planned = lab.plan("scores").jobs
    assert planned["split"] == 1
    assert planned["train"] == 1
    assert planned["predict"] == 1
    assert planned["ensemble"] == 1
    assert not {"simulate", "preprocess"} & planned.keys()
    lab.snakemake("scores")
    after = content_hashes(lab.results)
    kept = [key for key in before if key.startswith("members/") or "/predictions/" in key]
    assert all(after[key] == before[key] for key in kept)
    scores = pd.read_parquet(lab.results / "open/scores/factorized_tiny.parquet")
    assert set(scores["member"]) == {"seed1", "seed2", "seed3", "ensemble"}


def rules_in_order(lab: Lab) -> list[str]:
    """Every rule that makes something for `all`, in an order in which one run comes upon them."""
    planned = lab.plan("all", "--forceall").output
    jobs = re.findall(r"^(?:local)?rule (\w+):\n(.*?)(?=^\S|\Z)", planned, re.M | re.S)
    return list(dict.fromkeys(name for name, job in jobs if "output:" in job))


def check_that_kills_change_nothing(lab: Lab, finished: Lab, rules: list[str]) -> None:
    for rule in rules:
        assert lab.killed_in(rule, "all", "--until", rule), f"{rule} never began"
    lab.snakemake("all", "--nolock")
    assert content_hashes(lab.results) == content_hashes(finished.results)
    assert not list(lab.results.glob("**/*.part*"))
    assert lab.plan("all", "--nolock").nothing_to_do


def test_the_same_study_twice_and_stopped_at_every_stage_gives_the_same_bits(
    finished_lab: Lab, tmp_path: Path
) -> None:
    """Figures are alike, and so are tables: one of each here, all of them below."""
    again = make_lab(tmp_path / "again")
    rules = rules_in_order(again)
    drawn = [rule for rule in rules if rule.startswith("draw_")]
    tabulated = [rule for rule in rules if rule.startswith("tabulate_")]
    stages = [rule for rule in rules if rule not in {*drawn[1:], *tabulated[1:]}]
    assert {"simulate", "train", "predict", "ensemble", "evaluate", "page"} <= set(stages)
    check_that_kills_change_nothing(again, finished_lab, stages)


@pytest.mark.faults
def test_stopped_at_every_figure_and_table(finished_lab: Lab, tmp_path: Path) -> None:
    again = make_lab(tmp_path / "again")
    rules = rules_in_order(again)
    again.snakemake("scores")
    reporting = [rule for rule in rules if rule.startswith(("draw_", "tabulate_", "page"))]
    check_that_kills_change_nothing(again, finished_lab, reporting)


def test_a_core_of_ones_own_needs_no_edit_of_the_repository(lab: Lab) -> None:
    (lab.systems / "blurring.py").write_text(OWN_CORE)
    (lab.systems / "blurred.yaml").write_text(OWN_SYSTEM)
    run = lab.snakemake("scores", config=("systems=[blurred]",))
    assert run.jobs["train"] == 1
    assert not {"simulate", "preprocess"} & run.jobs.keys()
    scores = pd.read_parquet(lab.results / "open/scores/blurred.parquet")
    assert scores["single_trial_correlation"].notna().any()
    # A change of the module counts like one of the system's own file.
    module = lab.systems / "blurring.py"
    module.write_text(OWN_CORE.replace("padding=1", "padding='same'"))
    refused = lab.plan("scores", config=("systems=[blurred]",), check=False)
    assert "clean/blurred/seed1" in refused.output
    assert refused.code != 0


def test_published_checkpoints_take_the_place_of_trainings(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the original repository's naming and, here, with random weights; scored like any other."""
    monkeypatch.chdir(lab.folder)
    study = read_study(REPOSITORY / "config.yaml", lab.folder / "tiny.yaml")
    (lab.folder / "weights").mkdir()
    written = {}
    for member, axes in study.member_axes("factorized_tiny").items():
        system = study.systems["factorized_tiny"].of_member(axes)
        with Recording(lab.results / "recordings/tinyF.h5") as recording:
            facts = {"tinyF": animal_facts(recording, system, initial_positions=np.zeros((11, 2)))}
        encoder = build_encoder(system, facts, seed=int(axes["seed"]))
        folders = {"tinyF": study.recording("tinyF").folder}
        write_checkpoint(lab.folder / f"weights/{axes['seed']}.pth", encoder, folders=folders)
        written[member] = encoder.state_dict()
    with (lab.folder / "tiny.yaml").open("a") as file:
        file.write('published_weights: {factorized_tiny: {path: "weights/{seed}.pth"}}\n')

    run = lab.snakemake("scores", config=("protocols=[competition]", "systems=[factorized_tiny]"))

    assert run.jobs["import_member"] == 2
    assert "train" not in run.jobs
    for member, tensors in written.items():
        folder = lab.results / "members/published/factorized_tiny" / member
        kept = load_file(folder / "weights.safetensors")
        assert all(np.array_equal(kept[name], tensors[name].numpy()) for name in kept)
        record = json.loads((folder / "run.json").read_text())
        assert record["imported_from"]["path"].endswith(f"weights/{member[4:]}.pth")
    scores = pd.read_parquet(lab.results / "competition/scores/factorized_tiny.parquet")
    scored = scores[scores["tier"] == "oracle"].groupby("member")["single_trial_correlation"]
    assert scored.count().to_dict() == {"seed1": 11, "seed2": 11, "ensemble": 11}


def test_an_ensemble_is_the_mean_of_its_members(lab: Lab) -> None:
    folder = lab.results / "open"
    with ExitStack() as stack:
        ensemble = stack.enter_context(
            Predictions(folder / "ensembles/factorized_tiny/predictions.h5")
        )
        members = [
            stack.enter_context(Predictions(folder / f"predictions/factorized_tiny/{member}.h5"))
            for member in MEMBERS
        ]
        for trial in map(int, ensemble.trials("tinyA")):
            mean = np.mean([member.read("tinyA", trial) for member in members], axis=0)
            # Stored as float16: half a unit in the last of eleven bits.
            np.testing.assert_allclose(ensemble.read("tinyA", trial), mean, rtol=2**-11, atol=1e-7)

    # An ensemble of several systems needs no network, only what they predicted.
    joint = ("ensembles={both: {title: Both, members: [factorized_tiny, linear_tiny/seed1]}}",)
    table = "results/report/tables/leaderboard_open.csv"
    run = lab.snakemake(table, "results/open/comparisons.parquet", config=joint)
    assert run.jobs.keys() <= {
        "ensemble",
        "evaluate",
        "evaluate_in_unit",
        "uncertainty",
        "tabulate_scores",
        "total",
    }
    assert run.jobs["ensemble"] == 1
    scores = pd.read_parquet(folder / "scores")
    assert set(scores[scores["system"] == "both"]["member"]) == {"ensemble"}
    board = pd.read_csv(lab.folder / table)
    assert "Both" in set(board["system_title"])
    assert "both" in set(pd.read_parquet(folder / "comparisons.parquet")["other"])


def test_an_unreadable_archive_ends_in_a_sentence(lab: Lab) -> None:
    receipt = lab.results / "receipts/tinyA.json"
    content = json.loads(receipt.read_text())
    torn = lab.folder / "torn" / Path(content["archive"]).name
    torn.parent.mkdir()
    whole = Path(content["archive"]).read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    receipt.write_text(json.dumps({**content, "archive": str(torn)}))
    store = lab.results / "recordings/tinyA.h5"
    run = lab.snakemake("results/recordings/tinyA.h5", check=False)
    assert run.code != 0
    assert re.search(r"ArchiveError: .*tinyA\.zip", run.output)
    assert not store.exists()
    assert not list(store.parent.glob(".*part*"))


def test_a_store_outlives_its_archive(lab: Lab) -> None:
    archive = lab.folder / "gone" / "tinyA.zip"
    receipt = lab.results / "receipts/tinyA.json"
    before, times = receipt.read_text(), receipt.stat()
    content = json.loads(before)
    receipt.write_text(json.dumps({**content, "archive": str(archive)}))
    os.utime(receipt, ns=(times.st_atime_ns, times.st_mtime_ns))
    # Other tiers would mean another store, but without the archive this one has to serve.
    planned = lab.plan("recordings", config=("tiers={spare: unused}",))
    assert planned.jobs.get("preprocess") == 2
    assert "tinyA" not in re.findall(r"recordings/(\w+)\.h5", planned.output.split("Job stats")[0])


def test_a_wrong_value_stops_before_any_job(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "wrong")
    run = lab.snakemake("all", config=("animals=[tinyA,tinyZ]",), check=False)
    assert run.code != 0
    assert "--config: animals: tinyZ is unknown" in run.output
    assert not lab.results.exists()


def test_the_full_study_is_planned_without_data(tmp_path: Path) -> None:
    command = Lab(tmp_path).command("--dry-run", "all")
    command = command[: command.index("--configfile")]
    start = time.monotonic()
    with (tmp_path / "plan.log").open("wb") as log:
        planning = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(planning.pid, 0)  # what this process used, and no other
    seconds = time.monotonic() - start
    said = (tmp_path / "plan.log").read_text()
    assert os.waitstatus_to_exitcode(status) == 0, said[-3000:]
    planning.returncode = 0
    table = re.search(r"job +count\n-+ +-+\n(.*?)\ntotal", said, re.DOTALL)
    assert table
    jobs = dict(line.split() for line in table.group(1).splitlines())
    # GRU, factorized, DwiseNeuro, Dynamic-V1FM, ViV1T twice and the control.
    members = 1 + 14 + 14 + 31 + 5 + 5 + 1
    # GRU, factorized, DwiseNeuro and ViV1T are trained as published and anew for `open`.
    assert jobs["train"] == str(members + 1 + 14 + 14 + 5)
    assert jobs["predict"] == str(2 * members)
    assert jobs["preprocess"] == "10"
    # A student waits for the teacher of its own fold, in both training sets.
    edges = re.findall(
        r"splits/(\w+)/dwiseneuro/(fold\d)-distilled-(\w+)\.parquet, "
        r"results/members/\1/dwiseneuro/\2-basic-\3/run\.json",
        said,
    )
    assert len(set(edges)) == 14
    megabytes = used.ru_maxrss / 1024
    assert megabytes < 1000
    print(f"planned in {seconds:.1f} s and {megabytes:.0f} MB")
    assert (REPOSITORY / "config.yaml").exists()


def test_what_a_study_takes_is_told_and_nothing_runs(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "lab")
    command = [sys.executable, str(REPOSITORY / "workflow_scripts" / "plan.py")]
    command += ["--configfile", "tiny.yaml", "--config", "systems=[factorized_tiny]"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=lab.folder, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^  train +2$", done.stdout, re.MULTILINE)
    assert "factorized_tiny (clean)" in done.stdout
    assert not lab.results.exists()


TEACHER_AND_STUDENT = """
extends: factorized_tiny
title: Teacher and student
members: {stage: [basic, distilled], seed: [1]}
by_axis:
  stage:
    distilled: {recipe: {distillation: {teacher: {stage: basic}, ratio: 0.36}}}
recipe:
  batches: mixed_animals
  samples_per_epoch: 12
  loss: {scale: weighted_clips}
"""


def test_a_student_waits_for_its_teacher(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "lab")
    (lab.systems / "pair.yaml").write_text(TEACHER_AND_STUDENT)
    members = "results/members/clean/pair"
    planned = lab.plan(f"{members}/distilled-seed1/run.json", config=("systems=[pair]",))
    assert planned.jobs["train"] == 2
    student = re.search(r"rule train:\n +input: (.*distilled-seed1.*)\n", planned.output)
    assert student is not None
    for name in ("run.json", "weights.safetensors"):
        assert f"{members}/basic-seed1/{name}" in student.group(1)
    alone = lab.plan(f"{members}/basic-seed1/run.json", config=("systems=[pair]",))
    assert alone.jobs["train"] == 1
