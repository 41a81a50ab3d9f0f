"""The rotation-equivariant core and the ConvGRU against loops written from their model card."""

import math

import numpy as np
import pytest
import torch

from sensorium_models.networks.cores.conv_gru import ConvGRU, EquivariantGRUCore
from sensorium_models.networks.cores.rotation_equivariant import (
    RotationEquivariantCore,
    group_sparsity,
)

PUBLISHED = {
    "features": 8,
    "rotation_steps": 8,
    "kernels": [9, 7, 7, 7],
    "batch_norm_momentum": 0.9,
    "group_sparsity": 500_000.0,
    "smoothness": 500.0,
}
SMALL = {**PUBLISHED, "features": 2, "kernels": [5, 3, 3]}


def small_gru_core(**changes):
    torch.manual_seed(0)
    core = EquivariantGRUCore(
        in_channels=2,
        frame_shape=(8, 9),
        **{**SMALL, "gru_input_kernel": 3, "gru_hidden_kernel": 5, **changes},
    )
    for norm in core.frame_core.norms:  # running statistics as after some training
        torch.nn.init.normal_(norm.norm.running_mean)
        torch.nn.init.uniform_(norm.norm.running_var, 0.5, 2)
        torch.nn.init.normal_(norm.norm.weight)
        torch.nn.init.normal_(norm.norm.bias)
    for convolution in core.gru.children():
        torch.nn.init.normal_(convolution.bias)
    return core.eval()


def functions_by_hand(k):
    """Card section 2: enumeration by type and rank, pixel by pixel."""
    x = 2 * math.sqrt(k) * (1 - 1 / (2 * k))
    v = np.linspace(-x, x, 2 * k)
    functions, types = [], []
    for rank in range(k):
        mus = sorted({abs(m) for m in range(-rank, rank + 1, 2)})
        for mu in mus:
            for kind in ["z"] if mu == 0 else ["r", "i"]:
                nu = (rank - mu) // 2
                image = np.zeros((2 * k, 2 * k))
                for row in range(2 * k):
                    for column in range(2 * k):
                        r2 = v[row] ** 2 + v[column] ** 2
                        theta = math.atan2(v[row], v[column])
                        g = math.exp(-(v[row] ** 2) / 4) * math.exp(-(v[column] ** 2) / 4)
                        total = 0.0
                        for j in range(nu + 1):
                            numerator = (
                                math.gamma(mu + nu + 1) * math.gamma(nu + 1) * (-2) ** (nu - j)
                            )
                            denominator = (
                                math.gamma(mu + 1 + j) * math.gamma(1 + j) * math.gamma(nu + 1 - j)
                            )
                            total += numerator / denominator * r2**j
                        angular = math.sin(mu * theta) if kind == "i" else math.cos(mu * theta)
                        image[row, column] = g * r2 ** (mu / 2) * total * angular
                functions.append(image / math.sqrt((image**2).sum()))
                types.append((kind, mu))
    return np.array(functions), types


def kernels_by_hand(coefficients, k, features, first):
    """Rotate, mix at twice the size, roll, concatenate, sum 2 x 2; (8 F, C, k, k)."""
    functions, types = functions_by_hand(k)
    blocks = []
    for i in range(8):
        a = 2 * math.pi * i / 8
        rotated = np.zeros_like(coefficients)
        for n, (kind, mu) in enumerate(types):
            if kind == "z":
                rotated[n] = coefficients[n]
            elif kind == "r":
                rotated[n] = (
                    math.cos(mu * a) * coefficients[n] + math.sin(mu * a) * coefficients[n + 1]
                )
            else:
                rotated[n] = (
                    -math.sin(mu * a) * coefficients[n - 1] + math.cos(mu * a) * coefficients[n]
                )
        big = np.einsum("ayx,aco->ocyx", functions, rotated)  # (F, C, 2 k, 2 k)
        if not first:
            big = np.roll(big, features * i, axis=1)
        blocks.append(big.reshape(*big.shape[:2], k, 2, k, 2).sum(axis=(3, 5)))
    return np.concatenate(blocks)


def correlate(x, kernels, bias, padding):
    """Plain cross-correlation of (C, H, W) with (O, C, k, k)."""
    k = kernels.shape[-1]
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    rows, columns = x.shape[1] - k + 1, x.shape[2] - k + 1
    y = np.zeros((len(kernels), rows, columns))
    for i in range(rows):
        for j in range(columns):
            patch = x[:, i : i + k, j : j + k]
            y[:, i, j] = (kernels * patch).sum(axis=(1, 2, 3)) + bias
    return y


