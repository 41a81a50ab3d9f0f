"""Readout positions from weights alone, and their maps: the same numbers as the network's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sensorium_models.networks.encoder import AnimalFacts
from sensorium_models.networks.readouts.gaussian import GaussianReadout
from sensorium_models.reporting import readout_positions, retinotopy, style
from sensorium_models.reporting.page import SECTIONS
from sensorium_models.reporting.readout_positions import LookedAt, read_positions
from tests.layout import assert_tidy, saved

pytestmark = pytest.mark.slow

TITLES = {
    "factorized_baseline": "Factorized baseline",
    "gru_baseline": "GRU baseline",
    "dynamic_v1fm": "Dynamic-V1FM",
    "viv1t": "ViV1T",
    "viv1t_2025": "ViV1T 2025",
}
FAMILIES = pytest.mark.parametrize(
    "family", [readout_positions, retinotopy], ids=["positions", "retinotopy"]
)


@pytest.mark.parametrize("positions", ["cortex", "response_triggered_average"])
def test_positions_are_those_of_the_network(tmp_path: Path, positions: Any) -> None:
    rng = np.random.default_rng(3)
    torch.manual_seed(0)
    facts = AnimalFacts(
        animal="A",
        neurons=50,
        coordinates=rng.uniform(-600, 600, (50, 3)),
        has_behavior=True,
        has_pupil_center=True,
        normalisation=None,  # type: ignore[arg-type]
        frame_shape=(36, 64),
        initial_positions=rng.uniform(-1, 1, (50, 2)),
    )
    readout = GaussianReadout(
        facts=facts,
        in_channels=4,
        in_shape=(18, 32),
        positions=positions,
        position_hidden_units=30,
        sigma_range=1.0,
        feature_penalty=0.0,
    ).eval()
    with torch.no_grad():
        for parameter in readout.parameters():
            parameter.mul_(3)  # beyond the edge, where positions are clamped
    weights = tmp_path / "weights.safetensors"
    save_file({f"readouts.A.{k}": v for k, v in readout.state_dict().items()}, weights)
    found = read_positions(weights, "A")
    assert found is not None
    # Float32 in the network, float64 here.
    np.testing.assert_allclose(found, readout.mean_positions().detach().numpy(), atol=2e-6)
    assert read_positions(weights, "B") is None


def test_a_readout_without_positions_has_none(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file({"readouts.A.spatial": torch.zeros(3, 2), "readouts.A.bias": torch.zeros(3)}, weights)
    assert read_positions(weights, "A") is None


def _looked_at(
    systems: int, animals: str, *, neurons: int = 40, members: int = 1, noise: float = 0.1
) -> list[LookedAt]:
    rng = np.random.default_rng(0)
    found = []
    for system in list(TITLES)[:systems]:
        for member in range(members):
            for animal in animals:
                places = rng.uniform(-300, 300, (neurons, 3))
                positions = np.tanh(places[:, :2] / 500 + rng.normal(0, noise, (neurons, 2)))
                found.append(LookedAt(system, f"seed{member}", animal, positions, places))
    return found


def _draw(family: Any, looked_at: list[LookedAt], **options: Any) -> style.Drawing:
    settings = {
        "systems": [*TITLES, "dwiseneuro"],
        "titles": {**TITLES, "dwiseneuro": "DwiseNeuro"},
        "training_set": "clean",
        "simulated": False,
    }
    return family.draw(looked_at, **(settings | options))


@FAMILIES
@pytest.mark.parametrize(("systems", "animals"), [(1, "A"), (2, "AB"), (5, "ABCDEFGHIJ")])
def test_maps_at_all_sizes(family: Any, systems: int, animals: str) -> None:
    drawing = _draw(family, _looked_at(systems, animals, members=2))
    assert drawing.section in SECTIONS
    assert "n = 40" in drawing.caption
    assert_tidy(drawing.figure)


@FAMILIES
def test_maps_without_positions_or_coordinates_say_so(family: Any, tmp_path: Path) -> None:
    assert "No positions" in _draw(family, []).caption
    item = _looked_at(1, "A")[0]
    unknown = LookedAt(item.system, item.member, item.animal, item.positions, None)
    drawing = _draw(family, [unknown])
    assert "do not say where in cortex" in drawing.caption
    saved(drawing, tmp_path)


def test_systems_without_positions_are_named() -> None:
    caption = _draw(readout_positions, _looked_at(5, "A"), simulated=True).caption
    assert "Without positions in their readouts: DwiseNeuro." in caption
    assert "simulated" in caption


@FAMILIES
def test_maps_of_a_full_size_animal_stay_small(family: Any, tmp_path: Path) -> None:
    pdf, png = saved(_draw(family, _looked_at(2, "A", neurons=8000)), tmp_path)
    assert len(pdf) < 800_000
    assert len(png) < 1_500_000


def test_a_linear_map_is_found_exactly() -> None:
    places = np.random.default_rng(1).uniform(-300, 300, (30, 3))
    slope = np.array([[0.001, -0.0005], [0.0, 0.002]])
    found = retinotopy.linear_map(places[:, :2] @ slope.T + 0.1, places)
    np.testing.assert_allclose(found.slope, slope, atol=1e-12)
    np.testing.assert_allclose(found.explained, 1.0)


def test_positions_that_ignore_the_cortex_are_not_explained() -> None:
    rng = np.random.default_rng(2)
    places, positions = rng.uniform(-300, 300, (2000, 2)), rng.uniform(-1, 1, (2000, 2))
    # Two free slopes explain 2 / (N - 1) of pure noise on average.
    assert (retinotopy.linear_map(positions, places).explained < 0.01).all()
    one_place = retinotopy.linear_map(np.full((2000, 2), 0.3), places)
    assert np.isnan(one_place.explained).all()
    nobody = [LookedAt("viv1t", "seed1", "A", np.full((20, 2), 0.3), places[:20])]
    assert_tidy(_draw(retinotopy, nobody).figure)
