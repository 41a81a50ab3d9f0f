"""DwiseNeuro against its card: a slow re-computation in numpy, published counts, initial values."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sensorium_models.networks import build
from sensorium_models.networks.cores import dwiseneuro_blocks, dwiseneuro_evaluation
from sensorium_models.networks.cores.batch_norm import batch_normalised
from sensorium_models.networks.cores.dwiseneuro import DwiseNeuroCore
from sensorium_models.networks.cores.dwiseneuro_blocks import DropPath, ShuffleLayer
from sensorium_models.networks.readouts.grouped import GroupedReadout

SMALL = {
    "in_channels": 5,
    "frame_shape": (9, 6),
    "channels": [8, 8, 12],
    "strides": [2, 1, 2],
    "expansion": 6,
    "squeeze_reduction": 16,
    "spatial_kernel": 3,
    "temporal_kernel": 5,
    "drop_path": 0.1,
    "cortex_channels": [16, 40],
    "cortex_groups": 2,
    "cortex_drop_path": 0.1,
}
NEURONS = [7863, 7908, 8202, 7939, 8122, 7440, 7928, 8285, 7671, 7495]


def randomised(module):
    """The module in double precision with everything away from its special initial values."""
    generator = torch.Generator().manual_seed(3)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm3d):
            for tensor, low, high in (
                (part.weight, 0.5, 1.5),
                (part.bias, -0.5, 0.5),
                (part.running_mean, -0.5, 0.5),
                (part.running_var, 0.5, 2.0),
            ):
                nn.init.uniform_(tensor, low, high, generator=generator)
        elif isinstance(part, nn.Conv1d | nn.Conv3d) and part.bias is not None:
            nn.init.uniform_(part.bias, -0.5, 0.5, generator=generator)
    return module.double().eval()


# The card's sections 2.1 to 2.6, one number after the other; x is (C, T, H, W) or (C, T).


def array(parameter):
    return parameter.detach().numpy()


def silu(x):
    return x / (1 + np.exp(-x))


def batch_norm(x, norm):
    mean, variance = array(norm.running_mean), array(norm.running_var)
    shape = (-1,) + (1,) * (x.ndim - 1)
    z = (x - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + 1e-5)
    return z * array(norm.weight).reshape(shape) + array(norm.bias).reshape(shape)


def one_by_one(x, convolution):
    weight = array(convolution.weight).reshape(convolution.out_channels, -1)
    y = np.tensordot(weight, x, 1)
    if convolution.bias is not None:
        y = y + array(convolution.bias).reshape((-1,) + (1,) * (x.ndim - 1))
    return y


def grouped(x, convolution):
    groups, weight = convolution.groups, array(convolution.weight)[..., 0]
    inputs, outputs = np.split(x, groups), np.split(weight, groups)
    return np.concatenate([w @ i for w, i in zip(outputs, inputs, strict=True)])


def positions(channels, frames, height, width):
    each = 2 * math.ceil(channels / 6)
    values = np.zeros((3 * each, frames, height, width))
    for t in range(frames):
        for row in range(height):
            for column in range(width):
                for axis, p in enumerate((t, row, column)):
                    for k in range(each // 2):
                        angle = p * 10000 ** (-2 * k / each)
                        values[axis * each + k, t, row, column] = math.sin(angle)
                        values[axis * each + each // 2 + k, t, row, column] = math.cos(angle)
    return values[:channels]


def spatial(x, weight, stride):
    _, _, height, width = x.shape
    out = np.zeros((*x.shape[:2], math.ceil(height / stride), math.ceil(width / stride)))
    for row in range(out.shape[2]):
        for column in range(out.shape[3]):
            for i in range(3):
                for j in range(3):
                    y, z = row * stride + i - 1, column * stride + j - 1
                    if 0 <= y < height and 0 <= z < width:
                        out[:, :, row, column] += weight[:, 0, 0, i, j, None] * x[:, :, y, z]
    return out


def temporal(x, weight):
    out = np.zeros_like(x)
    for t in range(x.shape[1]):
        for k in range(5):
            if 0 <= t + k - 2 < x.shape[1]:
                out[:, t] += weight[:, 0, k, 0, 0, None, None] * x[:, t + k - 2]
    return out


def repeated(x, channels):
    return np.concatenate([x] * math.ceil(channels / len(x)))[:channels]


def block(x, b, stride):
    h = silu(batch_norm(one_by_one(x, b.expand), b.expand_norm))
    h = silu(batch_norm(spatial(h, array(b.spatial.weight), stride), b.spatial_norm))
    h = silu(batch_norm(temporal(h, array(b.temporal.weight)), b.temporal_norm))
    mean = h.mean(axis=(1, 2, 3), keepdims=True)
    h = h / (1 + np.exp(-one_by_one(silu(one_by_one(mean, b.squeeze)), b.excite)))
    h = batch_norm(one_by_one(h, b.project), b.project_norm)
    # Nearest neighbours: output row r of ceil(H / s) takes row floor(r * H / ceil(H / s)).
    rows, columns = (
        [r * size // math.ceil(size / stride) for r in range(math.ceil(size / stride))]
        for size in x.shape[2:]
    )
    shortcut = repeated(x[:, :, rows][:, :, :, columns], len(h))
    return h + batch_norm(shortcut, b.shortcut_norm)


def shuffled(x, groups):
    half = len(x) // groups
    out = np.empty_like(x)
    for g in range(groups):
        for j in range(half):
            out[j * groups + g] = x[g * half + j]
    return out


def recomputed(core, x):
    x = batch_norm(one_by_one(x, core.stem), core.stem_norm)
    for b, stride in zip(core.blocks, SMALL["strides"], strict=True):
        x = block(x + positions(*x.shape), b, stride)
    x = x.mean(axis=(2, 3))
    for layer in core.cortex:
        y = shuffled(silu(batch_norm(grouped(x, layer.convolution), layer.norm)), 2)
        x = y + batch_norm(repeated(x, len(y)), layer.shortcut_norm)
    return x


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(1)
    core = randomised(DwiseNeuroCore(**SMALL))
    inputs = torch.randn(2, 5, 7, 9, 6, dtype=torch.float64)
    return core, inputs, np.stack([recomputed(core, window) for window in inputs.numpy()])


def test_features_are_those_of_the_card(small):
    core, inputs, expected = small
    with torch.inference_mode():
        features = core(inputs)
    assert features.shape == (2, 40, 7, 1, 1)
    np.testing.assert_allclose(features[..., 0, 0], expected, rtol=1e-5, atol=1e-5)


def test_all_ways_of_computing_agree(small, monkeypatch):
    core, inputs, expected = small
    # With gradients, nothing is folded, joined or cut into pieces.
    np.testing.assert_allclose(core(inputs).detach()[..., 0, 0], expected, rtol=1e-5, atol=1e-5)
    # Uneven pieces of hidden channels.
    monkeypatch.setattr(dwiseneuro_evaluation, "_CHANNELS_TOGETHER", 5)
    monkeypatch.setattr(dwiseneuro_evaluation, "_HIDDEN_AT_ONCE", 1)
    with torch.no_grad():
        np.testing.assert_allclose(core(inputs)[..., 0, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows_first", [False, True], ids=["as on a GPU", "as on a CPU"])
@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("frame_shape", [(9, 6), (8, 12)])
def test_joining_and_folding_layers_changes_nothing(blocks, frame_shape, rows_first):
    torch.manual_seed(2)
    core = randomised(DwiseNeuroCore(**SMALL))
    inputs = torch.randn(2, 5, 4, *frame_shape, dtype=torch.float64)
    x = dwiseneuro_blocks.pointwise(inputs.permute(0, 2, 3, 4, 1), core.stem)
    x = batch_normalised(x, core.stem_norm)
    for b in core.blocks[:blocks]:
        x = b(dwiseneuro_blocks.with_positions(x))
    expected = x.mean(dim=(2, 3)).detach()

    def evaluated(seen, **autocast):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, **autocast):
            shape = tuple(seen.shape[2:])
            return dwiseneuro_evaluation.EvaluatedBlocks(
                core.stem, core.stem_norm, core.blocks[:blocks], shape=shape, rows_first=rows_first
            )(seen)

    torch.testing.assert_close(evaluated(inputs, enabled=False), expected)
    otherwise = inputs.movedim(1, -1).contiguous().movedim(-1, 1)
    torch.testing.assert_close(evaluated(otherwise, enabled=False), expected)
    core.float()
    # Some 20 roundings of 2^-9 each, in numbers of the size of the largest.
    error = (evaluated(inputs.float(), enabled=True).double() - expected).abs().max()
    assert error < 20 * 2**-9 * expected.abs().max()


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_thinned_maps_are_nearest_neighbours(stride):
    x = torch.randn(2, 3, 12, 24, 5)
    for height, width in ((12, 24), (11, 24), (12, 7), (1, 1)):
        part = x[:, :, :height, :width]
        size = (3, math.ceil(height / stride), math.ceil(width / stride))
        nearest = nn.functional.interpolate(part.movedim(-1, 1), size=size, mode="nearest")
        assert torch.equal(dwiseneuro_blocks.thinned(part, stride).movedim(-1, 1), nearest)


def test_training_uses_statistics_of_the_batch(small):
    core, _, _ = small
    b = core.blocks[1]
    x = torch.randn(3, 4, 5, 6, 8, dtype=torch.float64)
    b.train()
    b.drop_path.eval()
    y = b(x)
    b.eval()

    def normal(values, norm):
        z = (values - values.mean((0, 2, 3, 4), keepdim=True)) / torch.sqrt(
            values.var((0, 2, 3, 4), unbiased=False, keepdim=True) + 1e-5
        )
        return z * norm.weight[:, None, None, None] + norm.bias[:, None, None, None]

    z = x.movedim(-1, 1)
    h = nn.functional.silu(normal(b.expand(z), b.expand_norm))
    h = nn.functional.silu(normal(b.spatial(h), b.spatial_norm))
    h = nn.functional.silu(normal(b.temporal(h), b.temporal_norm))
    gate = b.excite(nn.functional.silu(b.squeeze(h.mean((2, 3, 4), keepdim=True)))).sigmoid()
    expected = normal(b.project(h * gate), b.project_norm)
    shortcut = torch.cat([z, z], dim=1)[:, :12]
    expected = expected + normal(shortcut, b.shortcut_norm)
    torch.testing.assert_close(y.movedim(-1, 1), expected)


def test_readout_is_that_of_the_card(make_facts):
    readout = GroupedReadout(
        facts=make_facts(neurons=5), in_channels=8, in_shape=(1, 1), groups=2, dropout=0.4
    )
    readout = randomised(readout)
    assert readout.convolution.out_channels == 6  # one dead output
    features = torch.randn(2, 8, 3, 1, 1, dtype=torch.float64)
    drive = readout(features)
    weight, bias = array(readout.convolution.weight)[..., 0], array(readout.convolution.bias)
    assert drive.shape == (2, 3, 5)
    for neuron in range(5):
        group = slice(0, 4) if neuron < 3 else slice(4, 8)
        expected = features.numpy()[:, group, :, 0, 0].transpose(0, 2, 1) @ weight[neuron]
        np.testing.assert_allclose(drive.detach()[..., neuron], expected + bias[neuron], rtol=1e-9)
    drive.sum().backward()
    assert not readout.convolution.weight.grad[5].any()


def test_dropout_takes_whole_features_over_all_steps(make_facts):
    torch.manual_seed(0)
    readout = GroupedReadout(
        facts=make_facts(neurons=1), in_channels=1000, in_shape=(1, 1), groups=1, dropout=0.4
    )
    nn.init.ones_(readout.convolution.weight)
    drive = readout(torch.ones(4, 1000, 3, 1, 1))
    torch.testing.assert_close(drive[:, 0], drive[:, 2])
    kept = drive[:, 0, 0] * 0.6  # what is left is scaled by 1 / (1 - p)
    # 5 standard deviations of a binomial count
    assert (kept - 600).abs().max() < 5 * math.sqrt(1000 * 0.4 * 0.6)
    assert len(set(kept.tolist())) > 1


def test_positions_are_sines_then_cosines_and_the_last_cosines_are_cut():
    encoding = dwiseneuro_blocks.positional_encoding(64, 16, 4, 5).numpy()
    # Channels 0..21 time, 22..43 row, 44..63 column, of which two of eleven cosines are missing.
    expected = positions(64, 16, 4, 5).transpose(1, 2, 3, 0)
    np.testing.assert_allclose(encoding, expected, atol=1e-6)
    assert encoding[3, 0, 0, 0] == pytest.approx(math.sin(3))
    assert encoding[3, 0, 0, 11] == pytest.approx(math.cos(3))


def test_shuffle_interleaves_the_halves():
    layer = ShuffleLayer(in_channels=8, out_channels=8, groups=2, drop_path=0.0).eval()
    with torch.no_grad():
        layer.convolution.weight.zero_()
        layer.norm.bias.copy_(torch.arange(8.0))
        layer.shortcut_norm.weight.zero_()
        y = layer(torch.zeros(1, 1, 8))[0, 0]
    expected = nn.functional.silu(torch.tensor([0.0, 4, 1, 5, 2, 6, 3, 7]))
    torch.testing.assert_close(y, expected)


def test_drop_path_drops_whole_clips_and_keeps_the_mean():
    torch.manual_seed(0)
    path = DropPath(0.2)
    y = path(torch.ones(10_000, 2, 3))
    assert set(y.flatten().tolist()) == {0.0, 1.25}
    assert (y == y[:, :1, :1]).all()
    assert y.mean().item() == pytest.approx(1, abs=5 * 0.5 / math.sqrt(10_000))
    assert torch.equal(path.eval()(torch.ones(3)), torch.ones(3))


@pytest.mark.parametrize(
    ("variant", "core_parameters"), [("basic", 3_673_404), ("distilled", 3_075_736)]
)
def test_published_number_of_parameters(published_system, make_facts, variant, core_parameters):
    system = published_system("dwiseneuro").of_member({"variant": variant})
    facts = make_facts("F", neurons=7863, frame_shape=(36, 64), frames=1)
    encoder = build.build_encoder(system, {"F": facts}, seed=1)

    def count(module):
        return sum(p.numel() for p in module.parameters())

    cortex = count(encoder.core.cortex)
    assert cortex == 5_402_624
    assert count(encoder.core) - cortex == core_parameters
    assert count(encoder.readouts) == 16_113_336
    # A readout has 2048 weights and a bias for every output, which come in pairs.
    ten = sum(2049 * 2 * math.ceil(neurons / 2) for neurons in NEURONS)
    assert ten == 161_580_042
    totals = {"basic": 170_656_070, "distilled": 170_058_402}
    assert core_parameters + cortex + ten == totals[variant]
    drops = [b.drop_path.probability for b in encoder.core.blocks]
    np.testing.assert_allclose(drops, [0.1 * i / 9 for i in range(9)])
    for name, part in encoder.named_modules():
        if isinstance(part, nn.Conv1d | nn.Conv3d):
            fan_out = math.prod(part.kernel_size) * part.out_channels // part.groups
            std, size = part.weight.std().item(), part.weight.numel()
            # 5 standard deviations of the deviation of a normal sample
            assert std == pytest.approx(math.sqrt(2 / fan_out), rel=5 / math.sqrt(2 * size)), name
            assert part.bias is None or not part.bias.any()
    # A silent network's rate, softplus with beta 0.07: the bias does not start at mean responses.
    assert encoder.output(torch.zeros(1)).item() == pytest.approx(math.log(2) / 0.07)


MISTAKES = {
    "strides": ({"strides": [1, 1]}, "strides has 2 entries and channels 3"),
    "kernel": ({"spatial_kernel": 4}, "spatial_kernel must be odd"),
    "groups": ({"cortex_groups": 3}, "must be multiples of cortex_groups"),
    "expansion": ({"expansion": 0}, "expansion must be a whole number from 1 on, not 0"),
    "channels": ({"channels": []}, "channels must be a list of whole numbers"),
    "drop": ({"cortex_drop_path": 1.0}, "drop-path probability"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_impossible_settings_end_in_a_sentence(mistake):
    changes, sentence = MISTAKES[mistake]
    with pytest.raises(ValueError, match=sentence):
        DwiseNeuroCore(**{**SMALL, **changes})


def test_readout_refuses_what_it_has_no_use_for(make_facts):
    settings = {"facts": make_facts(), "in_channels": 8, "groups": 2, "dropout": 0.4}
    with pytest.raises(ValueError, match="must average space away: features are 2 x 3"):
        GroupedReadout(**settings, in_shape=(2, 3))
    readout = GroupedReadout(**settings, in_shape=(1, 1))
    with pytest.raises(ValueError, match="no positions"):
        readout(torch.zeros(1, 8, 2, 1, 1), torch.zeros(1, 2, 2))


def test_recomputing_blocks_changes_nothing():
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        core = DwiseNeuroCore(**{**SMALL, "drop_path": 0.5}, recompute_blocks=recompute).train()
        x = torch.randn(3, SMALL["in_channels"], 4, *SMALL["frame_shape"])
        torch.manual_seed(1)
        features = core(x)
        features.square().sum().backward()
        gradients = [parameter.grad for parameter in core.parameters()]
        results.append([features.detach(), *gradients, *core.buffers()])
    assert all(torch.equal(once, again) for once, again in zip(*results, strict=True))
