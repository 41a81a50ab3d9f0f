"""Names of the Gaussian readout and its shifter, which most published networks share.

Facts: model cards of the factorized baseline (section 6) and of ViV1T (section A5).
"""

from sensorium_models.networks.published_names.naming import Rule, Shape

OF_ANIMAL = r"readouts\.(?P<animal>[^.]+)"


def gaussian(readout: str, shifter: str, *, features: Rule) -> list[Rule]:
    """Gaussian readout and shifter; `readout` and `shifter` are the original folders."""
    return [
        Rule(rf"{OF_ANIMAL}\.sigma", f"{readout}.{{animal}}.sigma", led_by_one),
        features,
        Rule(
            rf"{OF_ANIMAL}\.position_network\.(?P<rest>.+)",
            f"{readout}.{{animal}}.mu_transform.{{rest}}",
        ),
        # A dropout of zero stands before the last layer of the original.
        Rule(
            rf"{OF_ANIMAL}\.state_encoder\.3\.(?P<rest>.+)",
            f"{readout}.{{animal}}.state_encoder.4.{{rest}}",
        ),
        Rule(
            rf"{OF_ANIMAL}\.(?P<rest>bias|source_grid|state_encoder\..+)",
            f"{readout}.{{animal}}.{{rest}}",
        ),
        Rule(
            r"shifters\.(?P<animal>[^.]+)\.layers\.(?P<rest>.+)",
            f"{shifter}.{{animal}}.mlp.{{rest}}",
        ),
    ]


def led_by_one(shape: Shape) -> Shape:
    return (1, *shape)


BASELINE_READOUT = gaussian(
    "readout",
    "shifter",
    features=Rule(
        rf"{OF_ANIMAL}\.features",
        "readout.{animal}._features",
        lambda shape: (1, shape[0], 1, shape[1]),
    ),
)
