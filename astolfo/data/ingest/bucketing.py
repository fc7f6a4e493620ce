"""Aspect-ratio buckets, as sd-scripts lays them out, and the two ways to say what was cropped.

Buckets are all sizes of `smallest` to `largest` pixels in steps of `step` whose area is at most resolution², each as large as it
can be for its shorter side, and the square. A picture goes where the aspect ratio is nearest, is resized to cover the bucket
and cropped around its centre. At 1024² with the defaults there are 25.
"""

import math
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, kw_only=True)
class Bucketing:
    """Which size a picture is trained at. All lengths in pixels."""

    resolution: int = 1024
    smallest: int = 256
    largest: int = 1024
    step: int = 64

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Every bucket as (width, height), ascending."""
        area, found = self.resolution**2, set()
        square = int(math.sqrt(area) // self.step) * self.step
        found.add((square, square))
        for width in range(self.smallest, self.largest + 1, self.step):
            height = min(self.largest, area // width // self.step * self.step)
            if height >= self.smallest:
                found |= {(width, height), (height, width)}
        return sorted(found)

    def choose(self, width: int, height: int) -> tuple[int, int]:
        """The bucket (width, height) of a picture: its own size where that is one, else the nearest aspect ratio."""
        if (width, height) in self.sizes:
            return width, height
        return min(self.sizes, key=lambda size: abs(size[0] / size[1] - width / height))


def resized(width: int, height: int, bucket: tuple[int, int]) -> tuple[int, int]:
    """The size (width, height) at which a picture just covers its bucket."""
    scale = bucket[1] / height if width / height > bucket[0] / bucket[1] else bucket[0] / width
    return int(width * scale + 0.5), int(height * scale + 0.5)


def letterbox(width: int, height: int, bucket: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom as sd-scripts records them for SDXL's crop conditioning.

    It is where the picture would lie if it were fitted into its bucket instead of covering it: what Stability AI's own
    preprocessing is taken to do. The pixels are cropped elsewhere; `centred` says where.
    """
    aspect = width / height
    wider = bucket[0] / bucket[1] > aspect
    inner = (bucket[1] * aspect, float(bucket[1])) if wider else (float(bucket[0]), bucket[0] / aspect)
    left, top = (bucket[0] - inner[0]) // 2, (bucket[1] - inner[1]) // 2
    return left, top, left + inner[0], top + inner[1]


def centred(size: tuple[int, int], bucket: tuple[int, int]) -> tuple[int, int]:
    """Left and top of what is kept of a resized picture: the crop as SDXL's paper means it."""
    return (size[0] - bucket[0]) // 2, (size[1] - bucket[1]) // 2
