"""How the tensors of a published network are told apart: rules from our names to the original ones.

The tables themselves are in `published_names`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from sensorium_models.networks.encoder import Encoder

Shape = tuple[int, ...]

# Mouse number (of `dynamic29515-10-12-...`) to the letter of ViV1T and of the papers.
_LETTERS = {
    **{"29156": "A", "29228": "B", "29234": "C", "29513": "D", "29514": "E"},
    **{"29515": "F", "29623": "G", "29647": "H", "29712": "I", "29755": "J"},
}


def _same(shape: Shape) -> Shape:
    return shape


@dataclass(frozen=True)
class Rule:
    """Which of our tensors (`ours`, a regular expression) has which original name and shape.

    `theirs` is a template of the expression's groups, or a function of them; the group `animal`
    becomes the animal's key there. `rows` spreads our first axis over tensors numbered {row}.
    """

    ours: str
    theirs: str | Callable[[Mapping[str, str]], str]
    shape: Callable[[Shape], Shape] = _same
    rows: bool = False

    def name(self, groups: Mapping[str, str]) -> str:
        """The original name."""
        return self.theirs(groups) if callable(self.theirs) else self.theirs.format(**groups)


@dataclass(frozen=True)
class Naming:
    """Names of one published network.

    `key` gives an animal's key from the folder of its recording. `inert` are tensors of the
    original that change no result (buffers of penalties, constants of attention), with their
    values; `ignored` are patterns of others, which no export writes. `container` is the entry of
    the checkpoint that holds the tensors, None if the file is nothing else.
    """

    rules: Sequence[Rule]
    key: Callable[[str], str]
    inert: Callable[[Encoder], dict[str, Tensor]] = field(default=lambda encoder: {})
    ignored: Sequence[str] = ()
    container: str | None = None


def mouse_letter(folder: str) -> str:
    """Letter of the mouse whose recording is in this folder.

    Raises:
        ValueError: it is none of the ten of SENSORIUM 2023.
    """
    found = re.match(r"dynamic(\d+)-", folder)
    if found is None or found[1] not in _LETTERS:
        raise ValueError(
            f"recording {folder} is none of the ten of SENSORIUM 2023, of which the published "
            "network has readouts"
        )
    return _LETTERS[found[1]]
