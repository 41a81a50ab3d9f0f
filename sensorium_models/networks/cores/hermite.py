"""Two-dimensional Hermite functions and their rotations: the basis of steerable kernels.

Facts: model card of the GRU baseline, section 2 (sinzlab/neuralpredictors a2055cd; Ecker et al.
2019, arXiv 1809.10504). Everything here is a function of the kernel size alone, in float64.
"""

import math

import numpy as np


def orders(ranks: int) -> list[tuple[str, int, int]]:
    """(type, mu, nu) of each function up to rank `ranks` - 1, in published order.

    mu is the angular, nu the radial order; type z is round (mu = 0), r and i are the cosine and the
    sine of one pair. There are ranks * (ranks + 1) / 2.
    """
    listed = []
    for rank in range(ranks):
        for mu in range(rank % 2, rank + 1, 2):
            nu = (rank - mu) // 2
            listed += [("z", mu, nu)] if mu == 0 else [("r", mu, nu), ("i", mu, nu)]
    return listed


def hermite_functions(kernel: int) -> np.ndarray:
    """Functions (n, 2 k, 2 k) for a kernel of k x k pixels at twice its resolution, of unit norm.

    Rows are y, columns x, from -2 sqrt(k) (1 - 1/2k) to its opposite.
    """
    pixels = 2 * kernel
    edge = 2 * math.sqrt(kernel) * (1 - 1 / pixels)
    axis = np.linspace(-edge, edge, pixels)
    y, x = axis[:, None], axis[None, :]
    squared_radius = y**2 + x**2
    angle = np.arctan2(y, x)
    envelope = np.exp(-squared_radius / 4)
    functions = []
    for kind, mu, nu in orders(kernel):
        angular = np.sin(mu * angle) if kind == "i" else np.cos(mu * angle)
        radial = sum(_coefficient(mu, nu, j) * squared_radius**j for j in range(nu + 1))
        function = envelope * squared_radius ** (mu / 2) * radial * angular
        functions.append(function / np.linalg.norm(function))
    return np.stack(functions)


def rotations(kernel: int, steps: int) -> np.ndarray:
    """Matrices (steps, n, n) that rotate coefficients by i / `steps` of a full turn, i from 0."""
    listed = orders(kernel)
    matrices = np.zeros((steps, len(listed), len(listed)))
    for step, matrix in enumerate(matrices):
        angle = 2 * math.pi * step / steps
        for index, (kind, mu, _) in enumerate(listed):
            matrix[index, index] = math.cos(mu * angle)  # 1 for z
            if kind == "r":
                matrix[index, index + 1] = math.sin(mu * angle)
                matrix[index + 1, index] = -math.sin(mu * angle)
    return matrices


def _coefficient(mu: int, nu: int, j: int) -> float:
    """Of squared radius ** j in the radial polynomial."""
    above = math.factorial(mu + nu) * math.factorial(nu) * (-2.0) ** (nu - j)
    return above / (math.factorial(mu + j) * math.factorial(j) * math.factorial(nu - j))
