"""Small makers of model files as people have them: whole ones with a peculiarity, and what is no model at all.

`ODD`: name -> (how the tensors of a good toy SDXL model are changed, what becomes of it). What becomes of it is one of
"taken" (and what is said), or "refused" by all verbs that know the architecture, with what is said.
`BROKEN`: name -> (how the bytes of a good file are changed, what every verb says).
"""

import json
import struct

import numpy as np
import torch

L, G = "conditioner.embedders.0.", "conditioner.embedders.1.model."
IDS = f"{L}transformer.text_model.embeddings.position_ids"
PROJECTION = f"{G}text_projection"
UNET = "model.diffusion_model.input_blocks.0.0.weight"
NORM = "model.diffusion_model.out.0.weight"
VAE = "first_stage_model.decoder.conv_in.weight"


def ids(dtype, scale=1.0):
    return (np.arange(77) * scale).astype(dtype)[None]


def bfloat(values):
    """Values in fp32 as torch's bfloat16."""
    return torch.from_numpy(values).bfloat16()


def add(**more):
    """A change that adds tensors; names are given with __ for a dot."""
    return lambda tensors: tensors | {key.replace("__", "."): value for key, value in more.items()}


def put(key, value):
    """A change that sets one tensor, from the tensors where `value` is a function."""
    return lambda tensors: tensors | {key: value(tensors) if callable(value) else value}


def without(prefix):
    """A change that leaves out all keys that begin so."""
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if not key.startswith(prefix)}


def named(change):
    """A change of every key."""
    return lambda tensors: {change(key): tensor for key, tensor in tensors.items()}


def spoilt(key, value):
    def change(tensors):
        bad = tensors[key].copy()
        bad.reshape(-1)[:3] = value
        return tensors | {key: bad}

    return change


