"""The schedule against its worked example and a plain transcription of the published loop."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium_models.recipes import (
    PlateauReloadSchedule,
    PlateauSchedule,
    ScheduleFreeSchedule,
    WarmUpConstantCosineSchedule,
    WarmUpCosineSchedule,
)
from sensorium_models.training.plateau import PlateauReload, PlateauRounds
from sensorium_models.training.schedules import (
    Schedule,
    ScheduleFree,
    WarmUpConstantCosine,
    WarmUpCosine,
)

PUBLISHED = PlateauSchedule(
    kind="plateau",
    max_epochs=200,
    rounds=4,
    patience_epochs=5,
    tolerance=1e-6,
    learning_rate_factor=0.3,
    learning_rate_patience_epochs=5,
    minimum_learning_rate=1e-4,
)


def follow(schedule: Schedule, objectives: Sequence[float]) -> list[tuple]:
    """(learning rate used, round, improved, reload, finished) of every epoch until the end."""
    events = []
    for objective in objectives:
        before = schedule.rate(0), schedule.round
        verdict = schedule.judge(objective)
        events.append((*before, verdict.improved, verdict.reload_best, verdict.finished))
        if verdict.finished:
            break
    return events


def test_worked_example_of_the_card() -> None:
    schedule = PlateauRounds(PUBLISHED, learning_rate=0.005)
    schedule.begin(0.0)
    last = 3  # the last epoch that improves
    objectives = [0.01 * min(epoch, last) for epoch in range(1, 60)]
    events = follow(schedule, objectives)
    epochs = range(1, len(events) + 1)
    reloads = [epoch for epoch, event in zip(epochs, events, strict=True) if event[3]]
    assert reloads == [last + 5, last + 10, last + 15, last + 20]
    assert len(events) == last + 20
    assert events[-1][4]
    rates = [event[0] for event in events]
    drops = [epoch for epoch in epochs[:-1] if rates[epoch] != rates[epoch - 1]]
    assert drops == [last + 6, last + 12, last + 18]  # in force from the epoch after
    assert sorted(set(rates), reverse=True) == pytest.approx([0.005, 0.0015, 0.00045, 0.000135])
    # "The first epoch of round 2 still runs with the old LR."
    assert events[last + 5][:2] == (0.005, 2)
    assert schedule.best_epoch == last
    assert schedule.reason == "4 rounds were over"


def test_learning_rate_ends_at_its_floor() -> None:
    schedule = PlateauRounds(PUBLISHED.model_copy(update={"rounds": 9}), learning_rate=0.005)
    schedule.begin(1.0)
    rates = [event[0] for event in follow(schedule, [0.0] * 45)]
    # The rate's own best starts below everything, so the first epoch is good, however bad.
    assert [rates[6 * drop + 1] for drop in range(6)] == pytest.approx(
        [0.005, 0.0015, 0.00045, 0.000135, 1e-4, 1e-4]
    )
    assert [rates[6 * drop] for drop in range(1, 5)] == pytest.approx(
        [0.005, 0.0015, 0.00045, 0.000135]
    )


def published_loop(initial: float, objectives: Sequence[float]) -> list[tuple]:
    """What the published code does, with PyTorch's own scheduler; same output as `follow`."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.005)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max", factor=0.3, patience=5, threshold=1e-6, threshold_mode="abs", min_lr=1e-4
    )
    events: list[tuple] = []
    upcoming = iter(objectives)
    best, epoch = initial, 0
    for repeat in range(4):
        counter = 0
        while counter < 5 and epoch < 30:
            epoch += 1
            rate = optimizer.param_groups[0]["lr"]
            objective = next(upcoming)
            if not math.isfinite(objective):
                return [*events, (rate, repeat + 1, False, True, True)]
            scheduler.step(objective)
            improved = objective > best + 1e-6
            if improved:
                best, counter = objective, 0
            else:
                counter += 1
            events.append((rate, repeat + 1, improved, False, False))
        events[-1] = (*events[-1][:3], True, repeat == 3 or epoch == 30)
        if epoch == 30:
            break
    return events


