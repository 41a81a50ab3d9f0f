"""What the original repositories call the tensors of our networks, and how they shape them."""

from sensorium_models.networks.encoder import Encoder
from sensorium_models.networks.published_names.baselines import FACTORIZED, GRU
from sensorium_models.networks.published_names.dwiseneuro import DWISENEURO
from sensorium_models.networks.published_names.dynamic_v1fm import DYNAMIC_V1FM
from sensorium_models.networks.published_names.naming import Naming
from sensorium_models.networks.published_names.viv1t import VIV1T, VIV1T_2025

# By class of the core.
NAMINGS = {
    "FactorizedCore": FACTORIZED,
    "EquivariantGRUCore": GRU,
    "ViV1TCore": VIV1T,
    "CausalViV1TCore": VIV1T_2025,
    "DwiseNeuroCore": DWISENEURO,
    "VideoSwinCore": DYNAMIC_V1FM,
}


def naming_of(encoder: Encoder) -> Naming:
    """The naming of a network.

    Raises:
        ValueError: there is none for its core.
    """
    kind = type(encoder.core).__name__
    if kind not in NAMINGS:
        raise ValueError(
            f"there are no published names for the core {kind}; known are {', '.join(NAMINGS)}"
        )
    return NAMINGS[kind]
