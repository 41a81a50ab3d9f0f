"""Inputs against a transcription of the normalisation and stacking rules in plain numpy."""

import dataclasses

import numpy as np
import pytest
import torch

from sensorium_models.networks.inputs import AnimalInputs, select_rows, to_device
from sensorium_models.recordings.normalisation import Affine, Normalisation


def test_per_frame_inputs_equal_a_plain_transcription(make_facts, make_clip):
    facts, clip = make_facts(), make_clip(clips=3, frames=6, first_frames=(0, 11, 34))
    inputs = AnimalInputs(
        animal="A", normalisation=facts.normalisation, channels=["video", "behavior"]
    )
    video, behavior = facts.normalisation.video, facts.normalisation.behavior
    expected = np.zeros((3, 3, 6, 12, 15))
    for b, start in enumerate((0, 11, 34)):
        for t in range(6):
            f = start + t  # statistics are those of the absolute frame in the trial
            raw = clip.video[b, 0, t].astype(np.float64)
            expected[b, 0, t] = (raw - video.offset[f]) * video.scale[f]
            for c in range(2):  # channel 1 pupil dilation, 2 running speed; scaled, not centred
                expected[b, 1 + c, t] = clip.behavior[b, t, c] * behavior.scale[f, c]
    got = inputs(to_device(clip, "cpu"))
    assert got.dtype == torch.float32
    # float32 arithmetic on values up to 255 * 2
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6, atol=1e-4)

    pupil = facts.normalisation.pupil_center
    expected_pupil = (clip.pupil_center - pupil.offset[clip.frame]) * pupil.scale[clip.frame]
    np.testing.assert_allclose(inputs.pupil_center(clip).numpy(), expected_pupil, rtol=1e-6)
    expected_responses = clip.responses * facts.normalisation.responses.scale[clip.frame]
    np.testing.assert_allclose(inputs.responses(clip).numpy(), expected_responses, rtol=1e-6)


def test_pooled_statistics_need_no_frame_index_and_have_no_limit(make_clip):
    scalar = Affine(np.full((1, 1, 1), 100, np.float32), np.full((1, 1, 1), 0.5, np.float32))
    rows = Affine(np.zeros((1, 2), np.float32), np.array([[2, 3]], np.float32))
    responses = Affine(np.zeros((1, 5), np.float32), np.full((1, 5), 4, np.float32))
    pooled = Normalisation(
        video=scalar, behavior=rows, pupil_center=None, responses=responses, frames=None
    )
    inputs = AnimalInputs(animal="A", normalisation=pooled, channels=["video", "behavior"])
    clip = make_clip(first_frames=(5000, 0), lacking=("pupil_center",))
    got = inputs(clip).numpy()
    np.testing.assert_allclose(got[:, 0], (clip.video[:, 0].astype(float) - 100) * 0.5)
    np.testing.assert_allclose(got[:, 2, :, 3, 4], clip.behavior[..., 1] * 3, rtol=1e-6)
    with pytest.raises(ValueError, match=r"animal A.*no pupil_center"):
        inputs.pupil_center(clip)


def test_a_frame_without_statistics_is_an_error_unless_it_is_padding(make_facts, make_clip):
    facts = make_facts(frames=40)
    inputs = AnimalInputs(animal="A", normalisation=facts.normalisation, channels=["video"])
    late = make_clip(frames=6, first_frames=(0, 36))
    with pytest.raises(ValueError, match=r"animal A.*frame 41 .*40 frames only"):
        inputs(late)
    valid = late.valid.copy()
    valid[1, 4:] = False
    assert torch.isfinite(inputs(dataclasses.replace(late, valid=valid))).all()


def test_an_absent_modality_cannot_be_an_input(make_facts):
    facts = make_facts(lacking=("behavior",))
    with pytest.raises(ValueError, match="animal A has no behavior"):
        AnimalInputs(animal="A", normalisation=facts.normalisation, channels=["video", "behavior"])


def test_rows_of_a_batch_keep_everything_together(make_clip):
    clip = make_clip(("A", "B", "A"), lacking=("responses",))
    chosen = select_rows(clip, [2, 0])
    assert chosen.animal == ("A", "A")
    assert chosen.trial.tolist() == [2, 0]
    assert chosen.responses is None
    np.testing.assert_array_equal(chosen.behavior, clip.behavior[[2, 0]])
