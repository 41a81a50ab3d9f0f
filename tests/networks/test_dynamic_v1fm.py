"""Dynamic-V1FM against its card: a slow re-computation in numpy, published counts, no gradients."""

import itertools
import math
from fnmatch import fnmatch

import numpy as np
import pytest
import torch
from torch import nn

from sensorium_models.networks import build
from sensorium_models.networks.cores import window_attention
from sensorium_models.networks.cores.video_swin import VideoSwinCore
from sensorium_models.networks.readouts.hierarchical import HierarchicalReadout, nearest_neurons

SMALL = {
    "in_channels": 1,
    "frame_shape": (9, 13),
    "state_channels": 4,
    "clip_frames": 10,
    "patch": [2, 2, 2],
    "window": [4, 3, 3],
    "embedding": 8,
    "heads": 2,
    "blocks": 2,
    "mlp_hidden": 6,
}
NEURONS = {
    **{"A": 7440, "B": 7928, "C": 8285, "D": 7671, "E": 7495},
    **{"F": 7863, "G": 7908, "H": 8202, "I": 7939, "J": 8122},
}
# Card, section 5: readouts with mean fusion, A-E then F-J.
READOUTS = [
    3267762,
    3481882,
    3638227,
    3368597,
    3291333,
    3452885,
    3473046,
    3601972,
    3486417,
    3566852,
]


def randomised(module, scale=0.5):
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=scale, generator=generator)
    return module.double().eval()


def array(parameter):
    return parameter.detach().numpy()


# The card's section 2, on tokens (T, H, W, C); sums over tokens are written as loops.


def linear(x, layer):
    return x @ array(layer.weight).T + array(layer.bias)


def erf(x):
    return np.vectorize(math.erf)(x)