@settings(deadline=None)
@given(
    st.sampled_from([0.0, 0.5]),
    st.lists(
        st.sampled_from([0.0, 0.1, 0.1 + 5e-7, 0.2, 0.5, 0.6, 0.7, math.nan]) | st.floats(0, 1),
        min_size=30,
        max_size=30,
    ),
)
def test_any_course_is_that_of_the_published_loop(initial: float, objectives: list[float]) -> None:
    schedule = PlateauRounds(PUBLISHED.model_copy(update={"max_epochs": 30}), learning_rate=0.005)
    schedule.begin(initial)
    expected = published_loop(initial, objectives)
    found = follow(schedule, objectives)
    assert [event[1:] for event in found] == [event[1:] for event in expected]
    assert [event[0] for event in found] == pytest.approx([event[0] for event in expected])


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=25, max_size=25), st.integers(0, 24))
def test_a_restored_schedule_goes_on_as_the_original(objectives: list[float], cut: int) -> None:
    whole = PlateauRounds(PUBLISHED, learning_rate=0.005)
    whole.begin(0.1)
    events = follow(whole, objectives)
    first = PlateauRounds(PUBLISHED, learning_rate=0.005)
    first.begin(0.1)
    before = follow(first, objectives[:cut])
    if first.finished:
        return
    second = PlateauRounds(PUBLISHED, learning_rate=0.005)
    second.restore(first.state())
    assert before + follow(second, objectives[cut:]) == events
    assert second.state() == whole.state()


def test_an_infinite_start_is_refused() -> None:
    with pytest.raises(ValueError, match="before training is nan; it must be finite"):
        PlateauRounds(PUBLISHED, learning_rate=0.005).begin(math.nan)


RELOAD = PlateauReloadSchedule(
    kind="plateau_reload",
    max_epochs=400,
    patience_epochs=5,
    learning_rate_factor=0.3,
    learning_rate_reductions=2,
    minimum_learning_rate=1.1920929e-7,
    collapsed_below=0.05,
)


def test_reloads_come_slower_until_two_gained_nothing() -> None:
    schedule = PlateauReload(RELOAD, learning_rate=0.0036)
    schedule.begin(0.3)  # the published code compares with 0, not with the untrained network
    events = follow(schedule, [0.1] + [0.09] * 30)
    reloads = [epoch for epoch, event in enumerate(events, start=1) if event[3]]
    assert reloads == [6, 11, 16]
    assert len(events) == 16
    assert events[-1][4]
    assert [events[epoch][0] for epoch in (0, 5, 6, 10, 11, 15)] == pytest.approx(
        [0.0036, 0.0036, 0.00108, 0.00108, 0.000324, 0.000324]
    )
    assert (schedule.best, schedule.best_epoch) == (0.1, 1)


def test_a_new_best_allows_two_more_reductions_at_the_reduced_rate() -> None:
    schedule = PlateauReload(RELOAD, learning_rate=0.0036)
    schedule.begin(0.0)
    events = follow(schedule, [0.1] + [0.0901] * 10 + [0.2] + [0.19] * 20)
    # Reloads after the 5th and 10th bad epoch, then anew after the best of epoch 12.
    assert [epoch for epoch, event in enumerate(events, start=1) if event[3]] == [6, 11, 17, 22, 27]
    assert schedule.rate(0) == pytest.approx(0.0036 * 0.3**4)


def test_a_collapse_reloads_without_counting() -> None:
    schedule = PlateauReload(RELOAD, learning_rate=1.0)
    schedule.begin(0.0)
    # 0.004 rounds to 0.00, 0.006 to 0.01.
    events = follow(schedule, [0.06, 0.004, -0.2, 0.004, 0.006, 0.004, 0.05, 0.05, 0.05, 0.05])
    reloads = [epoch for epoch, event in enumerate(events, start=1) if event[3]]
    assert reloads == [2, 3, 4, 6, 10]
    assert schedule.rate(0) == pytest.approx(0.3)
    early = PlateauReload(RELOAD, learning_rate=1.0)
    early.begin(0.0)
    # Nothing to go back to before the first epoch above 0.
    assert not any(event[3] for event in follow(early, [-0.1] * 9))


def published_reload(objectives: Sequence[float]) -> list[tuple]:
    """What `step` of the published scheduler does, line by line; same output as `follow`."""
    best, wait, reductions, rate = 0.0, 0, 0, 1.0
    saved = False
    events: list[tuple] = []
    for objective in objectives:
        before, improved, reload, stop = rate, False, False, False
        if objective > best:
            best, wait, reductions, improved, saved = objective, 0, 0, True, True
        elif round(objective, 2) <= 0.0 and best >= 0.05:
            reload = saved
        elif wait >= 5 - 1:
            if reductions >= 3 - 1:
                stop = reload = True  # the best weights come back when training is over
            else:
                reductions += 1
                reload = saved
                rate = max(0.3 * rate, 1.1920929e-7)
                wait = 0
        else:
            wait += 1
        events.append((before, 1, improved, reload, stop))
        if stop:
            break
    return events


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([-0.1, 0.0, 0.004, 0.03, 0.05, 0.06, 0.1, 0.2]) | st.floats(-0.2, 1),
        max_size=40,
    )
)
def test_any_course_is_that_of_the_published_scheduler(objectives: list[float]) -> None:
    schedule = PlateauReload(RELOAD, learning_rate=1.0)
    schedule.begin(0.0)
    found, expected = follow(schedule, objectives), published_reload(objectives)
    assert [event[1:] for event in found] == [event[1:] for event in expected]
    assert [event[0] for event in found] == pytest.approx([event[0] for event in expected])