TAKEN, REFUSED = "taken", "refused"
ODD = {
    # as ComfyUI, kohya's and A1111's tools save
    "plain": (lambda tensors: tensors, TAKEN, ""),
    "position ids": (put(IDS, ids("i8")), TAKEN, ""),
    "position ids in one dimension": (put(IDS, ids("i8")[0]), TAKEN, ""),
    "position ids of a half merge": (put(IDS, ids("f2", 0.58)), TAKEN, "0 to 76 is written"),
    "position ids in fp16": (put(IDS, ids("f2")), TAKEN, "0 to 76 is written"),
    "position ids in fp32": (put(IDS, ids("f4")), TAKEN, "0 to 76 is written"),
    "position ids in int32": (put(IDS, ids("i4")), TAKEN, "0 to 76 is written"),
    "position ids that are NaN": (put(IDS, ids("f4", np.nan)), TAKEN, "0 to 76 is written"),
    "position ids in bf16": (put(IDS, lambda t: bfloat(ids("f4", 0.58))), TAKEN, "0 to 76 is written"),
    "position ids without a shape": (put(IDS, np.int64(0)), REFUSED, "has the shape [], expected [1, 77]"),
    "no position ids in their tensor": (put(IDS, np.empty(0, "f4")), REFUSED, "has the shape [0], expected [1, 77]"),
    "position ids as a column": (put(IDS, ids("i8").T), REFUSED, "has the shape [77, 1], expected [1, 77]"),
    "position ids of a longer context": (put(IDS, np.arange(248)[None]), REFUSED, "has the shape [1, 248], expected [1, 77]"),
    "position ids backwards": (put(IDS, ids("i8")[:, ::-1]), REFUSED, "expected 0 to 76"),
    "position ids of the second encoder": (put(f"{G}transformer.text_model.embeddings.position_ids", ids("i8")), TAKEN, "left out"),
    "the same in fp16": (put(f"{G}transformer.text_model.embeddings.position_ids", ids("f2", 0.58)), TAKEN, "left out"),
    "the same backwards": (put(f"{G}transformer.text_model.embeddings.position_ids", ids("i8")[:, ::-1]), REFUSED, "expected 0"),
    "a projection of CLIP-L": (put(f"{L}transformer.text_projection.weight", np.eye(16, dtype="f2")), TAKEN, "left out"),
    "a scale of CLIP-L": (put(f"{L}logit_scale", np.float32(4.6)), TAKEN, "left out"),
    "a second spelling of the projection": (put(f"{PROJECTION}.weight", lambda t: t[PROJECTION].T), TAKEN, "a copy of"),
    "the same in another dtype": (put(f"{PROJECTION}.weight", lambda t: t[PROJECTION].T.astype("f4")), TAKEN, "a copy of"),
    "a projection under its second name alone": (
        lambda t: {k if k != PROJECTION else f"{k}.weight": v for k, v in t.items()}, REFUSED, "is there without"),
    "another projection": (put(f"{PROJECTION}.weight", lambda t: t[PROJECTION].T + 1), REFUSED, "says something else"),
    "an untransposed projection": (put(f"{PROJECTION}.weight", lambda t: t[PROJECTION]), REFUSED, "says something else"),
    "a projection of another shape": (put(f"{PROJECTION}.weight", np.zeros((3, 3), "f2")), REFUSED, "says something else"),
    "a projection in fp64": (put(f"{PROJECTION}.weight", lambda t: t[PROJECTION].T.astype("f8")), TAKEN, "a copy of"),
    "a scale": (put(f"{G}logit_scale", np.float32(4.6)), TAKEN, ""),
    "averages of training": (put("model_ema.diffusion_modelinput_blocks00weight", np.zeros(3, "f4")), TAKEN, "averages of training"),
    "a decay of averages": (put("model_ema.decay", np.float32(0.999)), TAKEN, "averages of training"),
    "a loss of the autoencoder": (put("first_stage_model.loss.logvar", np.zeros((), "f4")), TAKEN, "autoencoder's training"),
    "a schedule": (put("alphas_cumprod", np.linspace(1, 0, 9, dtype="f4")), TAKEN, ""),
    "schedules in half": (add(betas=np.zeros(9, "f2"), sqrt_alphas_cumprod=np.ones(9, "f2"), edm_mean=np.ones(4, "f2")), TAKEN, ""),
    "an embedding": (put("bundle_emb.a girl.clip_g", np.ones((2, 3), "f2")), TAKEN, ""),
    "sigmas": (put("denoiser.sigmas", np.linspace(0, 14, 9, dtype="f4")), TAKEN, ""),
    "a marker": (put("v_pred", np.empty(0, "f4")), TAKEN, ""),
    "both markers": (add(v_pred=np.empty(0, "f4"), ztsnr=np.empty(0, "f4")), TAKEN, ""),
    "an empty tensor": (put("nothing", np.empty((0, 4), "f2")), TAKEN, ""),
    "a stranger outside its parts": (put("my.note", np.zeros(2, "f4")), TAKEN, ""),
    "weights in fp32": (lambda t: {key: value.astype("f4") for key, value in t.items()}, TAKEN, ""),
    "linear attention in the autoencoder": (
        lambda t: {k: v[..., 0, 0] if ".attn_1." in k and v.ndim == 4 else v for k, v in t.items()}, TAKEN, ""),
    # no whole models
    "no autoencoder": (without("first_stage_model."), REFUSED, "its vae lacks"),
    "no UNet": (without("model.diffusion_model."), REFUSED, "its unet lacks"),
    "no first text encoder": (without(L), REFUSED, "its text_encoder lacks"),
    "no second text encoder": (without(G), REFUSED, "found a part of a model"),
    "one key less": (without(NORM), REFUSED, f"lacks 1 keys: {NORM}"),
    "a key more": (put("model.diffusion_model.control.0.weight", np.zeros(3, "f2")), REFUSED, "beyond this architecture"),
    "keys of quantisation": (put(f"{UNET}.absmax", np.zeros(3, "f4")), REFUSED, "beyond this architecture"),
    "a scale of fp8": (put("model.diffusion_model.out.2.scale_weight", np.float32(1)), REFUSED, "beyond this architecture"),
    "another shape": (put(NORM, np.zeros(3, "f2")), REFUSED, "has wrong shapes"),
    "a weight as a number": (put(NORM, np.float32(1)), REFUSED, "has wrong shapes"),
    "a weight of no size": (put(NORM, np.empty(0, "f2")), REFUSED, "has wrong shapes"),
    "weights in int8": (put(NORM, lambda t: t[NORM].astype("i1")), REFUSED, "no floats as weights"),
    "weights in uint8": (put(NORM, lambda t: t[NORM].astype("u1")), REFUSED, "no floats as weights"),
    "weights in bool": (put(NORM, lambda t: t[NORM] > 0), REFUSED, "no floats as weights"),
    "a LoRA": (lambda t: {f"lora_unet_x{n}.lora_down.weight": np.zeros((4, 4), "f2") for n in range(3)}, REFUSED, "LoRA"),
    "a LoRA of PEFT": (lambda t: {f"unet.x{n}.lora_A.weight": np.zeros((4, 4), "f2") for n in range(3)}, REFUSED, "LoRA"),
    "a LyCORIS": (lambda t: {"lora_te1_x.hada_w1_a": np.zeros((4, 4), "f2")}, REFUSED, "LoRA"),
    "a diffusers UNet": (lambda t: {"down_blocks.0.resnets.0.conv1.weight": np.zeros(3, "f2")}, REFUSED, "a diffusers UNet"),
    "an autoencoder": (lambda t: {k.removeprefix("first_stage_model."): v for k, v in t.items() if k.startswith("first_stage")},
                       REFUSED, "found unknown"),
    "an SD 1 model": (lambda t: {"cond_stage_model.transformer.text_model.x": np.zeros(3, "f2")}, REFUSED, "found sd1"),
    "an SD 3 model": (lambda t: {"model.diffusion_model.joint_blocks.0.x": np.zeros(3, "f2")}, REFUSED, "found sd3"),
    "a Flux model": (lambda t: {"double_blocks.0.x": np.zeros(3, "f2")}, REFUSED, "found flux"),
    "a refiner": (lambda t: {"conditioner.embedders.0.model.x": np.zeros(3, "f2")}, REFUSED, "found sdxl-refiner"),
    "nothing": (lambda t: {}, REFUSED, "found unknown"),
    "another prefix": (named(lambda key: f"net.{key}"), REFUSED, "found unknown"),
    "capital letters": (named(str.upper), REFUSED, "found unknown"),
    # numbers that are none
    "NaN in a weight": (spoilt(NORM, np.nan), TAKEN, "3 NaN and 0 infinite values in 1 tensors"),
    "an infinity in a weight": (spoilt(UNET, np.inf), TAKEN, "0 NaN and 3 infinite values in 1 tensors"),
    "NaN in a stranger": (put("my.note", np.full(2, np.nan, "f8")), TAKEN, "2 NaN"),
}  # fmt: skip