def double(parameter):
    return parameter.detach().double().numpy()


def frame_by_hand(x, core):
    """The two-dimensional core on one frame (C, H, W)."""
    for layer, (convolution, norm) in enumerate(zip(core.convolutions, core.norms, strict=True)):
        k = SMALL["kernels"][layer]
        kernels = kernels_by_hand(double(convolution.coefficients), k, 2, layer == 0)
        x = correlate(x, kernels, 0.0, 0 if layer == 0 else k // 2)
        for channel in range(16):  # channel = rotation * 2 + feature
            feature = channel % 2
            mean, var = norm.norm.running_mean[feature], norm.norm.running_var[feature]
            gain, bias = norm.norm.weight[feature], norm.norm.bias[feature]
            x[channel] = (x[channel] - mean.item()) / np.sqrt(
                var.item() + 1e-5
            ) * gain.item() + bias.item()
        if layer < 2:
            x = np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)
    return x


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru_by_hand(frames, gru):
    def gate(name, x):
        convolution = getattr(gru, name)
        padding = convolution.kernel_size[0] // 2
        return correlate(x, double(convolution.weight), double(convolution.bias), padding)

    h, states = np.zeros_like(frames[0]), []
    for x in frames:
        u = sigmoid(gate("update_gate_input", x) + gate("update_gate_hidden", h))
        r = sigmoid(gate("reset_gate_input", x) + gate("reset_gate_hidden", h))
        c = np.tanh(gate("out_gate_input", x) + gate("out_gate_hidden", h * r))
        h = h * (1 - u) + c * u
        states.append(h)
    return np.array(states)


@pytest.mark.parametrize("checkpoint_frames", [None, 2])
def test_forward_equals_the_card_in_plain_numpy(checkpoint_frames):
    core = small_gru_core(gru_checkpoint_frames=checkpoint_frames)
    x = torch.randn(2, 2, 3, 8, 9)
    got = core(x).detach().numpy()
    assert got.shape == (2, 16, 3, 4, 5)
    assert core.out_shape == (4, 5)
    for clip in range(2):
        frames = [frame_by_hand(double(x[clip, :, t]), core.frame_core) for t in range(3)]
        expected = gru_by_hand(frames, core.gru)
        np.testing.assert_allclose(got[clip].swapaxes(0, 1), expected, rtol=1e-5, atol=1e-5)


def test_published_kernels_equal_the_card():
    """Full size, once: sizes 9 and 7, with the roll, to float32 rounding of sums of 45 terms."""
    torch.manual_seed(42)
    core = RotationEquivariantCore(in_channels=3, frame_shape=(36, 64), **PUBLISHED)
    for layer, k in ((0, 9), (1, 7)):
        convolution = core.convolutions[layer]
        expected = kernels_by_hand(double(convolution.coefficients), k, 8, layer == 0)
        np.testing.assert_allclose(double(convolution.kernels()), expected, atol=2e-6)
    assert core.out_shape == (28, 56)


def test_initial_penalties_of_the_published_seed():
    """Drawn in the published order, seed 42 gives the card's initial values (section 4)."""
    torch.manual_seed(42)
    core = RotationEquivariantCore(in_channels=3, frame_shape=(36, 64), **PUBLISHED)
    kernels = [convolution.kernels() for convolution in core.convolutions]
    assert 500_000 * group_sparsity(kernels[1:]).item() == pytest.approx(438_990, abs=0.5)
    assert 500 * core.roughness(kernels[0]).item() == pytest.approx(5_572, abs=0.5)
    assert core.regularizer().item() == pytest.approx(444_563, abs=1)


def test_penalty_by_hand():
    core = small_gru_core().frame_core
    kernels = [double(convolution.kernels()) for convolution in core.convolutions]
    norms = []
    for layer in kernels[1:]:
        norms.append(np.mean([np.sqrt((k**2).sum()) for out in layer for k in out]))
    first = kernels[0].reshape(-1, 1, 5, 5)
    laplace = np.array([[[[0, -1, 0], [-1, 4, -1], [0, -1, 0]]]])
    rough = sum((correlate(k, laplace, 0.0, 1) ** 2).sum() for k in first)
    expected = 500_000 * np.mean(norms) + 500 * rough / (first**2).sum()
    assert core.regularizer().item() == pytest.approx(expected, rel=1e-5)


