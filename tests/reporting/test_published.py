"""The published numbers: complete, cited, and only beside what they may stand beside."""

import numpy as np
import pytest

from sensorium_models.reporting.published import published, reference_score, training_cost

RHO_ST, RHO_TA = "single_trial_correlation", "correlation_to_average"


def test_every_number_is_cited_and_stated_once() -> None:
    table = published()
    # The paper, or a repository at a commit.
    assert table["citation"].str.contains(r"2407\.09100|, commit [0-9a-f]{7}, ").all()
    keys = ["source_table", "published_name", "member", "track", "quantity"]
    assert not table.duplicated(keys).any()
    assert (table["value"] != "").all()
    # Table 1: 6 models x 4 values; Table 2: 5 x 4; Table 5: 14 seeds, mean, sd x 2.
    tables = table["source_table"].value_counts().to_dict()
    assert {name: tables.pop(name) for name in ("1", "2", "5")} == {"1": 24, "2": 20, "5": 32}
    # The text; steps of development in two appendices; the repositories of DwiseNeuro and ViV1T.
    assert tables == {"text": 3, "A.1": 6, "A.2": 4, "README": 6, "demo": 11}


def test_table_5_agrees_with_its_own_mean_and_sample_standard_deviation() -> None:
    table = published()
    table = table[(table["source_table"] == "5") & (table["quantity"] == RHO_ST)]
    seeds = table[table["member"].str.startswith("seed")]["value"].astype(float)
    value = dict(zip(table["member"], table["value"].astype(float), strict=True))
    assert len(seeds) == 14
    # Printed with four decimals, so at most half a unit of the last one off.
    assert value["members_mean"] == pytest.approx(seeds.mean(), abs=0.5e-4)
    assert value["members_sd"] == pytest.approx(np.std(seeds, ddof=1), abs=0.5e-4)


def test_the_single_model_of_table_1_is_seed_16() -> None:
    table = published().query("system == 'factorized_baseline' and track == 'main'")
    for metric in (RHO_ST, RHO_TA):
        rows = table[table["quantity"] == metric].set_index("member")["value"].astype(float)
        assert rows["single"] == round(rows["seed16"], 3)


def test_reference_stands_beside_the_same_kind_of_estimate() -> None:
    ensemble = reference_score(
        "factorized_baseline", estimate="ensemble", track="main", metric=RHO_ST
    )
    members = reference_score(
        "factorized_baseline", estimate="members", track="main", metric=RHO_ST
    )
    bonus = reference_score("factorized_baseline", estimate="members", track="bonus", metric=RHO_TA)
    assert ensemble is not None
    assert members is not None
    assert bonus is not None
    assert (ensemble.value, ensemble.spread) == (0.197, None)
    assert (members.value, members.spread) == (0.1828, 0.0094)
    assert (bonus.value, bonus.spread, bonus.estimate) == (0.223, None, "single model")
    assert "Table 5" in members.citation
    assert "Table 1" in ensemble.citation


def test_more_digits_elsewhere_do_not_replace_the_table() -> None:
    reference = reference_score("dwiseneuro", estimate="ensemble", track="main", metric=RHO_ST)
    assert reference is not None
    assert reference.value == 0.291
    assert "Table 1" in reference.citation
    rows = published().query("source_table == 'README' and member == 'submission'")
    for track in ("main", "bonus"):
        exact = float(rows.loc[rows["track"] == track, "value"].item())
        reference = reference_score("dwiseneuro", estimate="ensemble", track=track, metric=RHO_ST)
        assert reference is not None
        assert reference.value == pytest.approx(exact, abs=0.5e-3 + 1e-9)


def test_nothing_is_made_up() -> None:
    for system in ("linear_nonlinear", "viv1t_2025", "no_such_system"):
        assert reference_score(system, estimate="ensemble", track="main", metric=RHO_ST) is None
        assert training_cost(system) == {}
    assert reference_score("dwiseneuro", estimate="members", track="main", metric=RHO_ST) is None
    assert reference_score("dwiseneuro", estimate="ensemble", track="", metric=RHO_ST) is None


def test_training_cost_carries_units() -> None:
    assert training_cost("dwiseneuro") == {
        "gpu": "2 x RTX A6000",
        "gpu_memory": "48 GB",
        "batch_size": "32",
        "wall_time": "12 h",
    }
