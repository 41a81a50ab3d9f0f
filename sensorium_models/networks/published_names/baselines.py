"""Names of the baselines: factorized and GRU.

Facts: their model cards, section 6 (sinzlab/neuralpredictors a2055cd).
"""

from collections.abc import Mapping

from torch import Tensor

from sensorium_models.networks.encoder import Encoder
from sensorium_models.networks.published_names.gaussian import BASELINE_READOUT
from sensorium_models.networks.published_names.naming import Naming, Rule


def _factorized_convolution(groups: Mapping[str, str]) -> str:
    # The first layer's have no number of their own, as published.
    number = "" if groups["layer"] == "0" else f"_{groups['layer']}"
    return f"core.features.layer{groups['layer']}.conv_{groups['kind']}{number}.{groups['rest']}"


FACTORIZED = Naming(
    rules=[
        Rule(
            r"core\.layers\.(?P<layer>\d+)\.(?P<kind>spatial|temporal)\.(?P<rest>.+)",
            _factorized_convolution,
        ),
        Rule(
            r"core\.layers\.(?P<layer>\d+)\.norm\.(?P<rest>.+)",
            "core.features.layer{layer}.norm.{rest}",
        ),
        *BASELINE_READOUT,
    ],
    key=lambda folder: folder,
    inert=lambda encoder: {
        "core._input_weight_regularizer.laplace.filter": _buffer(encoder, "laplace"),
        "core.temporal_regularizer.laplace.filter": _buffer(encoder, "temporal_laplace"),
    },
)

_HERMITE = "core.features.layer{layer}.hermite_conv"
GRU = Naming(
    rules=[
        Rule(r"core\.frame_core\.convolutions\.(?P<layer>\d+)\.coefficients", f"{_HERMITE}.coeffs"),
        Rule(
            r"core\.frame_core\.convolutions\.(?P<layer>\d+)\.basis", f"{_HERMITE}.rotate_hermite.H"
        ),
        Rule(
            r"core\.frame_core\.convolutions\.(?P<layer>\d+)\.rotations",
            f"{_HERMITE}.rotate_hermite.Rs.{{row}}",
            rows=True,
        ),
        Rule(
            r"core\.frame_core\.norms\.(?P<layer>\d+)\.norm\.(?P<rest>.+)",
            "core.features.layer{layer}.norm.batch_norm.{rest}",
        ),
        Rule(r"core\.gru\.(?P<rest>.+)", "gru_module.gru.{rest}"),
        *BASELINE_READOUT,
    ],
    key=lambda folder: folder,
    inert=lambda encoder: {
        "core._input_weights_regularizer.laplace.filter": _buffer(encoder, "frame_core.laplace")
    },
)


def _buffer(encoder: Encoder, name: str) -> Tensor:
    return encoder.core.get_buffer(name)