def test_warm_up_and_cosine_of_dwiseneuro() -> None:
    settings = WarmUpCosineSchedule(
        kind="warm_up_cosine", max_epochs=21, warm_up_epochs=3, minimum_learning_rate=2.4e-5
    )
    schedule = WarmUpCosine(settings, learning_rate=2.4e-3, steps_per_epoch=2250)
    assert schedule.rate(0) == 0
    assert schedule.rate(1) == pytest.approx(2.4e-3 / 6750)
    assert schedule.rate(6749) == pytest.approx(2.4e-3 * 6749 / 6750)
    assert schedule.rate(6750) == 2.4e-3
    assert schedule.rate(6750 + 20250) == pytest.approx((2.4e-3 + 2.4e-5) / 2)
    assert schedule.rate(6750 + 40500) == pytest.approx(2.4e-5)
    last = 2.4e-5 + 0.5 * (2.4e-3 - 2.4e-5) * (1 + math.cos(math.pi * 40499 / 40500))
    assert schedule.rate(21 * 2250 - 1) == pytest.approx(last)


def test_warm_up_constant_and_cosine_of_dynamic_v1fm() -> None:
    settings = WarmUpConstantCosineSchedule(
        kind="warm_up_constant_cosine",
        max_epochs=180,
        warm_up_steps=600,
        warm_up_from=1 / 3,
        constant_epochs=80,
        minimum_learning_rate=1e-6,
    )
    schedule = WarmUpConstantCosine(settings, learning_rate=1e-3, steps_per_epoch=120)
    assert schedule.rate(0) == pytest.approx(1e-3 / 3)
    assert schedule.rate(300) == pytest.approx(2e-3 / 3)
    assert schedule.rate(600) == schedule.rate(80 * 120 - 1) == 1e-3
    # Within an epoch the rate stays; epoch 80 is the cosine's first, still at its top.
    assert schedule.rate(80 * 120) == schedule.rate(81 * 120 - 1) == 1e-3
    assert schedule.rate(130 * 120) == pytest.approx(1e-6 + 0.5 * (1e-3 - 1e-6))
    expected = 1e-6 + 0.5 * (1e-3 - 1e-6) * (1 + math.cos(math.pi * 0.99))
    assert schedule.rate(179 * 120) == schedule.rate(180 * 120 - 1) == pytest.approx(expected)


def test_schedules_of_fixed_length_keep_the_last_weights() -> None:
    settings = WarmUpCosineSchedule(
        kind="warm_up_cosine", max_epochs=3, warm_up_epochs=1, minimum_learning_rate=0
    )
    schedule = WarmUpCosine(settings, learning_rate=1.0, steps_per_epoch=2)
    schedule.begin(0.5)
    assert follow(schedule, [0.4, 0.9, 0.1]) == [
        (0, 1, True, False, False),
        (0, 1, True, False, False),
        (0, 1, True, True, True),
    ]
    assert (schedule.best, schedule.best_epoch) == (0.1, 3)
    broken = WarmUpCosine(settings, learning_rate=1.0, steps_per_epoch=2)
    broken.begin(0.5)
    assert follow(broken, [0.4, math.nan])[-1] == (0, 1, False, True, True)
    assert broken.best_epoch == 1


def test_schedule_free_ends_when_patience_does() -> None:
    settings = ScheduleFreeSchedule(
        kind="schedule_free",
        max_epochs=400,
        patience_epochs=10,
        warm_up_steps=400,
        averaging_power=0.0,
        averaging_rate_power=2.0,
    )
    schedule = ScheduleFree(settings, learning_rate=0.0073)
    schedule.begin(0.0)
    events = follow(schedule, [0.1] * 9 + [0.2] + [0.15] * 20)
    assert len(events) == 20
    assert schedule.best_epoch == 10
    assert {event[0] for event in events} == {0.0073}
