"""Aspect-ratio buckets, as sd-scripts lays them out, and the two ways to say what was cropped.

Buckets are all sizes of `smallest` to `largest` pixels in steps of `step` whose area is at most resolution², each as large as it
can be for its shorter side, and the square. A picture goes where the aspect ratio is nearest, is resized to cover the bucket
and cropped around its centre. At 1024² with the defaults there are 25.

With `upscale` off no picture is enlarged (`--bucket_no_upscale`): one of more pixels is made smaller, any other stays as
it is, and the bucket is what is left when both sides are cut to multiples of `step`. There are as many buckets as such sizes.
"""

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Bucketing:
    """Which size a picture is trained at. All lengths in pixels; `resolution` is a square's side, or another area's two sides."""

    resolution: int | tuple[int, int] = 1024
    smallest: int = 256
    largest: int = 1024
    step: int = 64
    upscale: bool = True

    def about(self) -> dict[str, Any]:
        """What a store says of it: what is not asked for is left out, so that older stores keep their digests."""
        unread = ("upscale",) if self.upscale else ("smallest", "largest")
        return {name: value for name, value in asdict(self).items() if name not in unread}

    def placed(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The bucket of a picture, and the size at which it is resized before it is cropped to it; each is (width, height).

        Without `upscale` a bucket's side is 0 where a picture is narrower than a step.
        """
        if self.upscale:
            bucket = self.choose(width, height)
            return bucket, resized(width, height, bucket)
        size = (width, height) if width * height <= self.area else self._reduced(width / height)
        return (size[0] // self.step * self.step, size[1] // self.step * self.step), size

    def _reduced(self, aspect: float) -> tuple[int, int]:
        """The size of about `area` pixels at which one side is a multiple of `step`: the side that keeps the aspect ratio better.

        As in sd-scripts (`BucketManager.select_bucket`, kohya-ss/sd-scripts at 48d368f).
        """
        across = math.sqrt(self.area * aspect)
        width, height = self._stepped(across), self._stepped(self.area / across)
        beside_width, beside_height = self._stepped(width / aspect), self._stepped(height * aspect)
        if not (height and beside_width):
            return (width, height)  # narrower than a step
        if abs(width / beside_width - aspect) < abs(beside_height / height - aspect):
            return width, int(width / aspect + 0.5)
        return int(height * aspect + 0.5), height

    def _stepped(self, length: float) -> int:
        return int(length + 0.5) // self.step * self.step

    @cached_property
    def area(self) -> int:
        """The most pixels of a bucket."""
        across, down = (self.resolution, self.resolution) if isinstance(self.resolution, int) else self.resolution
        return across * down

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Every bucket as (width, height), ascending."""
        square = int(math.sqrt(self.area) // self.step) * self.step
        found = {(square, square)}
        for width in range(self.smallest, self.largest + 1, self.step):
            height = min(self.largest, self.area // width // self.step * self.step)
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
