"""A source of samples that tests fill by hand."""

import numpy as np

from astolfo.data.ingest.source import Loaded, Refused, Row, Source


class Given(Source):
    """The samples of a list of (id, bucket, latents, tags, sentence); `latents` may be a reason to refuse the sample."""

    factor = 4

    def __init__(self, samples, about=None):
        self.samples, self.about = samples, about or {"made by": "test"}
        self.identity = {"kind": "given"}

    def rows(self, workers):
        for number, (name, bucket, _, tags, sentence) in enumerate(self.samples):
            yield Row(id=name, tags=tags, sentence=sentence, where=str(number), bucket=bucket)

    def load(self, row):
        _, (height, width), latents, *_ = self.samples[int(row.where)]
        if isinstance(latents, str):
            raise Refused(latents)
        return Loaded(latents=latents, original_size=(height + 1, width), crop=(0, int(row.where)))

    def shape(self, bucket):
        return 4, bucket[0] // self.factor, bucket[1] // self.factor


def sample(index, size=(64, 64), dtype=np.float32):
    """A sample whose latents all have the value of its index."""
    latents = np.full((4, size[0] // 4, size[1] // 4), index, dtype)
    return f"s{index}", size, latents, f"tag{index}", f"sentence {index}"


def samples(count=7):
    """Samples that take turns between two buckets."""
    return [sample(index, ((64, 64), (48, 80))[index % 2]) for index in range(count)]
