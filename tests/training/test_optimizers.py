"""Groups, missing gradients, clipping and averaged weights, against what they are defined by."""

import copy

import numpy as np
import pytest
import torch
from schedulefree import AdamWScheduleFree
from torch import nn

from sensorium_models.recipes import (
    AutoClipping,
    NormClipping,
    Optimizer,
    ScheduleFreeSchedule,
    WarmUpCosineSchedule,
)
from sensorium_models.training.averages import MovingAverage, judged
from sensorium_models.training.optimizers import (
    Clipper,
    build_optimizer,
    fill_missing_gradients,
    set_rate,
)

COSINE = WarmUpCosineSchedule(
    kind="warm_up_cosine", max_epochs=2, warm_up_epochs=1, minimum_learning_rate=0
)
FREE = ScheduleFreeSchedule(
    kind="schedule_free",
    max_epochs=9,
    patience_epochs=2,
    warm_up_steps=3,
    averaging_power=0.0,
    averaging_rate_power=2.0,
)


def settings(kind: str = "adamw", **changes: object) -> Optimizer:
    content = {
        "kind": kind,
        "learning_rate": 0.01,
        "betas": (0.9, 0.999),
        "epsilon": 1e-8,
        "weight_decay": 0.5,
    }
    return Optimizer.model_validate({**content, **changes})


class Network(nn.Module):
    """A core that normalises its batch, and two readouts of which a step uses one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.core = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.readouts = nn.ModuleDict({"A": nn.Linear(4, 2), "B": nn.Linear(4, 2)})

    def learn(self, animal: str = "A", seed: int = 0) -> None:
        inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
        self.readouts[animal](self.core(inputs)).square().sum().backward()


def test_parts_have_rates_and_decays_of_their_own() -> None:
    network = Network()
    part = {"core": {"learning_rate": 0.04, "weight_decay": 0.1}}
    optimizer = build_optimizer(settings(parts=part), COSINE, network)
    rest, core = optimizer.param_groups
    assert {id(p) for p in core["params"]} == {id(p) for p in network.core.parameters()}
    assert len(rest["params"]) == 4
    assert (rest["weight_decay"], core["weight_decay"]) == (0.5, 0.1)
    set_rate(optimizer, 0.003)
    assert rest["lr"] == 0.003
    assert core["lr"] == pytest.approx(0.012)


def test_one_group_without_parts_steps_as_plain_adamw() -> None:
    ours, plain = Network(), Network()
    optimizer = build_optimizer(settings(), COSINE, ours)
    reference = torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.5)
    for seed in range(3):
        for network, each in ((ours, optimizer), (plain, reference)):
            network.learn(seed=seed)
            each.step()
            each.zero_grad(set_to_none=True)
    for name, values in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[name], values), name


def test_missing_gradients_decay_only_where_they_are_zero() -> None:
    network = Network()
    optimizer = build_optimizer(settings(), COSINE, network)
    before = network.readouts["B"].weight.detach().clone()
    network.learn("A")
    optimizer.step()
    assert torch.equal(network.readouts["B"].weight, before)
    fill_missing_gradients(network.parameters())
    optimizer.step()
    torch.testing.assert_close(network.readouts["B"].weight, before * (1 - 0.01 * 0.5))


def gradient_of(norm: float) -> torch.Tensor:
    parameter = torch.zeros(4, requires_grad=True)
    parameter.grad = torch.full((4,), norm / 2)
    return parameter


def test_autoclip_by_the_quantile_of_earlier_norms() -> None:
    settings = AutoClipping(kind="autoclip", quantile=0.1, remembered_steps=3)
    clipper = Clipper(settings)
    seen: list[float] = []
    for norm in (4.0, 2.0, 8.0, 6.0, 10.0, 1.0):
        parameter = gradient_of(norm)
        clipper([parameter])
        limit = np.quantile(seen[-3:], 0.1) if seen else norm  # the first step is not clipped
        # PyTorch divides by the norm + 1e-6.
        assert float(parameter.grad.norm()) == pytest.approx(min(limit, norm), rel=1e-5)
        seen.append(norm)
    other = Clipper(settings)
    other.restore(clipper.state())
    first, second = gradient_of(50.0), gradient_of(50.0)
    clipper([first])
    other([second])
    assert torch.equal(first.grad, second.grad)


def test_clipping_by_norm() -> None:
    long, short = gradient_of(4.0), gradient_of(1.0)
    for parameter in (long, short):
        Clipper(NormClipping(kind="norm", maximum=2.0))([parameter])
    assert float(long.grad.norm()) == pytest.approx(2.0, rel=1e-5)
    assert float(short.grad.norm()) == 1.0


def test_moving_average_of_weights_and_batch_statistics() -> None:
    network = Network()
    average = MovingAverage(network, decay=0.9)
    first = {name: values.clone() for name, values in network.state_dict().items()}
    with torch.no_grad():
        for values in network.state_dict().values():
            values.add_(10)
    average.update()
    for name, values in average.weights.items():
        if values.dtype == torch.int64:
            assert values == 1  # 0.9 x 0 + 0.1 x 10
        else:
            torch.testing.assert_close(values, first[name] + 1.0)
    average.update()
    counter = next(v for v in average.weights.values() if v.dtype == torch.int64)
    assert counter == 1  # 1.9, cut
    own = {name: values.clone() for name, values in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters())
    with judged(network, optimizer, average):
        assert torch.equal(network.state_dict()["core.0.weight"], average.weights["core.0.weight"])
    assert all(torch.equal(own[name], v) for name, v in network.state_dict().items())


def test_schedule_free_is_judged_by_the_mean_of_the_package() -> None:
    network = Network()
    optimizer = build_optimizer(settings("adamw_schedule_free"), FREE, network)
    assert isinstance(optimizer, AdamWScheduleFree)
    for seed in range(5):
        network.learn(seed=seed)
        optimizer.step()
        optimizer.zero_grad()
    twin = copy.deepcopy((network, optimizer))
    twin[1].eval()
    own = {name: values.clone() for name, values in network.state_dict().items()}
    with judged(network, optimizer, None):
        for name, values in twin[0].state_dict().items():
            torch.testing.assert_close(network.state_dict()[name], values)
        assert not torch.equal(network.state_dict()["core.0.weight"], own["core.0.weight"])
    assert all(torch.equal(own[name], v) for name, v in network.state_dict().items())
