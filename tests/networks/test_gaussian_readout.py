"""The Gaussian readout against loops written from its model card."""

import numpy as np
import pytest
import torch

from sensorium_models.networks.readouts.gaussian import GaussianReadout, source_grid

SETTINGS = {
    "positions": "cortex",
    "position_hidden_units": 6,
    "sigma_range": 1.0,
    "feature_penalty": 0.0,
}


@pytest.fixture
def make_readout(make_facts):
    def make(neurons=5, seed=0, in_channels=3, facts=None, **changes):
        torch.manual_seed(seed)
        facts = facts or make_facts(
            neurons=neurons, initial_positions=np.linspace(-1, 1, 2 * neurons).reshape(-1, 2)
        )
        readout = GaussianReadout(
            facts=facts, in_channels=in_channels, in_shape=(4, 6), **{**SETTINGS, **changes}
        )
        torch.nn.init.normal_(readout.features)
        torch.nn.init.normal_(readout.bias)
        return readout

    return make


def bilinear(plane, x, y):
    """Value at (x, y), -1 and 1 on the centres of the outermost pixels; zero outside the plane."""
    height, width = plane.shape
    column, row = (x + 1) / 2 * (width - 1), (y + 1) / 2 * (height - 1)
    value = 0.0
    for i in (int(np.floor(row)), int(np.floor(row)) + 1):
        for j in (int(np.floor(column)), int(np.floor(column)) + 1):
            if 0 <= i < height and 0 <= j < width:
                value += plane[i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
    return value


def drive_by_loops(readout, features, positions):
    """(B, T, N) from features (B, C, T, H, W) and positions (B, T, N, 2)."""
    weights = readout.features.detach().double().numpy()
    bias = readout.bias.detach().double().numpy()
    clips, channels, frames = features.shape[:3]
    drive = np.zeros((clips, frames, len(bias)))
    for b in range(clips):
        for t in range(frames):
            for n in range(len(bias)):
                x, y = positions[b, t, n]
                drive[b, t, n] = bias[n] + sum(
                    weights[c, n] * bilinear(features[b, c, t], x, y) for c in range(channels)
                )
    return drive


def mean_positions_by_hand(readout, coordinates):
    xy = coordinates[:, :2] - coordinates[:, :2].mean(axis=0)
    s = xy / np.abs(xy).max()
    first, _, second = readout.position_network
    hidden = s @ first.weight.detach().double().numpy().T + first.bias.detach().double().numpy()
    hidden = np.where(hidden > 0, hidden, np.exp(np.minimum(hidden, 0)) - 1)
    out = hidden @ second.weight.detach().double().numpy().T + second.bias.detach().double().numpy()
    return np.tanh(out)


def test_evaluation_equals_plain_loops_with_shift_beyond_the_edge(make_readout, make_facts):
    facts = make_facts(neurons=5)
    readout = make_readout(facts=facts).eval()
    features = torch.randn(2, 3, 4, 4, 6)
    shift = torch.empty(2, 4, 2).uniform_(-1, 1)
    shift[0, 0] = torch.tensor([-1.0, 1.0])
    mu = mean_positions_by_hand(readout, facts.coordinates)
    positions = mu + shift.double().numpy()[:, :, None]
    assert (np.abs(positions) > 1).any()
    with torch.no_grad():
        got = readout(features, shift).numpy()
        unshifted = readout(features).numpy()
    features = features.double().numpy()
    np.testing.assert_allclose(got, drive_by_loops(readout, features, positions), atol=1e-5)
    positions = np.broadcast_to(mu, positions.shape)
    np.testing.assert_allclose(unshifted, drive_by_loops(readout, features, positions), atol=1e-5)


def test_training_samples_clamps_then_shifts(make_readout, make_facts):
    facts = make_facts(neurons=4)
    readout = make_readout(facts=facts).train()
    features, shift = torch.randn(2, 3, 5, 4, 6), torch.empty(2, 5, 2).uniform_(-1, 1)
    torch.manual_seed(7)
    with torch.no_grad():
        got = readout(features, shift).numpy()
    torch.manual_seed(7)
    noise = torch.randn(10, 4, 2).double().numpy()  # one draw per frame of every clip and neuron
    sigma, mu = (
        readout.sigma.detach().double().numpy(),
        mean_positions_by_hand(readout, facts.coordinates),
    )
    positions = np.zeros((10, 4, 2))
    for m in range(10):
        for n in range(4):
            for c in range(2):
                offset = sum(sigma[n, c, d] * noise[m, n, d] for d in range(2))
                positions[m, n, c] = min(max(offset + mu[n, c], -1), 1)
    positions = positions.reshape(2, 5, 4, 2) + shift.double().numpy()[:, :, None]
    expected = drive_by_loops(readout, features.double().numpy(), positions)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_sampled_positions_have_the_learned_covariance(make_readout):
    readout = make_readout(neurons=2).train()
    with torch.no_grad():
        readout.sigma.copy_(0.05 * torch.tensor([[[1.0, 0.5], [0.0, 2.0]], [[1.0, 0], [1, 1]]]))
        frames = 20_000
        drawn = readout.sampled_positions(frames) - readout.mean_positions()
        expected = readout.sigma @ readout.sigma.transpose(1, 2)
    assert (drawn[0] != drawn[1]).all()  # independent over frames
    for n in range(2):
        covariance = torch.cov(drawn[:, n].T)
        # Entries of a sample covariance are known to about sqrt(2 / frames) of their size.
        torch.testing.assert_close(
            covariance, expected[n], rtol=0, atol=5 * np.sqrt(2 / frames) * expected[n].max().item()
        )
    assert abs(np.corrcoef(drawn[:, 0, 0], drawn[:, 1, 0])[0, 1]) < 5 / np.sqrt(frames)


def test_evaluation_is_deterministic_and_training_is_not(make_readout):
    readout, features = make_readout(), torch.randn(1, 3, 4, 4, 6)
    with torch.no_grad():
        assert not torch.equal(readout.train()(features), readout(features))
        assert torch.equal(readout.eval()(features), readout(features))


def test_published_start_and_size(make_facts):
    facts = make_facts(neurons=7863)
    readout = GaussianReadout(
        facts=facts,
        in_channels=128,
        in_shape=(18, 46),
        **{**SETTINGS, "position_hidden_units": 30},
    )
    assert sum(p.numel() for p in readout.parameters()) == 1_045_931
    assert (readout.features == 1 / 128).all()
    assert readout.sigma.abs().max() <= 1
    # Uniform on (-1, 1): mean 0, variance 1/3, each known to a few per cent of n = 31,452 draws.
    assert readout.sigma.mean().item() == pytest.approx(0, abs=5 * np.sqrt(1 / 3 / 31_452))
    assert readout.sigma.var().item() == pytest.approx(1 / 3, rel=0.03)
    for layer, fan in ((readout.position_network[0], 2), (readout.position_network[2], 30)):
        assert layer.weight.abs().max() <= 1 / np.sqrt(fan)
    assert readout.regularizer().item() == 0
    readout.feature_penalty = 0.5
    assert readout.regularizer().item() == pytest.approx(0.5 * 7863, rel=1e-4)


def test_source_grid_is_centred_per_column_and_divided_by_one_number():
    grid = source_grid(np.array([[0.0, 10, 7], [4, 10, 8], [8, 13, 9]]))
    assert grid.dtype == np.float32
    np.testing.assert_allclose(grid, [[-1, -0.25], [0, -0.25], [1, 0.5]])
    np.testing.assert_array_equal(source_grid(np.array([[3.0, 4, 5]])), [[0, 0]])


def test_free_positions_start_as_asked_and_stay_on_the_map(make_readout):
    random = make_readout(neurons=400, positions="random")
    assert random.mu.shape == (400, 2)
    assert 0.45 < random.mu.abs().max().item() <= 0.5
    placed = make_readout(neurons=5, positions="response_triggered_average")
    np.testing.assert_allclose(
        placed.mean_positions().detach(), np.linspace(-1, 1, 10).reshape(5, 2), atol=1e-7
    )
    assert not hasattr(placed, "source_grid")
    with torch.no_grad():
        placed.mu[0, 0] = 1.5
    placed.train().mean_positions()[0, 0].backward()
    assert placed.mu[0, 0].item() == 1  # as the original does: the parameter itself is clamped
    assert placed.mu.grad[0, 0].item() == 1  # so a neuron at the edge can come back
    with torch.no_grad():
        placed.mu[0, 0] = 1.5
    assert placed.eval().mean_positions()[0, 0].item() == 1
    assert placed.mu[0, 0].item() == 1.5  # evaluation changes no weight


@pytest.mark.parametrize(
    ("facts", "settings", "sentence"),
    [
        ({"coordinates": None}, {}, "animal A has no cortical coordinates"),
        ({}, {"positions": "retina"}, "positions must be one of cortex, random, response_"),
        ({}, {"positions": "response_triggered_average"}, "needs initial positions"),
        (
            {"initial_positions": np.zeros((4, 2))},
            {"positions": "response_triggered_average"},
            r"shape \(5, 2\), not \(4, 2\)",
        ),
        ({}, {"position_hidden_units": 0}, "position_hidden_units"),
        ({}, {"sigma_range": -1.0}, "must not be negative"),
    ],
)
def test_settings_that_cannot_work_are_refused(make_facts, make_readout, facts, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_readout(facts=make_facts(**facts), **settings)