def embedded(video, embedding):
    """Patches of 2 x 2 x 2 with zeros behind the end, then the only norm."""
    video = np.pad(video, [(0, size % 2) for size in video.shape])
    weight, bias = array(embedding.projection.weight)[:, 0], array(embedding.projection.bias)
    grid = [size // 2 for size in video.shape]
    tokens = np.zeros((*grid, len(bias)))
    for t, h, w in itertools.product(*map(range, grid)):
        patch = video[2 * t : 2 * t + 2, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2]
        tokens[t, h, w] = (weight * patch).sum(axis=(1, 2, 3)) + bias
    mean, variance = tokens.mean(-1, keepdims=True), tokens.var(-1, keepdims=True)
    normal = (tokens - mean) / np.sqrt(variance + 1e-5)
    return normal * array(embedding.norm.weight) + array(embedding.norm.bias)


def attended(x, attention, full_window):
    """Every token attends to those of its window, found by going through all tokens."""
    heads, channels = attention.heads, x.shape[-1]
    window = [min(w, g) for w, g in zip(full_window, x.shape[:3], strict=True)]
    shift = [w // 2 if g > w else 0 for w, g in zip(window, x.shape[:3], strict=True)]
    padded = np.pad(x, [(0, -g % w) for g, w in zip(x.shape[:3], window, strict=True)] + [(0, 0)])
    sizes = padded.shape[:3]
    rolled = np.roll(padded, [-s for s in shift], axis=(0, 1, 2))
    tokens = list(itertools.product(*map(range, sizes)))

    def region(place):
        """Slices [0, -window), [-window, -shift), [-shift, end) of each dimension."""
        return tuple(
            0 if not s or p < g - w else 1 if p < g - s else 2
            for p, g, w, s in zip(place, sizes, window, shift, strict=True)
        )

    def index(i, j):
        """Row of the table of biases: for smaller windows, that of the same rank in a full one."""
        one, other = (np.unravel_index(rank, full_window) for rank in (i, j))
        row = 0
        for p, q, size in zip(one, other, full_window, strict=True):
            row = row * (2 * size - 1) + int(p) - int(q) + size - 1
        return row

    ranks = range(math.prod(window))
    bias = array(attention.relative_bias)[[[index(i, j) for j in ranks] for i in ranks]]
    qkv = linear(rolled, attention.qkv)
    out = np.zeros_like(rolled)
    members = {}
    for place in tokens:
        members.setdefault(tuple(p // w for p, w in zip(place, window, strict=True)), []).append(
            place
        )
    width = channels // heads
    for places in members.values():
        apart = np.array([[region(p) != region(q) for q in places] for p in places])
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            query, key, value = (
                np.array([qkv[p][k * channels : (k + 1) * channels][part] for p in places])
                for k in range(3)
            )
            logits = query * width**-0.5 @ key.T + bias[..., head] - 100 * apart
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            for p, y in zip(places, weights @ value, strict=True):
                out[p][part] = y
    out = np.roll(linear(out, attention.projection), shift, axis=(0, 1, 2))
    return out[tuple(map(slice, x.shape[:3]))]


def gated(x, mlp):
    value, gate = np.split(linear(x, mlp.widen), 2, axis=-1)
    h = gate / (1 + np.exp(-gate)) * value
    weight = array(mlp.convolution.weight)[:, 0]
    padded = np.pad(h, [(1, 1)] * 3 + [(0, 0)])
    y = np.zeros_like(h) + array(mlp.convolution.bias)
    for t, i, j in itertools.product(range(3), repeat=3):
        moved = padded[t : t + h.shape[0], i : i + h.shape[1], j : j + h.shape[2]]
        y += weight[:, t, i, j] * moved
    return linear(y * 0.5 * (1 + erf(y / math.sqrt(2))), mlp.narrow)


def recomputed(core, video, state):
    x = embedded(video, core.patch_embedding)
    for block in core.blocks:
        layers = block.state_embedding.layers
        frames = np.tanh(linear(np.tanh(linear(state, layers[0])), layers[2]))
        x = (
            x
            + np.stack(
                [
                    np.concatenate([frames[2 * k], frames[2 * k + 1]])
                    for k in range(len(frames) // 2)
                ]
            )[:, None, None]
        )
        x = x + attended(x, block.attention, block.attention.window)
        x = x + gated(x, block.mlp)
    return x


@pytest.mark.parametrize(
    "changes",
    [
        {},  # the grid of 5 x 5 x 7 is padded to 8 x 6 x 9
        {"window": [8, 3, 3]},  # one window in time: it shrinks and is not shifted
        {"window": [5, 5, 4]},  # as large as the grid in time and in one direction
    ],
)
def test_features_are_those_of_the_card(changes):
    torch.manual_seed(0)
    core = randomised(VideoSwinCore(**{**SMALL, **changes}))
    assert (core.out_channels, core.out_shape, core.history_frames) == (8, (5, 7), 5)
    video = torch.randn(2, 1, 10, 9, 13, dtype=torch.float64)
    state = torch.randn(2, 10, 4, dtype=torch.float64)
    with torch.inference_mode():
        features = core(video, state)
    with_gradients = core(video, state).detach()
    for clip in range(2):
        expected = recomputed(core, video[clip, 0].numpy(), state[clip].numpy())
        expected = expected.transpose(3, 0, 1, 2)
        size = np.abs(expected).max()
        np.testing.assert_allclose(features[clip] / size, expected / size, atol=1e-5)
        np.testing.assert_allclose(with_gradients[clip] / size, expected / size, atol=1e-5)


def test_gradients_of_attention_are_those_of_the_formula(monkeypatch):
    monkeypatch.setattr(window_attention, "_WINDOWS_AT_ONCE", 2)  # and the last piece is one window
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(5, 2, 6, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)
    )
    logits = torch.randn(2, 6, 6, dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(5, 2, 6, 4, dtype=torch.float64)
    leaves = [query, key, value, logits]
    got = torch.autograd.grad((window_attention.attend(*leaves) * wanted).sum(), leaves)
    weights = torch.softmax(query @ key.transpose(2, 3) / 2 + logits, dim=-1)
    expected = torch.autograd.grad((weights @ value * wanted).sum(), leaves)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_other_lengths_and_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="serves clips of 10 frames only, not 12"):
        VideoSwinCore(**SMALL)(torch.zeros(1, 1, 12, 9, 13), torch.zeros(1, 12, 4))
    for changes, sentence in (
        ({"clip_frames": 11}, "must be a multiple of a patch's 2 frames"),
        ({"window": [4, 3]}, r"window must be three whole numbers from 1 on, not \[4, 3\]"),
        ({"embedding": 9}, "embedding .9. must be a multiple"),
        ({"blocks": 0}, "blocks must be a whole number from 1 on, not 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            VideoSwinCore(**{**SMALL, **changes})


def test_without_behaviour_nothing_is_added():
    core = VideoSwinCore(**{**SMALL, "state_channels": 0})
    assert not any("state_embedding" in name for name, _ in core.named_parameters())
    features = core(torch.zeros(1, 1, 10, 9, 13), torch.zeros(1, 10, 0))
    assert features.shape == (1, 8, 5, 5, 7)


# The card's section 3.


def bilinear(image, x, y):
    """image (C, H, W) at (x, y) in [-1, 1], corners aligned, zero beyond the edge."""
    _, height, width = image.shape
    column, row = (x + 1) / 2 * (width - 1), (y + 1) / 2 * (height - 1)
    value = np.zeros(len(image))
    for r, c in itertools.product((math.floor(row), math.floor(row) + 1), range(-1, width + 2)):
        weight = max(0, 1 - abs(row - r)) * max(0, 1 - abs(column - c))
        if weight and 0 <= r < height and 0 <= c < width:
            value += weight * image[:, r, c]
    return value


def nearest(size, wanted):
    """PyTorch's rule in float32: entry floor(i * (size / wanted))."""
    scale = np.float32(size) / np.float32(wanted)
    return [min(math.floor(np.float32(i) * scale), size - 1) for i in range(wanted)]


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def fused(readout, features, shift, scales, fusion):
    """Drive (T, N) of one clip (C, T, H, W) with shift (T, 2), in evaluation."""
    source = array(readout.source_grid)
    hidden, out = readout.position_network[0], readout.position_network[2]
    positions = np.tanh(linear(elu(linear(source, hidden)), out))
    neurons, frames = len(positions), features.shape[1]
    levels = []
    for scale in (1, *scales):
        if scale == 1:
            chosen, weights = range(neurons), array(readout.features)
        else:
            chosen = nearest(neurons, neurons // scale)
            weights = array(readout.scales[str(scale)].features)
        level = np.zeros((frames, len(chosen)))
        for t in range(frames):
            for m, n in enumerate(chosen):
                x, y = positions[n] + shift[t]
                level[t, m] = bilinear(features[:, t], x, y) @ weights[:, m]
        if scale > 1:
            level = level[:, nearest(neurons // scale, neurons)]
            first, last = readout.scales[str(scale)].refine[0], readout.scales[str(scale)].refine[2]
            level = elu(level[..., None] @ array(first.weight).T + array(first.bias))
            level = (level @ array(last.weight).T)[..., 0]
        levels.append(level)
    stacked = np.stack(levels)
    if len(levels) == 1:
        drive = stacked[0]
    elif fusion == "mean":
        drive = stacked.mean(axis=0)
    else:
        layers = readout.fusions[str(len(levels))].layers
        hidden = np.maximum(linear(stacked.mean(axis=(1, 2)), layers[0]), 0)
        gates = 1 / (1 + np.exp(-linear(hidden, layers[2])))
        drive = (gates[:, None, None] * stacked).sum(axis=0)
    return drive + array(readout.bias)


@pytest.mark.parametrize("fusion", ["mean", "adaptive"])
@pytest.mark.parametrize("scales", [[], [16], [2, 8], [4, 8, 16], [2, 4, 8, 16]])
def test_readout_is_that_of_the_card(make_facts, fusion, scales):
    torch.manual_seed(0)
    readout = HierarchicalReadout(
        facts=make_facts(neurons=37),
        in_channels=3,
        in_shape=(4, 5),
        position_hidden_units=6,
        sigma_range=0.2,
        scales=scales,
        fusion=fusion,
    )
    readout = randomised(readout)
    features = torch.randn(2, 3, 2, 4, 5, dtype=torch.float64)
    shift = 0.3 * torch.randn(2, 2, 2, dtype=torch.float64)  # some positions leave the map
    drive = readout(features, shift).detach()
    for clip in range(2):
        expected = fused(readout, features[clip].numpy(), shift[clip].numpy(), scales, fusion)
        np.testing.assert_allclose(drive[clip], expected, rtol=1e-5, atol=1e-5)


def test_pseudo_neurons_follow_the_rounding_of_float32():
    # Card, section 3: exact arithmetic would give 7860.
    assert nearest_neurons(7863, 3931)[-1] == 7861
    for neurons in NEURONS.values():
        for scale in (2, 4, 8, 16):
            few = neurons // scale
            assert nearest_neurons(neurons, few).tolist() == nearest(neurons, few)
            assert nearest_neurons(few, neurons).tolist() == nearest(few, neurons)


def test_positions_are_drawn_for_every_frame_and_all_levels_at_once(make_facts):
    torch.manual_seed(0)
    readout = HierarchicalReadout(
        facts=make_facts(neurons=32),
        in_channels=3,
        in_shape=(4, 5),
        position_hidden_units=6,
        sigma_range=0.2,
        scales=[2],
        fusion="mean",
    )
    assert readout.sigma.abs().max() <= 0.2
    features = torch.randn(1, 3, 1, 4, 5).expand(2, 3, 4, 4, 5)
    drive = readout(features)
    assert len({tuple(frame.tolist()) for frame in drive.flatten(0, 1)}) == 8
    with torch.no_grad():
        readout.sigma.zero_()
    torch.testing.assert_close(readout(features), readout.eval()(features))


@pytest.mark.parametrize("scales", [[3], [4, 2], "2_4", [2, 2]])
def test_unknown_scales_are_refused(make_facts, scales):
    with pytest.raises(ValueError, match=r"scales must be some of \[2, 4, 8, 16\], in this order"):
        HierarchicalReadout(
            facts=make_facts(),
            in_channels=3,
            in_shape=(4, 5),
            position_hidden_units=6,
            sigma_range=0.2,
            scales=scales,
            fusion="mean",
        )


@pytest.mark.parametrize(("fusion", "total"), [("mean", 36_906_001), ("adaptive", 36_907_361)])
def test_published_number_of_parameters(published_system, make_facts, fusion, total):
    system = published_system("dynamic_v1fm").of_member({"fusion": fusion})
    facts = {
        animal: make_facts(animal, neurons=neurons, frame_shape=(36, 64), frames=1)
        for animal, neurons in NEURONS.items()
    }
    encoder = build.build_encoder(system, facts, seed=42)

    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert count(encoder.core) == 2_273_488
    extra = {"mean": 0, "adaptive": 136}[fusion]
    assert [count(r) for r in encoder.readouts.values()] == [n + extra for n in READOUTS]
    assert count(encoder.shifters["F"]) == 354
    assert count(encoder) == total
    assert encoder.core.blocks[0].attention.window == (8, 7, 7)
    for block in encoder.core.blocks:
        for layer in (block.attention.qkv, block.mlp.widen, block.state_embedding.layers[0]):
            std, size = layer.weight.std().item(), layer.weight.numel()
            assert std == pytest.approx(0.02, rel=5 / math.sqrt(2 * size))
            assert not layer.bias.any()
    readout = encoder.readouts["F"]
    assert torch.unique(readout.features).tolist() == pytest.approx([1 / 224])
    assert torch.unique(readout.scales["8"].features).tolist() == pytest.approx([1 / 224])


TINY = {"core_settings": {"embedding": 8, "heads": 2, "blocks": 1, "mlp_hidden": 4}}


def test_members_are_the_published_ensemble(published_system):
    members = published_system("dynamic_v1fm").member_axes()
    assert len(members) == 31
    assert sum(name.endswith("-adaptive-seed42") for name in members) == 16
    assert "scales2_4_8-mean-seed42" in members
    assert "scales0-adaptive-seed42" in members
    assert "scales0-mean-seed42" not in members


def test_what_each_member_never_learns_is_listed_in_the_file(
    published_system, make_facts, make_clip
):
    system = published_system("dynamic_v1fm", **TINY)
    facts = {animal: make_facts(animal, neurons=32, frame_shape=(8, 10)) for animal in ("A", "B")}
    clip = make_clip(clips=1, frames=30, neurons=32, frame_shape=(8, 10))
    for name, axes in system.member_axes().items():
        member = system.of_member(axes)
        chosen = [int(s) for s in str(axes["scales"]).split("_") if s != "0"]
        assert member.readout_settings["scales"] == chosen
        assert member.readout_settings["fusion"] == axes["fusion"]
        encoder = build.build_encoder(member, facts, seed=1)
        encoder(clip).sum().backward()
        for key, parameter in encoder.named_parameters():
            listed = any(fnmatch(key, pattern) for pattern in member.no_gradient)
            of_another = key.startswith(("readouts.B", "shifters.B"))
            assert (parameter.grad is None) == (listed or of_another), (name, key)