def header_of(content):
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def packed(header, data, text=None):
    text = json.dumps(header).encode() if text is None else text
    return struct.pack("<Q", len(text)) + text + data


def headed(change):
    """A change of the header; the data stay."""

    def make(content):
        header, data = header_of(content)
        return packed(change(header) or header, data)

    return make


def entry(**changes):
    """A change of one tensor's entry."""
    return headed(lambda header: header | {NORM: header[NORM] | changes})


def text_of(change):
    """A change of the header's text."""

    def make(content):
        header, data = header_of(content)
        return packed(None, data, change(json.dumps(header)).encode())

    return make


def length(number):
    return lambda content: struct.pack("<Q", number) + content[8:]


OFFSETS = {
    "no": [],
    "one": [0],
    "falling": [8, 0],
    "negative": [-4, 4],
    "huge": [0, 2**62],
    "fractions": [0.0, 4.0],
    "text": "0, 4",
}
BROKEN = {
    "0 bytes": (lambda c: b"", "it is empty or was cut off"),
    "7 bytes": (lambda c: c[:7], "it is empty or was cut off"),
    "8 bytes": (lambda c: c[:8], "a header within the file"),
    "half a header": (lambda c: c[:100], "a header within the file"),
    "half its data": (lambda c: c[: len(c) // 2], "the file was cut off"),
    "a byte less": (lambda c: c[:-1], "the file was cut off"),
    "a byte more": (lambda c: c + b"\0", "something follows the last tensor"),
    "twice itself": (lambda c: c + c, "something follows the last tensor"),
    "zeros": (lambda c: bytes(len(c)), "a header in JSON"),
    "a header of no length": (length(0), "a header in JSON"),
    "a header of 2**63 bytes": (length(2**63), "a header within the file"),
    "a header of 200 MB": (length(200_000_000), "a header within the file"),
    "a header of one byte": (length(1), "a header in JSON"),
    "a header that is no JSON": (text_of(lambda t: t.replace(":", "=", 1)), "a header in JSON"),
    "a header that is a list": (text_of(lambda t: "[]"), "a JSON object as header"),
    "a header that is nested": (text_of(lambda t: "[" * 100_000), "a header in JSON"),
    "a header in UTF-16": (lambda c: packed(None, b"", "{}".encode("utf-16")), "a header in JSON"),
    "a key twice": (text_of(lambda t: t.replace("{", '{"a": 1, "a": 2, ', 1)), "each key once"),
    "an entry twice": (text_of(lambda t: t.replace('{"dtype"', '{"dtype": "F16", "dtype"', 1)), "each key once"),
    "a key with an escape": (headed(lambda h: {f"{k}\x1b[31m": v for k, v in h.items()}), "names of tensors in plain text"),
    "a key with half a character": (text_of(lambda t: t.replace("model", "\\ud800", 1)), "names of tensors in plain text"),
    "metadata that is no text": (headed(lambda h: h | {"__metadata__": {"a": 1}}), "maps text to text"),
    "metadata that is a list": (headed(lambda h: h | {"__metadata__": ["a"]}), "maps text to text"),
    "metadata with half a character": (
        text_of(lambda t: t.replace("{", '{"__metadata__": {"a": "\\ud800"}, ', 1)),
        "valid Unicode",
    ),
    "an unknown dtype": (entry(dtype="F4_SCALED"), "as dtype of"),
    "a dtype in small letters": (entry(dtype="f16"), "as dtype of"),
    "no dtype": (headed(lambda h: h | {NORM: {"shape": [1], "data_offsets": [0, 2]}}), "dtype, shape and data_offsets"),
    "an entry more": (entry(note="x"), "dtype, shape and data_offsets"),
    "an entry that is null": (headed(lambda h: h | {NORM: None}), "dtype, shape and data_offsets"),
    "another shape than bytes": (entry(shape=[5]), "bytes for"),
    "a shape beyond 2**63": (entry(shape=[2**62, 8]), "bytes for"),
    "a shape of many": (entry(shape=[1] * 65), "a shape and two rising offsets"),
    "a negative shape": (entry(shape=[-4]), "a shape and two rising offsets"),
    "a shape of truth": (entry(shape=[True]), "a shape and two rising offsets"),
    **{f"offsets: {name}": (entry(data_offsets=value), "rising offsets|bytes for") for name, value in OFFSETS.items()},
    "overlapping tensors": (headed(lambda h: h | {"zz": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}), "overlaps"),
    "a hole": (headed(lambda h: {k: v for k, v in h.items() if k != NORM}), "unused bytes"),
    "a pickle": (lambda c: b"\x80\x04\x95" + c, "a pickle"),
    "an old pickle": (lambda c: b"\x80\x02}q\x00" + c, "a pickle"),
    "a .ckpt": (lambda c: b"PK\x03\x04" + c, "a pickle"),
    "a web page": (lambda c: b"<!DOCTYPE html><title>Log in</title>", "a web page"),
    "a pointer of LFS": (lambda c: b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    "a GGUF": (lambda c: b"GGUF\3\0\0\0" + c, "a GGUF file"),
    "an HDF5 file": (lambda c: b"\x89HDF\r\n\x1a\n" + c, "an HDF5 file"),
    "a PNG": (lambda c: b"\x89PNG\r\n\x1a\n" + c, "safetensors"),
    "text": (lambda c: b"this is no model", "safetensors"),
}
