"""Whole-trial prediction: chunks change nothing, units convert once, scored frames are written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from sensorium_models import inference
from sensorium_models.evaluation.moments_file import largest_bytes
from sensorium_models.networks import members
from sensorium_models.networks.build import animal_facts, build_encoder
from sensorium_models.predictions import Predictions
from sensorium_models.recordings.clips import Places, read_clips, whole_trial
from sensorium_models.recordings.statistics import Statistics
from sensorium_models.recordings.store import Trials
from sensorium_models.systems import System

SYSTEMS = Path(__file__).resolve().parents[1] / "config" / "systems"


class MemoryRecording:
    """A recording store in memory: three trials of 40, 33 and 8 frames."""

    neurons, frame_shape, video_dtype = 4, (12, 15), np.dtype(np.uint8)
    modalities = ("video", "responses", "behavior", "pupil_center")
    coordinates = np.random.default_rng(0).normal(size=(4, 3))
    neuron_ids = np.array([2, 3, 5, 8])
    lengths = np.array([40, 33, 8])

    def __init__(self, path):
        self.animal = self.digest = Path(path).stem
        column = np.zeros(3, dtype=np.int64)
        self.trials = Trials(
            first_frame=column,
            frames=self.lengths,
            first_response_frame=column,
            tier=np.array(["oracle"] * 3),
            video=column,
            video_id=np.array(["v"] * 3),
            signature=np.array(["s"] * 3),
            perceptual_hash=np.array(["p"] * 3),
            stimulus_type=np.array(["movie"] * 3),
            pixel_type=np.array(["movie"] * 3),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def read(self, modality, trial, start=0, stop=None, *, step=1, out=None):
        random = np.random.default_rng([trial, len(modality)])
        frames = self.lengths[trial]
        if modality == "video":
            values = random.integers(0, 256, (frames, *self.frame_shape)).astype(np.uint8)
        else:
            width = self.neurons if modality == "responses" else 2
            values = random.gamma(1, 1, (frames, width)).astype(np.float32)
        if out is None:
            return values[start:stop:step]
        out[:] = values[start:stop:step]
        return out

    def statistics(self, source, modality, *, per_frame):
        shape = {"video": self.frame_shape, "responses": (self.neurons,)}.get(modality, (2,))
        shape = (45, *shape) if per_frame else shape
        random = np.random.default_rng([len(modality), source == "train"])
        mean, std = random.normal(size=shape), random.uniform(0.5, 2, shape)
        return Statistics(mean=mean, std=std, min=mean - 1, max=mean + 1)


def small(name, **changes):
    content = yaml.safe_load((SYSTEMS / f"{name}.yaml").read_text(encoding="utf-8"))
    if name == "dwiseneuro":
        content["core_settings"] |= {
            "channels": [4, 6],
            "strides": [2, 1],
            "expansion": 2,
            "cortex_channels": [8],
        }
        content["inputs"]["frame_padding"] = [14, 15]
    elif name == "dynamic_v1fm":
        content["core_settings"] |= {
            "clip_frames": 10,
            "embedding": 8,
            "heads": 2,
            "blocks": 1,
            "mlp_hidden": 4,
        }
        content["readout_settings"] |= {"scales": [2], "fusion": "adaptive"}
        content["recipe"] |= {"clip_frames": 10}
    elif name == "factorized_baseline":
        content["core_settings"] |= {
            "channels": [3, 4],
            "spatial_kernels": [4, 3],
            "temporal_kernels": [4, 3],
            "spatial_strides": [1, 1],
        }
    elif name == "viv1t_2025":
        content["core_settings"] |= {
            "channels": 4,
            "heads": 1,
            "head_channels": 4,
            "feedforward_channels": 4,
            "spatial_blocks": 1,
            "temporal_blocks": 1,
        }
    else:
        content["readout_settings"]["history_frames"] = 5
    return System(name=name, **{**content, **changes})


def trained(system, recording):
    encoder = build_encoder(system, {"A": animal_facts(recording, system)}, seed=1)
    for name, buffer in encoder.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            torch.nn.init.uniform_(buffer, 0.5, 2)
    return encoder


# The last one remembers the whole trial.
@pytest.mark.parametrize("name", ["factorized_baseline", "linear_nonlinear", "viv1t_2025"])
@pytest.mark.parametrize("chunk", [1, 7, 35, 1000])
def test_the_length_of_a_piece_changes_no_prediction(name, chunk):
    recording = MemoryRecording("A.h5")
    system = small(name, prediction_chunk_frames=chunk)
    encoder = trained(system, recording).train()
    got = inference.predict_trial(encoder, recording, 0, system=system, cap_frames=None)
    assert encoder.training
    assert got.shape == (40 - encoder.history_frames, 4)
    assert got.dtype == np.float32
    clip = whole_trial(recording, 0, cap_frames=None, responses=False)
    with torch.no_grad():
        whole = encoder.eval()(clip)[0].numpy()
    np.testing.assert_allclose(got, whole, rtol=1e-5, atol=1e-5)


def test_a_capped_trial_is_predicted_as_if_it_ended_there():
    recording, system = MemoryRecording("A.h5"), small("factorized_baseline")
    encoder = trained(system, recording)
    whole = inference.predict_trial(encoder, recording, 0, system=system, cap_frames=None)
    capped = inference.predict_trial(encoder, recording, 0, system=system, cap_frames=30)
    assert len(capped) == 30 - encoder.history_frames
    np.testing.assert_allclose(capped, whole[: len(capped)], rtol=1e-5, atol=1e-5)


def test_a_trial_shorter_than_the_history_is_refused():
    recording, system = MemoryRecording("A.h5"), small("factorized_baseline")
    encoder = trained(system, recording)
    with pytest.raises(ValueError, match=r"animal A, trial 0: 5 frames are no longer than .* 5"):
        inference.predict_trial(encoder, recording, 0, system=system, cap_frames=5)


def one_by_one(encoder, recording, trial, windows):
    """Rates (W, T_out, N) of windows given as lists of frames, each read and predicted alone."""
    recordings = {recording.animal: recording}
    rates = []
    with torch.no_grad():
        for frames in windows:
            places = Places(
                (recording.animal,),
                np.array([trial]),
                np.array([frames[0]]),
                frames=np.array([len(frames)]),
                step=frames[1] - frames[0],
            )
            clip = read_clips(recordings, places, responses=False)
            rates.append(encoder.eval()(clip)[0].double().numpy())
    return np.array(rates)


@pytest.mark.parametrize("chunk", [1, 48, 1000])
def test_sliding_windows_are_averaged_over_all_that_hold_a_frame(chunk):
    recording = MemoryRecording("A.h5")
    system = small("dwiseneuro", prediction_chunk_frames=chunk)
    encoder = trained(system, recording)
    got = inference.predict_trial(encoder, recording, 0, system=system, cap_frames=None)
    windows = [list(range(anchor - 30, anchor + 1, 2)) for anchor in range(30, 40)]
    total, counts = np.zeros((40, 4)), np.zeros((40, 1))
    for frames, rates in zip(windows, one_by_one(encoder, recording, 0, windows), strict=True):
        total[frames] += rates
        counts[frames] += 1
    assert counts.min() == 1
    assert got.shape == (40, 4)
    np.testing.assert_allclose(got, total / counts, rtol=1e-5, atol=1e-5)


def test_sliding_windows_reach_beyond_the_cap_and_leave_out_what_is_not_wanted():
    recording, system = MemoryRecording("A.h5"), small("dwiseneuro")
    encoder = trained(system, recording)
    whole = inference.predict_trial(encoder, recording, 0, system=system, cap_frames=None)
    some = inference.predict_trial(
        encoder, recording, 0, system=system, cap_frames=35, wanted=slice(31, 34)
    )
    np.testing.assert_allclose(some, whole[31:34], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 25, 1000])
@pytest.mark.parametrize(
    ("wanted", "starts"),
    [
        ((7, 40), [2, 7, 12, 17, 22, 27, 30]),  # six windows, and three frames of one at the end
        ((10, 30), [5, 10, 15, 20]),
        ((20, 22), [12]),
    ],
)
def test_tiled_windows_lie_end_to_end(chunk, wanted, starts):
    recording = MemoryRecording("A.h5")
    system = small("dynamic_v1fm", prediction_chunk_frames=chunk)
    encoder = trained(system, recording)
    got = inference.predict_trial(
        encoder, recording, 0, system=system, cap_frames=None, wanted=slice(*wanted)
    )
    windows = [list(range(start, start + 10)) for start in starts]
    rates = one_by_one(encoder, recording, 0, windows)
    expected = np.concatenate(rates)[-(wanted[1] - wanted[0]) :]
    if (wanted[1] - wanted[0]) % 5 and len(starts) > 1:
        rest = (wanted[1] - wanted[0]) % 5
        expected = np.concatenate([*rates[:-1], rates[-1][-rest:]])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "dwiseneuro",
            r"animal A, trial 2: 8 frames are too few for windows of 16 frames, 2 apart",
        ),
        ("dynamic_v1fm", r"animal A, trial 2: 8 frames are too few for a window of 10 frames"),
    ],
)
def test_a_trial_that_no_window_fits_into_is_refused(name, sentence):
    recording, system = MemoryRecording("A.h5"), small(name)
    encoder = trained(system, recording).train()
    with pytest.raises(ValueError, match=sentence):
        inference.predict_trial(encoder, recording, 2, system=system, cap_frames=None)
    assert encoder.training


def test_frames_without_a_prediction_are_refused():
    recording, system = MemoryRecording("A.h5"), small("factorized_baseline")
    encoder = trained(system, recording)
    for wanted in (slice(4, 10), slice(10, 41), slice(10, 10)):
        with pytest.raises(ValueError, match=r"but the network predicts 5..39"):
            inference.predict_trial(
                encoder, recording, 0, system=system, cap_frames=None, wanted=wanted
            )


def test_units_are_converted_frame_by_frame():
    random = np.random.default_rng(0)
    prediction = random.gamma(1, 1, (3, 4)).astype(np.float32)
    per_frame = random.uniform(0.5, 2, (20, 4)).astype(np.float32)
    pooled = random.uniform(0.5, 2, (1, 4)).astype(np.float32)
    frames = np.array([10, 11, 12])

    def convert(model, score):
        return inference.to_score_unit(
            prediction, frames=frames, model_precision=model, score_precision=score
        )

    expected = [
        [prediction[k, n] / pooled[0, n] * per_frame[10 + k, n] for n in range(4)] for k in range(3)
    ]
    np.testing.assert_allclose(convert(pooled, per_frame), expected, rtol=1e-6)
    there_and_back = prediction / per_frame[frames] * pooled
    np.testing.assert_allclose(convert(per_frame, pooled), there_and_back, rtol=1e-6)
    assert convert(per_frame, per_frame.copy()) is prediction


@pytest.fixture
def member(tmp_path, monkeypatch):
    """A stored member that predicts in units of per-neuron standard deviations."""
    return stored(
        small("factorized_baseline", response_unit="per_neuron_train"), tmp_path, monkeypatch
    )


def stored(system, tmp_path, monkeypatch):
    for module in (members, inference):
        monkeypatch.setattr(module, "Recording", MemoryRecording)
    encoder = trained(system, MemoryRecording("A.h5"))
    folder = tmp_path / "seed1"
    members.save_weights(folder / "weights.safetensors", encoder)
    record = {"system": system.model_dump(mode="json"), "animals": ["A"], "recordings": {"A": "A"}}
    (folder / "run.json").write_text(json.dumps(record))
    return folder, encoder, system


def predict(folder, output, **changes):
    settings = {
        "recordings": {"A": Path("A.h5")},
        "trials": {"A": [1, 0]},
        "unit": "per_frame_published",
        "first_scored_frame": 10,
        "cap_frames": 36,
        "drop_last_frames": 1,
        "device": "cpu",
        "threads": 1,
        "attributes": {
            "protocol": "open",
            "training_set": "clean",
            "system": "factorized_baseline",
            "member": "seed1",
            "frame_convention": "frames 10..T-2",
            "recording_digests": {"A": "A"},
            "fingerprint": "f",
        },
    }
    inference.predict(folder, output=output, **{**settings, **changes})


def test_scored_frames_are_written_in_the_score_unit(member, tmp_path):
    folder, encoder, system = member
    predict(folder, tmp_path / "p.h5")
    recording = MemoryRecording("A.h5")
    model_std = recording.statistics("train", "responses", per_frame=False).std
    score_std = recording.statistics("published", "responses", per_frame=True).std
    with Predictions(tmp_path / "p.h5") as stored:
        assert stored.attributes.score_unit == "per_frame_published"
        assert stored.attributes.first_scored_frame == 10
        assert stored.neuron_ids("A").tolist() == [2, 3, 5, 8]
        assert stored.trials("A").tolist() == [0, 1]
        for trial, last in ((0, 35), (1, 32)):
            rates = inference.predict_trial(encoder, recording, trial, system=system, cap_frames=36)
            expected = [rates[f - 5] * model_std / score_std[f] for f in range(10, last)]
            # float16 has 11 significant bits
            np.testing.assert_allclose(stored.read("A", trial), expected, rtol=2**-10)


@pytest.mark.parametrize("name", ["dwiseneuro", "dynamic_v1fm"])
def test_members_that_see_windows_are_written_like_others(name, tmp_path, monkeypatch):
    # 33 frames: 10..30 are scored, 21 frames, which are no multiple of a window's 5.
    system = small(name)
    folder, encoder, _ = stored(system, tmp_path, monkeypatch)
    predict(folder, tmp_path / "p.h5", trials={"A": [1]}, cap_frames=32)
    recording = MemoryRecording("A.h5")
    rates = inference.predict_trial(
        encoder, recording, 1, system=system, cap_frames=32, wanted=slice(10, 31)
    )
    if system.response_unit == "raw":
        std = recording.statistics("published", "responses", per_frame=True).std
        rates = rates / std[10:31]
    with Predictions(tmp_path / "p.h5") as written:
        np.testing.assert_allclose(written.read("A", 1), rates, rtol=2**-10)


def test_scores_cannot_begin_before_the_first_prediction(member, tmp_path):
    with pytest.raises(ValueError, match=r"first prediction is for frame 5 .* begin at 4"):
        predict(member[0], tmp_path / "p.h5", first_scored_frame=4)
    assert not (tmp_path / "p.h5").exists()


def test_a_disk_without_room_is_refused_at_once(member, tmp_path, monkeypatch):
    recording = MemoryRecording("A.h5")
    needed = 2 * 4 * int(recording.trials.frames[[0, 1]].sum())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=needed - 1))
    with pytest.raises(OSError, match=rf"p\.h5 needs up to {needed} bytes"):
        predict(member[0], tmp_path / "p.h5")
    assert not (tmp_path / "p.h5").exists()


def test_the_disk_must_have_room_for_the_sums_too(member, tmp_path, monkeypatch):
    """Trials 0 and 1 show one video: one row of sums for each of two units."""
    recording = MemoryRecording("A.h5")
    predictions = 2 * 4 * int(recording.trials.frames[[0, 1]].sum())
    needed = predictions + largest_bytes(neurons=4, videos=1, units=2)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=needed - 1))
    with pytest.raises(OSError, match=rf"p\.h5 needs up to {needed:,} bytes"):
        predict(member[0], tmp_path / "p.h5", moments_units=2)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=needed))
    predict(member[0], tmp_path / "p.h5", moments_units=2)


def test_an_animal_that_the_member_does_not_know_is_refused(member, tmp_path):
    with pytest.raises(ValueError, match="no readout for animal B; it knows A"):
        predict(
            member[0],
            tmp_path / "p.h5",
            recordings={"A": Path("A.h5"), "B": Path("B.h5")},
            trials={"A": [0], "B": [0]},
        )
