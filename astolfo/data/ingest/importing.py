"""The import of one's own pictures: from a source, through an autoencoder, into a store.

    import_pictures(Folder, [Path("pictures")], Path("store"), autoencoder, sizes={"resolution": 1024, ...})

`astolfo dataset import folder | tars | table` and the graph's own imports both come here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from astolfo.data.ingest.bucketing import Bucketing
from astolfo.data.ingest.colours import Reading
from astolfo.data.ingest.pictures import PLAIN, encoder
from astolfo.data.ingest.run import Report, refuse_another, run
from astolfo.data.join import both_ways

CROP, DRAW, BATCH = "kohya", "sample", 4  # what is done where nothing is said


def import_pictures(
    kind: Callable, places: Sequence[Path], out: Path, autoencoder: Any, *, sizes: Mapping[str, Any], file: Path | None = None,
    crop: str = CROP, draw: str = DRAW, seed: int = 0, batch: int = BATCH, device: str = "cpu", reading: Reading = PLAIN,
    flip: bool = False, **options: Any,
) -> Report:  # fmt: skip
    """Makes the store `out` of the pictures at `places`, encoded by diffusers' AutoencoderKL; raises as `run` does.

    `kind`: a class of pictures (`Folder`, `Tars`, `Table`); `sizes`: those of `Bucketing`, in pixels; `file`: the autoencoder's;
    `flip`: each picture is encoded mirrored too, for trainings that take either; `options`: those of `run`.
    """
    config = autoencoder.config
    factor = 2 ** (len(config.block_out_channels) - 1)
    encoding = encoder(autoencoder, draw=draw, seed=seed, batch=batch, device=device, file=file)
    about: dict[str, Any] = {}

    def make(into: Path, mirrored: bool) -> Report:
        way = replace(reading, mirrored=mirrored)
        source = kind(
            places, Bucketing(**sizes), crop=crop, draw=draw, factor=factor, channels=config.latent_channels, reading=way
        )
        about.update({} if mirrored else source.about)
        return run(source, into, encoding=encoding, **options)

    if not flip:
        return make(out, False)
    refuse_another(out, options.get("replace", False))
    digest, report = both_ways(out, make, about)
    return replace(report, folder=out, digest=digest)
