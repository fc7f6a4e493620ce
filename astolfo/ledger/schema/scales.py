"""Scales, which give every entry its sizes, and machines that runs can be placed on."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from astolfo.ledger.schema.entry import Entry, Family, Rate
from astolfo.ledger.schema.sources import Origin
from astolfo.ledger.schema.training import Precision


class Measurement(Entry):
    """A speed that was measured on a machine, with what the run did; what is not said is not known."""

    images_per_second: Annotated[float, Field(gt=0)]
    devices: PositiveInt | None = None  # None: all of the machine's
    unet: Literal[63, 68, 71, 100] | None = None
    text_encoders: bool | None = None  # whether they trained
    optimizer: str | None = None
    batch_size: PositiveInt | None = None
    accumulation: PositiveInt | None = None
    note: str


class Power(Entry):
    """What a machine draws while it trains, and where that figure comes from."""

    watts: Annotated[float, Field(gt=0)]
    source: str


class Card(Entry):
    """A card that people train on, by its vendor; what is left out is not known."""

    title: str
    driver: tuple[str, ...] = ()  # its names in the driver; none: NVIDIA and the title
    memory_gib: Annotated[float, Field(gt=0)]  # as the driver reports it
    compute_capability: tuple[int, int] | None = None
    peak_tflops: Annotated[float, Field(gt=0)] | None = None  # 16-bit, dense, summed in fp32
    watts: Annotated[float, Field(gt=0)] | None = None
    source: str | None = None  # where the peak is from


class Hardware(Entry):
    """A machine that runs can be placed on. `devices` of a CPU machine are its cores; what is left out is not known."""

    title: str
    device: Literal["cpu", "cuda"]
    devices: PositiveInt = 1
    device_memory_gib: float | None = None
    compute_capability: tuple[int, int] | None = None
    host_memory_gib: Annotated[float, Field(gt=0)] | None = None  # of the machine itself
    peak_tflops: float | None = None  # 16-bit, dense, per device, as the vendor has it
    peak_source: str | None = None
    numa_nodes: PositiveInt | None = None
    ramdisk_gib: float | None = None
    power: Power | None = None
    measured: tuple[Measurement, ...] = ()


class AutoencoderTraining(Entry):
    """How the miniature's autoencoder is trained from nothing: on how many pictures of which seed, for how long."""

    images: PositiveInt
    seed: int
    steps: PositiveInt
    batch: PositiveInt
    learning_rate: Rate


class Buckets(Entry):
    """Which sizes pictures are trained at: sides from `smallest` to `largest` in steps, at most `resolution` squared; pixels."""

    resolution: PositiveInt
    smallest: PositiveInt
    largest: PositiveInt
    step: PositiveInt


class Scale(Entry):
    """Sizes, and nothing but sizes: what a run's recipe becomes at this scale."""

    device: Literal["cpu", "cuda"]
    protect_results: bool
    learning_rate_multiplier: Annotated[float, Field(gt=0)] = 1.0
    max_segments: PositiveInt | None = None
    precision: Precision | None = None
    architectures: dict[Family, dict[str, Any]]
    buckets: dict[Family, Buckets]
    pictures: dict[str, Any] | None = None
    autoencoder_training: AutoencoderTraining | None = None
    vocabulary: Origin
