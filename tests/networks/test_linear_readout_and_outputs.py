"""The separable readout against plain loops, output nonlinearities, and the shifter."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium_models.networks.outputs import OUTPUTS
from sensorium_models.networks.readouts.separable import SeparableReadout
from sensorium_models.networks.shifters import MLPShifter

SETTINGS = {
    "rank": 2,
    "history_frames": 3,
    "spatial_smoothness": 0.5,
    "temporal_smoothness": 0.25,
    "weight_penalty": 0.125,
}


@pytest.fixture
def readout(make_facts):
    torch.manual_seed(0)
    readout = SeparableReadout(
        facts=make_facts(neurons=4), in_channels=2, in_shape=(3, 5), **SETTINGS
    )
    for parameter in readout.parameters():
        torch.nn.init.normal_(parameter)
    return readout


def test_drive_equals_plain_loops(readout):
    features = torch.randn(2, 2, 6, 3, 5)
    spatial, temporal, bias = (
        p.detach().double().numpy() for p in (readout.spatial, readout.temporal, readout.bias)
    )
    x = features.double().numpy()
    expected = np.zeros((2, 3, 4))
    for b in range(2):
        for t in range(3):  # frame t + 3 of the clip
            for n in range(4):
                expected[b, t, n] = bias[n] + sum(
                    temporal[n, r, k] * (spatial[n, r] * x[b, :, t + k]).sum()
                    for r in range(2)
                    for k in range(4)
                )
    with torch.no_grad():
        np.testing.assert_allclose(readout(features).numpy(), expected, atol=1e-5)


def test_penalty_equals_plain_loops(readout):
    spatial, temporal = readout.spatial.detach().numpy(), readout.temporal.detach().numpy()
    padded = np.pad(spatial, ((0, 0),) * 3 + ((1, 1),) * 2)
    laplacian = (
        4 * padded[..., 1:-1, 1:-1]
        - padded[..., :-2, 1:-1]
        - padded[..., 2:, 1:-1]
        - padded[..., 1:-1, :-2]
        - padded[..., 1:-1, 2:]
    )
    padded = np.pad(temporal, ((0, 0), (0, 0), (1, 1)))
    second = 2 * padded[..., 1:-1] - padded[..., :-2] - padded[..., 2:]
    expected = (
        0.5 * (laplacian**2).sum()
        + 0.25 * (second**2).sum()
        + 0.125 * ((spatial**2).sum() + (temporal**2).sum())
    )
    assert readout.regularizer().item() == pytest.approx(expected, rel=1e-5)


def test_linear_readout_has_no_position_to_shift(readout):
    with pytest.raises(ValueError, match="gaze shift"):
        readout(torch.zeros(1, 2, 6, 3, 5), torch.zeros(1, 3, 2))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rank": 0}, "rank"),
        ({"history_frames": -1}, "history_frames"),
        ({"weight_penalty": -0.1}, "must not be negative"),
    ],
)
def test_settings_that_cannot_work_are_refused(make_facts, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        SeparableReadout(
            facts=make_facts(), in_channels=1, in_shape=(3, 5), **{**SETTINGS, **change}
        )


def test_a_linear_nonlinear_neuron_is_recovered(make_facts):
    """Poisson responses of known filters: the fit comes close to the true rate on new stimuli."""
    random = torch.Generator().manual_seed(0)
    neurons, frames = 3, 4000
    true_space = torch.zeros(neurons, 6 * 8)
    true_space[torch.arange(neurons), torch.tensor([9, 20, 37])] = 1.0
    true_time = torch.tensor([0.0, 0.1, 0.6, 0.2])

    def simulate(frames):
        x = torch.randn(frames, 48, generator=random)
        seen = x @ true_space.T
        rate = torch.stack(
            [(seen[t : t + 4] * true_time[:, None]).sum(0) for t in range(frames - 3)]
        )
        return x.T.reshape(1, 1, 6, 8, frames).permute(0, 1, 4, 2, 3), torch.exp(rate - 1)

    video, rate = simulate(frames)
    responses = torch.poisson(rate, generator=random)
    torch.manual_seed(1)
    readout = SeparableReadout(
        facts=make_facts(neurons=neurons),
        in_channels=1,
        in_shape=(6, 8),
        **{**SETTINGS, "rank": 1},
    )
    output = OUTPUTS["exponential"]()
    with torch.no_grad():
        readout.bias.copy_(output.initial_bias(responses.mean(0)))
    optimizer = torch.optim.AdamW(readout.parameters(), lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        predicted = output(readout(video))[0]
        loss = (predicted - responses * torch.log(predicted + 1e-8)).sum()
        (loss + readout.regularizer()).backward()
        optimizer.step()
    video, rate = simulate(2000)
    with torch.no_grad():
        predicted = output(readout(video))[0]
    for n in range(neurons):
        assert np.corrcoef(predicted[:, n], rate[:, n])[0, 1] > 0.95


def test_elu_plus_one_is_the_published_output():
    drive = torch.tensor([-50.0, -1.0, 0.0, 2.5])
    torch.testing.assert_close(
        OUTPUTS["elu_plus_one"]()(drive), torch.tensor([np.exp(-50), np.exp(-1), 1, 3.5]).float()
    )
    rates = torch.tensor([0.0, 0.4])
    assert OUTPUTS["elu_plus_one"]().initial_bias(rates).tolist() == rates.tolist()


@given(st.sampled_from(sorted(OUTPUTS)), st.floats(-1e4, 1e4))
@settings(deadline=None)
def test_rates_are_finite_never_negative_and_never_fall_with_the_drive(name, drive):
    output = OUTPUTS[name]()
    x = torch.tensor([drive, drive + 1.0], requires_grad=True)
    rates = output(x)
    rates.sum().backward()
    assert torch.isfinite(rates).all()
    assert torch.isfinite(x.grad).all()
    assert rates[0] >= 0
    assert rates[1] >= rates[0]


@pytest.mark.parametrize("name", ["softplus", "exponential"])
def test_starting_bias_gives_the_mean_response(name):
    output = OUTPUTS[name]()
    rates = torch.tensor([0.01, 0.5, 3.0, 200.0])
    torch.testing.assert_close(output(output.initial_bias(rates)), rates)
    assert torch.isfinite(output.initial_bias(torch.zeros(1))).all()


def test_exponential_continues_by_its_tangent():
    output = OUTPUTS["exponential"]()
    drive = torch.tensor([-3.0, 7.9, 8.0, 10.0], requires_grad=True)
    rates = output(drive)
    top = np.exp(8.0)
    np.testing.assert_allclose(rates.detach(), [np.exp(-3), np.exp(7.9), top, 3 * top], rtol=1e-6)
    rates.sum().backward()
    np.testing.assert_allclose(drive.grad, [np.exp(-3), np.exp(7.9), top, top], rtol=1e-6)


def test_published_settings_of_outputs():
    drive = torch.tensor([-30.0, 0.0, 5.0, 280.0, 300.0])
    expected = np.log1p(np.exp(0.07 * drive.double().numpy())) / 0.07
    soft = OUTPUTS["softplus"](beta=0.07)
    np.testing.assert_allclose(soft(drive)[:4], expected[:4], rtol=1e-5)
    assert soft(drive)[4] == 300  # linear above a threshold of 20 on beta * drive
    plain = OUTPUTS["exponential"](ceiling=None, bias_starts_at="mean_response")
    np.testing.assert_allclose(plain(torch.tensor([10.0])), np.exp(10), rtol=1e-6)
    assert plain.initial_bias(drive) is drive
    for name, mistake in (
        ("softplus", {"beta": 0.0}),
        ("exponential", {"ceiling": "high"}),
        ("exponential", {"bias_starts_at": "zero"}),
    ):
        with pytest.raises(ValueError, match=next(iter(mistake))):
            OUTPUTS[name](**mistake)


def test_shifter_is_the_published_network():
    shifter = MLPShifter(hidden_units=5, hidden_layers=2)
    assert sum(p.numel() for p in shifter.parameters()) == 57
    pupil = torch.randn(3, 4, 2)
    x = pupil.double().numpy()
    for layer in shifter.layers:
        if isinstance(layer, torch.nn.Linear):
            weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
            x = np.tanh(x @ weight.T + bias)
    np.testing.assert_allclose(shifter(pupil).detach(), x, atol=1e-6)
    with pytest.raises(ValueError, match="hidden_units"):
        MLPShifter(hidden_units=0, hidden_layers=2)