def test_a_quarter_turn_of_the_frame_turns_features_and_moves_them_by_two_rotations():
    torch.manual_seed(1)
    core = RotationEquivariantCore(in_channels=1, frame_shape=(11, 11), **SMALL).eval()
    x = torch.randn(1, 1, 1, 11, 11)
    with torch.no_grad():
        plain = core(x)[0, :, 0].unflatten(0, (8, 2))
        turned = core(x.rot90(1, (3, 4)))[0, :, 0].unflatten(0, (8, 2))
    candidates = [plain.rot90(1, (2, 3)).roll(shift, dims=0) for shift in (2, -2)]
    distances = [float((turned - candidate).abs().max()) for candidate in candidates]
    assert min(distances) < 1e-5 < max(distances)


def test_batch_norm_pools_rotations_and_forgets_nine_tenths():
    torch.manual_seed(2)
    core = RotationEquivariantCore(in_channels=1, frame_shape=(6, 7), **SMALL).train()
    x = torch.randn(3, 1, 2, 6, 7)
    core(x)
    kernels = kernels_by_hand(double(core.convolutions[0].coefficients), 5, 2, first=True)
    maps = np.array(
        [correlate(double(x[b, :, t]), kernels, 0.0, 0) for b in range(3) for t in range(2)]
    ).reshape(6, 8, 2, -1)
    for feature in range(2):
        values = maps[:, :, feature].ravel()
        norm = core.norms[0].norm
        assert norm.running_mean[feature].item() == pytest.approx(0.9 * values.mean(), abs=1e-6)
        assert norm.running_var[feature].item() == pytest.approx(
            0.1 + 0.9 * values.var(ddof=1), rel=1e-5
        )


def test_checkpointing_changes_neither_values_nor_gradients():
    results = []
    for checkpoint_frames in (None, 1, 3):
        torch.manual_seed(3)
        gru = ConvGRU(
            channels=3, input_kernel=3, hidden_kernel=3, checkpoint_frames=checkpoint_frames
        )
        x = torch.randn(2, 3, 5, 4, 6, requires_grad=True)
        states = gru(x)
        states.square().sum().backward()
        results.append([states.detach(), x.grad, *(p.grad for p in gru.parameters())])
    for other in results[1:]:
        for one, same in zip(results[0], other, strict=True):
            torch.testing.assert_close(one, same)


def test_gru_is_drawn_again_after_the_readouts():
    torch.manual_seed(5)
    equivariant = RotationEquivariantCore(in_channels=2, frame_shape=(8, 9), **SMALL)
    after = torch.randn(3)
    torch.manual_seed(5)
    core = EquivariantGRUCore(
        in_channels=2, frame_shape=(8, 9), **SMALL, gru_input_kernel=3, gru_hidden_kernel=3
    )
    # Making the GRU has not moved the random stream of what comes next.
    assert torch.equal(torch.randn(3), after)
    torch.testing.assert_close(
        core.frame_core.convolutions[2].coefficients, equivariant.convolutions[2].coefficients
    )
    before = core.gru.out_gate_input.weight.clone()
    torch.manual_seed(6)
    core.draw_after_readouts()
    assert not torch.equal(core.gru.out_gate_input.weight, before)
    fan = 2 * 16 * 9  # Xavier, gain 1: variance 2 / (fan in + fan out)
    assert core.gru.out_gate_input.weight.std().item() == pytest.approx(math.sqrt(2 / fan), rel=0.1)
    assert not core.gru.out_gate_input.bias.any()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kernels": [4, 3]}, "kernels must list two or more odd sizes"),
        ({"kernels": [11, 3]}, "kernels: the first of 11 pixels"),
        ({"features": 0}, "features must be a whole number"),
        ({"batch_norm_momentum": 2}, "batch_norm_momentum"),
        ({"group_sparsity": -1}, "must not be negative"),
        ({"gru_hidden_kernel": 2}, "hidden_kernel must be an odd number"),
        ({"gru_checkpoint_frames": 0}, "checkpoint_frames must be a whole number"),
    ],
)
def test_settings_are_checked(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        small_gru_core(**changes)
