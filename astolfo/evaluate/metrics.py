"""Numbers of a picture: sharpness, contrast, colour, and whether it shows what was asked.

All take uint8 (height, width, 3). The first three mean nothing alone; `relative` divides them by those of the dataset's own
pictures, so 1.0 is "as the dataset".
"""

from collections.abc import Mapping, Sequence

import numpy as np

from astolfo.data.procedural import Scene
from astolfo.evaluate.recognition import agreement

LOOKS = ("sharpness", "contrast", "colour")


def sharpness(picture: np.ndarray) -> float:
    """Root mean square of the discrete Laplacian (four neighbours) of the values in [0, 1], over pixels and channels.

    The energy of second differences falls with the third power of an edge's width (a mean gradient would not fall at
    all) and rises with noise.
    """
    x = picture.astype(np.float64) / 255.0
    inner = x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] - 4.0 * x[1:-1, 1:-1]
    return float(np.sqrt(np.mean(inner**2)))


def contrast(picture: np.ndarray) -> float:
    """Standard deviation over the pixels of the values in [0, 1], mean of the channels."""
    return float(picture.astype(np.float64).std(axis=(0, 1)).mean() / 255.0)


def colour(picture: np.ndarray) -> float:
    """Colourfulness M3 of Hasler and Suesstrunk, "Measuring colourfulness in natural images" (SPIE 2003), over 255."""
    r, g, b = np.moveaxis(picture.astype(np.float64) / 255.0, -1, 0)
    red_green, yellow_blue = r - g, (r + g) / 2 - b
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def looks(pictures: Sequence[np.ndarray]) -> dict[str, float]:
    """Mean sharpness, contrast and colour of `pictures`."""
    measures = {"sharpness": sharpness, "contrast": contrast, "colour": colour}
    return {name: float(np.mean([measure(picture) for picture in pictures])) for name, measure in measures.items()}


def relative(numbers: Mapping[str, float], reference: Mapping[str, float]) -> dict[str, float]:
    """Each of `numbers` over the same of `reference`, which must not be 0; four decimals."""
    return {name: round(numbers[name] / reference[name], 4) for name in LOOKS}


def by_scale(pictures: Sequence[np.ndarray]) -> list[float]:
    """Contrast by scale: deviation of what lies between boxes of 1, 2, 4, 8 and so on pixels, as long as these halve the picture.

    The values are in [0, 1]; each picture's mean square counts alike. The first number is of the finest detail.
    """
    powers = [_powers(picture.astype(np.float64) / 255.0) for picture in pictures]
    return [float(np.sqrt(np.mean(scale))) for scale in zip(*powers, strict=True)]


def _powers(x: np.ndarray) -> list[float]:
    """Mean square of the difference between a picture and its means over 2 x 2 boxes; the same of those means; and so on."""
    found = []
    while x.shape[0] % 2 == 0 and x.shape[1] % 2 == 0:
        y = (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4.0
        found.append(float(np.mean((x - y.repeat(2, 0).repeat(2, 1)) ** 2)))
        x = y
    return found


def agreements(pictures: Sequence[np.ndarray], scenes: Sequence[Scene]) -> list[dict[str, float]]:
    """For each picture, what of its scene it shows: the dictionaries of `astolfo.evaluate.recognition.agreement`."""
    return [
        {k: round(v, 4) for k, v in agreement(picture, scene).items()} for picture, scene in zip(pictures, scenes, strict=True)
    ]
