"""Our files and the programs that load them: diffusers and transformers themselves, at toy size and (slow) at full size."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.folder import write_folder
from astolfo.checkpoint.layout import places
from astolfo.checkpoint.model import load, load_state_dicts, save
from astolfo.checkpoint.safefile import Pending, write_file

FULL = Path(__file__).parents[2] / "astolfo/library/scales/full.yaml"
CLASSES = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
}


def tokenizer(folder):
    """A CLIP tokenizer of a handful of words; it never sees a text here."""
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    words = ["<|startoftext|>", "<|endoftext|>", "a", "b", "a</w>", "b</w>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def pipeline_of(path, architecture, folder):
    """What diffusers makes of a single file, with nothing but local configs."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    xl = architecture.family == "sdxl"
    given = {"tokenizer": tokenizer(folder / "words"), "scheduler": DDIMScheduler(steps_offset=1, clip_sample=False)}
    given |= {"tokenizer_2": given["tokenizer"]} if xl else {"safety_checker": None, "feature_extractor": None}
    cls = StableDiffusionXLPipeline if xl else StableDiffusionPipeline
    index = {"_class_name": cls.__name__, "_diffusers_version": "0.21.0"}
    index |= {part: CLASSES[part] for part in architecture.parts} | {
        name: [None, None] for name in given if name in ("safety_checker", "feature_extractor")
    }
    index |= {name: ["transformers", "CLIPTokenizer"] for name in given if name.startswith("tokenizer")} | {
        "scheduler": ["diffusers", "DDIMScheduler"]
    }
    for part in architecture.parts:
        write_configs(folder / part / "config.json", architecture, part)
    (folder / "model_index.json").write_text(json.dumps(index))
    return cls.from_single_file(str(path), config=str(folder), local_files_only=True, **given)


def write_configs(path, architecture, part):
    """One part's config.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"model_type": "clip_text_model"} if part.startswith("text_encoder") else {"_class_name": CLASSES[part][1]}
    path.write_text(json.dumps(architecture.config(part) | about))


def agrees(architecture, pipeline, states):
    """Whether every part of the pipeline has exactly our weights."""
    for part in architecture.parts:
        theirs = getattr(pipeline, part).state_dict()
        assert set(theirs) == set(states[part])
        for name, tensor in states[part].items():
            assert torch.equal(theirs[name].float(), tensor.float()), f"{part}.{name}"


def test_diffusers_loads_our_file(tmp_path, architecture, states):
    """StableDiffusion(XL)Pipeline.from_single_file finds the same tensors in our file, in all parts."""
    mine = states(architecture)
    save(tmp_path / "ours.safetensors", mine, architecture, dtypes="fp32")
    agrees(architecture, pipeline_of(tmp_path / "ours.safetensors", architecture, tmp_path / "configs"), mine)


def test_what_diffusers_saves_loads_here(tmp_path, architecture, states):
    """A folder written by save_pretrained of each class gives the same weights, text encoders included."""
    mine = states(architecture)
    for part in architecture.parts:
        module = architecture.build(part, device="cpu")
        module.load_state_dict(mine[part])
        module.save_pretrained(tmp_path / "theirs" / part, safe_serialization=True)
    found = load_state_dicts(tmp_path / "theirs", architecture)
    assert all(torch.equal(found[part][name], tensor) for part in mine for name, tensor in mine[part].items())


def test_their_classes_load_our_folder(tmp_path, sdxl, states):
    """from_pretrained of each class reads the folder that we write."""
    mine = states(sdxl)
    write_folder(tmp_path / "ours", mine, sdxl)
    for part in sdxl.parts:
        theirs = type(sdxl.build(part)).from_pretrained(tmp_path / "ours" / part, local_files_only=True).state_dict()
        assert all(torch.equal(theirs[name], tensor) for name, tensor in mine[part].items())


@pytest.mark.slow
def test_a_full_size_file_is_loaded_by_diffusers(tmp_path):
    """True SDXL shapes: from_single_file and `load` find the same tensors in a 6.9 GB file (needs 24 GB of memory)."""
    architecture = Architecture.from_mapping(yaml.safe_load(FULL.read_text())["architectures"]["sdxl"], "sdxl")
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for place in (place for part in architecture.parts for place in places(architecture, part)):
        make = lambda shape=place.shape: (torch.rand(shape, generator=generator) - 0.5).half().numpy()  # noqa: E731
        tensors[place.key] = Pending("F16", place.shape, make)
    write_file(tmp_path / "full.safetensors", tensors)
    pipeline = pipeline_of(tmp_path / "full.safetensors", architecture, tmp_path / "configs")
    for part in architecture.parts:
        ours = load(tmp_path / "full.safetensors", architecture, [part])[part].state_dict()
        theirs = getattr(pipeline, part).state_dict()
        setattr(pipeline, part, None)
        assert set(theirs) == set(ours)
        assert all(torch.equal(theirs[name].half(), ours[name]) for name in ours)
    (tmp_path / "full.safetensors").unlink()
