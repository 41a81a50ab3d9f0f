"""Video identity: signatures, ids across animals, repeats that differ a little, the folds' hash."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fftpack import dct

from sensorium_models.recordings import identity, repeats, stimuli
from sensorium_models.recordings.store import Recording

MODALITIES = ("responses", "behavior", "pupil_center")


def noise(frames: int, seed: int = 0, shape: tuple[int, int] = (6, 9)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, *shape)).astype(np.uint8)


# The perceptual hash, against the model card and against a computation from scratch.


def hash_from_the_card(video: np.ndarray) -> str:
    """Written from the model card: DCT of a 32 x 32 image, bits above the median, XOR."""
    step = len(video) // 5
    total = 0
    for k in range(5):
        image = Image.fromarray(video[step // 2 + k * step].astype(np.uint8), mode="L")
        pixels = np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS))
        low = dct(dct(pixels, axis=0), axis=1)[:8, :8]
        bits = (low > np.median(low)).ravel()
        total ^= int("".join("1" if bit else "0" for bit in bits), 2)
    return f"{total:016x}"


def lanczos_rows(image: np.ndarray, size: int) -> np.ndarray:
    """Lanczos-3 along the first axis, widened when it shrinks, rounded to whole grey levels."""
    scale = len(image) / size
    width = max(scale, 1.0)
    rows = []
    for row in range(size):
        centre = (row + 0.5) * scale
        first = max(int(centre - 3 * width + 0.5), 0)
        last = min(int(centre + 3 * width + 0.5), len(image))
        x = (np.arange(first, last) - centre + 0.5) / width
        weight = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)
        rows.append(np.tensordot(weight / weight.sum(), image[first:last].astype(float), axes=1))
    return np.floor(np.clip(np.array(rows), 0, 255) + 0.5)


def hash_from_scratch(video: np.ndarray) -> str:
    """No library but numpy: resampling, cosines, median and bits as the card states them."""
    n = np.arange(32)
    cosines = 2 * np.cos(np.pi * np.outer(n, 2 * n + 1) / 64)  # type II, not normalised
    step, total = len(video) // 5, 0
    for k in range(5):
        frame = video[step // 2 + k * step].astype(np.uint8)
        pixels = lanczos_rows(lanczos_rows(frame.T, 32).T, 32)  # columns first, as Pillow does
        low = (cosines @ pixels @ cosines.T)[:8, :8].ravel()
        middle = np.sort(low)[31:33].mean()
        for place, value in enumerate(low):
            total ^= int(value > middle) << (63 - place)
    return f"{total:016x}"


@pytest.mark.parametrize("frames", [5, 7, 240, 300, 324])
def test_perceptual_hash_as_the_card_describes(frames: int) -> None:
    rng = np.random.default_rng(frames)
    smooth = np.cumsum(np.cumsum(rng.normal(size=(frames, 36, 64)), axis=1), axis=2)
    video = 255 * (smooth - smooth.min()) / np.ptp(smooth)
    assert identity.perceptual_hash(video) == hash_from_the_card(video)
    assert identity.perceptual_hash(video) == hash_from_scratch(video)
    assert len(identity.perceptual_hash(video)) == 16


@pytest.mark.parametrize("shape", [(36, 64), (32, 32), (18, 32), (144, 256)])
def test_perceptual_hash_of_other_frame_sizes_from_scratch(shape: tuple[int, int]) -> None:
    video = noise(5, 2, shape)
    assert identity.perceptual_hash(video) == hash_from_scratch(video)


def test_perceptual_hash_worked_by_hand() -> None:
    """An even frame has one coefficient above the median 0, the first: the highest bit."""
    even = np.full((32, 32), 90, dtype=np.uint8)
    # Left to right one half cosine: the next bit too. The others stay 0, as sums over columns.
    wave = np.rint(90 + 80 * np.cos(np.pi * (2 * np.arange(32) + 1) / 64)).astype(np.uint8)
    across = np.broadcast_to(wave, (32, 32))
    dark = np.zeros((32, 32), dtype=np.uint8)
    video = np.stack([dark, even, dark, dark, dark, dark, dark, dark, dark, dark])
    # Ten frames: those with odd numbers count. Black frames have no bit above the median 0.
    assert identity.perceptual_hash(video) == "8000000000000000"
    video[3] = even
    assert identity.perceptual_hash(video) == "0" * 16
    video[5] = even
    video[7] = even
    video[9] = across
    assert int(identity.perceptual_hash(video), 16) >> 62 == 0b11
    assert int(identity.perceptual_hash(video), 16) % 2**56 == 0  # rows below the first: all zero


def test_perceptual_hash_depends_on_five_frames_only() -> None:
    video = noise(304, 3, (36, 64))  # steps of 60 from frame 30; the last four never count
    reference = identity.perceptual_hash(video)
    chosen = [30, 90, 150, 210, 270]
    others = np.setdiff1d(np.arange(304), chosen)
    changed = video.copy()
    changed[others] = 0
    assert identity.perceptual_hash(changed) == reference
    for frame in chosen:
        changed = video.copy()
        changed[frame] = 255 - changed[frame]
        assert identity.perceptual_hash(changed) != reference
    # Truncated to whole grey levels, not rounded.
    assert identity.perceptual_hash(np.minimum(video + 0.9, 255.9)) == reference


def test_perceptual_hash_of_very_short_videos() -> None:
    video = np.random.default_rng(0).integers(0, 256, (3, 8, 8))
    first = identity.perceptual_hash(video[:1])
    assert identity.perceptual_hash(video) == first
    with pytest.raises(ValueError, match="without frames"):
        identity.perceptual_hash(video[:0])


# Signatures and ids of one video.


@pytest.mark.parametrize("name", ["signature", "content_id"])
def test_signature_and_id_are_content(name: str) -> None:
    function = getattr(identity, name)
    video = np.random.default_rng(1).integers(0, 256, (320, 6, 9)).astype(np.uint8)
    reference = function(video)
    assert len(reference) == 32
    assert function(video.astype(np.float64) + 0.3) == reference  # rounds to the same
    assert function(video[:305]) == reference  # beyond the frames that count
    assert function(video.reshape(320, 9, 6)) != reference
    assert function(video[::-1]) != reference
    strided = np.moveaxis(np.ascontiguousarray(np.moveaxis(video, 0, -1)), -1, 0)
    assert function(strided) == reference


def test_signature_is_exact() -> None:
    video = np.random.default_rng(1).integers(0, 256, (320, 6, 9)).astype(np.uint8)
    reference = identity.signature(video)
    assert identity.signature(video[:299]) != reference
    changed = video.copy()
    changed[299, 5, 8] ^= 1
    assert identity.signature(changed) != reference


def test_id_mostly_survives_a_few_changed_frames() -> None:
    """The docstring promises agreement with probability 1 - k / 50 for k changed frames."""
    rng = np.random.default_rng(4)
    trials, changed_frames = 300, 3
    agreed = 0
    for trial in range(trials):
        video = noise(300, 1000 + trial, (4, 5))
        other = video.copy()
        other[rng.choice(300, changed_frames, replace=False)] ^= 1
        agreed += identity.content_id(video) == identity.content_id(other)
        assert identity.signature(video) != identity.signature(other)
    expected = 1 - changed_frames / 50
    spread = np.sqrt(expected * (1 - expected) / trials)
    assert abs(agreed / trials - expected) < 4 * spread


def test_id_of_a_still_video_is_not_ruled_by_one_odd_frame() -> None:
    """35 stills of 9 frames: an added frame is one of 100 of its section, not one of 11 stills."""
    agreed = 0
    for seed in range(100):
        video = np.repeat(noise(35, seed, (4, 5)), 9, axis=0)
        other = video.copy()
        other[100] = 255 - other[100]
        agreed += identity.content_id(video) == identity.content_id(other)
    assert agreed >= 93  # expected 98, standard deviation 1.4


def test_id_ignores_the_grey_between_images() -> None:
    """Half of the frames of two clips are the same grey, and yet they are two videos."""
    ids = set()
    for seed in range(60):
        clip = np.full((300, 4, 5), 127, dtype=np.uint8)
        for start, image in zip(range(0, 300, 30), noise(10, seed, (4, 5)), strict=True):
            clip[start : start + 15] = image
        ids.add(identity.content_id(clip))
    assert len(ids) == 60
    grey = np.full((300, 4, 5), 127, dtype=np.uint8)
    assert identity.content_id(grey) != identity.content_id(grey + 1)
    assert len(identity.content_id(grey[:0])) == 32


def test_ids_of_an_animals_videos() -> None:
    """Repeats share the id of most of them; videos that ids do not tell apart have signatures."""
    numbers = np.array([0, 0, 0, 1, 1, 2, 3, -1])
    contents = ["b", "a", "b", "d", "c", "e", "e", "e"]
    signatures = ["s0", "s1", "s0", "s3", "s4", "s5", "s6", "s7"]
    ids = identity.video_ids(numbers, contents, signatures)
    assert ids[:3] == ["b"] * 3
    assert ids[3:5] == ["c"] * 2  # the smallest of two equally frequent ones
    assert ids[5:] == ["s5", "s6", "e"]


# The rule for repeats that are not exactly equal.


def close_by_the_card(first: np.ndarray, second: np.ndarray) -> bool:
    """The rule frame by frame, on arrays padded with NaN to the longer length."""
    length = max(len(first), len(second))
    padded = []
    for video in (first, second):
        array = np.full((length, *video.shape[1:]), np.nan)
        array[: len(video)] = video
        padded.append(np.where(np.isnan(array), -1.0, array))
    equal = [bool((abs(a - b) <= 1.0).all()) for a, b in zip(padded[0], padded[1], strict=True)]
    return sum(equal) > 0.85 * length


@given(
    seed=st.integers(0, 1000),
    changed=st.integers(0, 8),
    jitter=st.integers(0, 2),
    shorter=st.integers(0, 8),
    dark=st.booleans(),
    kind=st.sampled_from([np.uint8, np.float32]),
)
@settings(deadline=None, max_examples=60)
def test_rule_and_candidates(
    seed: int, changed: int, jitter: int, shorter: int, dark: bool, kind: Any
) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(3, 250, (40, 5, 7)).astype(kind)
    second = first + rng.integers(-jitter, jitter + 1, first.shape).astype(kind)
    second[rng.choice(40, changed, replace=False)] = 255
    if dark:
        first[30:] = 0
    second = second[: 40 - shorter]
    expected = close_by_the_card(first.astype(float), second.astype(float))
    assert repeats.same_video(first, second) == expected
    assert repeats.same_video(second, first) == expected
    # Whatever the pixels say is the same, the means must not exclude.
    unrelated = noise(33, seed, (5, 7))
    means = [repeats.quadrant_means(video) for video in (unrelated, first, second)]
    candidates = repeats.Candidates(means).of(1, np.array([0, 2]))
    assert 0 not in candidates
    if expected:
        assert 2 in candidates


def test_share_of_equal_frames_is_strict() -> None:
    video = noise(100)
    for changed, same in ((14, True), (15, False)):
        other = video.copy()
        other[:changed] = 255 - other[:changed]
        assert repeats.same_video(video, other) is same
    assert not repeats.same_video(video, video[:, :, :5])


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["train", "none"]))))
def test_within_animal_ids(trials: list[tuple[str, str]]) -> None:
    signatures, tiers = [s for s, _ in trials], [t for _, t in trials]
    ids = repeats.within_animal_ids(signatures, tiers, ["none"])
    assert ids.dtype == np.int32
    used = [(s, i) for s, t, i in zip(signatures, tiers, ids, strict=True) if t != "none"]
    assert all(i == -1 for t, i in zip(tiers, ids, strict=True) if t == "none")
    for first, one in used:
        for second, other in used:
            assert (one == other) == (first == second)
    assert sorted({i for _, i in used}) == list(range(len({s for s, _ in used})))


def test_first_match_wins() -> None:
    """0 and 1 differ in 12 of 100 frames, 1 and 2 in 12 others: 2 is close to 1 but not to 0."""
    videos = [noise(100) for _ in range(5)]
    videos[1][:12] = 255 - videos[1][:12]
    videos[2][:24] = 255 - videos[2][:24]
    videos[3] = videos[2].copy()
    videos[3][90, 0, 0] ^= 1
    signatures = [identity.signature(video) for video in videos]
    means = [repeats.quadrant_means(video) for video in videos]
    compare = repeats.first_match(means, videos.__getitem__)
    tiers = ["oracle"] * 5
    assert repeats.within_animal_ids(signatures, tiers, (), compare).tolist() == [0, 0, 1, 1, 0]
    tiers[0] = tiers[4] = "none"
    ids = repeats.within_animal_ids(signatures, tiers, ["none"], compare)
    assert ids.tolist() == [-1, 0, 0, 0, -1]


# Stores and the table of videos.


def with_video(content: dict[str, Any], trial: int, video: np.ndarray) -> None:
    """Replace what a trial of an archive showed by (T, H, W); the other arrays as long as it."""
    padded = content[f"data/videos/{trial}.npy"].shape[-1]
    array = np.full((*video.shape[1:], padded), np.nan)
    array[..., : len(video)] = np.moveaxis(video, 0, -1)
    content[f"data/videos/{trial}.npy"] = array
    for modality in MODALITIES:
        array = np.ones_like(content[f"data/{modality}/{trial}.npy"])
        array[..., len(video) :] = np.nan
        content[f"data/{modality}/{trial}.npy"] = array


def test_store_finds_repeats_that_differ_a_little(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    content = make()
    tiers = content["meta/trials/tiers.npy"]
    first, second, third = np.flatnonzero(tiers == "oracle").tolist()
    video = noise(30, 8)
    for trial, changed in ((first, [7, 8, 9]), (second, []), (third, [])):
        shown = video.copy()
        shown[changed] = 255 - shown[changed]
        with_video(content, trial, shown)
    # A repeat whose pupil was lost after ten frames showed the same video.
    content[f"data/pupil_center/{third}.npy"][..., 10:] = np.nan
    recording = prepare(zipped(content, tmp_path / "A.zip"), tmp_path / "A.h5")
    trials = recording.trials
    repeated = [first, second, third]
    assert len(set(trials.video[repeated])) == 1
    assert trials.signature[first] != trials.signature[second] == trials.signature[third]
    # The id is that of most repeats, not of the odd one that came first.
    assert set(trials.video_id[repeated]) == {identity.content_id(video)}
    others = np.setdiff1d(np.arange(len(tiers)), repeated)
    assert not set(trials.video_id[others]) & set(trials.video_id[repeated])
    assert (
        len(set(trials.video[others][tiers[others] != "none"])) == (tiers[others] != "none").sum()
    )
    means = recording.video_means()
    assert means.shape == (trials.frames.sum(), 4)
    start = trials.first_frame[second]
    shown = recording.read("video", second)
    assert np.allclose(means[start : start + 30, 3], shown[:, 3:, 5:].mean(axis=(1, 2)))


def test_labels_are_no_part_of_the_digest(recording: Recording, tmp_path: Path) -> None:
    """Better ids or types must not make every trained member look as if its data had changed."""
    from sensorium_models.recordings import preprocess

    names = [name for name in vars(preprocess) if name in ("stimulus_type", "type_from_pixels")]
    assert len(names) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocess, "type_from_pixels", lambda video: "gabor")
        patch.setattr(preprocess.identity, "content_id", lambda video: "0" * 32)
        archive = recording.path.with_suffix(".zip")
        preprocess.write_store(
            archive=archive,
            store=tmp_path / "A.h5",
            animal="A",
            neurons=None,
            frame_rate_hz=30.0,
            known_tiers=sorted(set(recording.trials.tier)),
            withheld_tiers=(),
            stimulus_types=None,
        )
    with Recording(tmp_path / "A.h5") as other:
        assert set(other.trials.pixel_type) == {"gabor"}
        assert other.digest == recording.digest


def test_table_of_videos_is_stable_when_an_animal_is_added(
    recording: Recording, make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    """The partner saw one of the same videos; ids of the first animal stay what they were."""
    own = make()
    content = make(seed=9)
    content["data/videos/0.npy"] = own["data/videos/6.npy"]
    length = int(recording.trials.frames[6])
    for modality in MODALITIES:
        array = np.ones_like(content[f"data/{modality}/0.npy"])
        array[..., length:] = np.nan
        content[f"data/{modality}/0.npy"] = array
    partner = prepare(zipped(content, tmp_path / "F.zip"), tmp_path / "F.h5", animal="F")
    alone = stimuli.videos_table([recording])
    both = stimuli.videos_table([recording, partner])
    assert tuple(both.columns) == stimuli.VIDEO_COLUMNS
    assert both.iloc[: len(alone)].equals(alone)
    shared = both[both["video_id"] == recording.trials.video_id[6]]
    assert list(zip(shared["animal"], shared["trial"], strict=True)) == [("A", 6), ("F", 0)]
    assert (alone["frames"].to_numpy() == recording.trials.frames).all()
    with pytest.raises(ValueError, match="at least one recording"):
        stimuli.videos_table([])


def changed_until(video: np.ndarray, *, same_id: bool) -> np.ndarray:
    """`video` with one or two frames inverted, with or without another id."""
    for frame in range(len(video)):
        other = video.copy()
        other[frame] = 255 - other[frame]
        if (identity.content_id(other) == identity.content_id(video)) is same_id:
            return other
    raise AssertionError("no single frame decides the id")


def test_near_identical_videos_of_two_animals(
    make: Any, zipped: Any, prepare: Any, tmp_path: Path
) -> None:
    """A frame differs: mostly one id all the same; where not, each id names the other."""
    video = noise(30, 20)
    versions = {
        "A": video,
        "F": changed_until(video, same_id=True),
        "J": changed_until(video, same_id=False),
    }
    stores = {}
    for seed, (animal, shown) in enumerate(versions.items()):
        content = make(seed=30 + seed)
        content["meta/trials/tiers.npy"][5] = "oracle"
        with_video(content, 5, shown)
        archive = zipped(content, tmp_path / f"{animal}.zip")
        stores[animal] = prepare(archive, tmp_path / f"{animal}.h5", animal=animal)
    tables = {
        order: stimuli.videos_table([stores[animal] for animal in order])
        for order in ("A", "AF", "FJ", "AFJ", "JFA")
    }
    ids = {animal: str(stores[animal].trials.video_id[5]) for animal in versions}
    assert ids["A"] == ids["F"] != ids["J"]
    near: dict[str, dict[str, str]] = {}
    for order, table in tables.items():
        rows = table[table["trial"] == 5].set_index("animal")
        assert rows["video_id"].to_dict() == {animal: ids[animal] for animal in order}
        near[order] = rows["near_ids"].to_dict()
        assert (table.loc[table["trial"] != 5, "near_ids"] == "").all()
    assert near["A"] == {"A": ""}
    assert near["AF"] == {"A": "", "F": ""}
    assert near["AFJ"] == near["JFA"] == {"A": ids["J"], "F": ids["J"], "J": ids["A"]}


def test_table_reads_few_pixels(
    recording: Recording, competition: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the quadrant means tell apart is never read."""
    monkeypatch.setattr(Recording, "read", lambda *arguments, **options: pytest.fail("read"))
    table = stimuli.videos_table([recording, competition])
    assert len(table) == len(recording.trials) + len(competition.trials)


def test_store_of_another_version_is_refused(recording: Recording, tmp_path: Path) -> None:
    copy = tmp_path / "old.h5"
    copy.write_bytes(recording.path.read_bytes())
    with h5py.File(copy, "a") as file:
        file.attrs["schema_version"] = 1
    with pytest.raises(ValueError, match=r"version 1.*reads version 2.*preprocess again"):
        Recording(copy)
