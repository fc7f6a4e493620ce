"""The shape of the ledger's files: what an entry may say, and in which words.

An unknown key is an error. A run's key replaces its era's default as a whole; nothing is merged below that level, so a
reader sees the effective value in one of two places.
"""

from astolfo.ledger.schema.about import About
from astolfo.ledger.schema.blocks import UNet, UNetBlocks
from astolfo.ledger.schema.entry import Digest, Entry, Family, ObjectiveKind, Rate, six_digits
from astolfo.ledger.schema.objective import Loss, MultiresNoise, Objective
from astolfo.ledger.schema.optimizer import OPTIMIZERS, Optimizer
from astolfo.ledger.schema.runs import Block, Blocks, Era, Outcome, Placement, RunEntry, RunFields
from astolfo.ledger.schema.scales import AutoencoderTraining, Buckets, Card, Hardware, Measurement, Power, Scale
from astolfo.ledger.schema.sources import Base, Dataset, Mecha, Merge, Origin, ScaleDataset, StandIn
from astolfo.ledger.schema.training import (
    SEMANTICS,
    Captions,
    Choices,
    Engine,
    LearningRate,
    Precision,
    SaveEvery,
    Schedule,
    values_of,
)

__all__ = [
    "OPTIMIZERS",
    "SEMANTICS",
    "About",
    "AutoencoderTraining",
    "Base",
    "Block",
    "Blocks",
    "Buckets",
    "Captions",
    "Card",
    "Choices",
    "Dataset",
    "Digest",
    "Engine",
    "Entry",
    "Era",
    "Family",
    "Hardware",
    "LearningRate",
    "Loss",
    "Measurement",
    "Mecha",
    "Merge",
    "MultiresNoise",
    "Objective",
    "ObjectiveKind",
    "Optimizer",
    "Origin",
    "Outcome",
    "Placement",
    "Power",
    "Precision",
    "Rate",
    "RunEntry",
    "RunFields",
    "SaveEvery",
    "Scale",
    "ScaleDataset",
    "Schedule",
    "StandIn",
    "UNet",
    "UNetBlocks",
    "six_digits",
    "values_of",
]
