"""The schedule against its worked example and a plain transcription of the published loop."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium_models.recipes import PlateauSchedule
from sensorium_models.training.plateau import PlateauRounds

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


def follow(schedule: PlateauRounds, objectives: Sequence[float]) -> list[tuple]:
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
