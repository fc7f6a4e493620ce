"""What is in a store, for people: counts, captions as the trainer sees them, duplicates, and a contact sheet.

summary(store, reading)             buckets, captions, duplicates; with a way to read captions how long they are in tokens
described(store, row, reading)      one sample, its caption cut into the chunks that the text encoders read
sheet(store, autoencoder, ...)      a picture of some samples, decoded
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from astolfo import randomness
from astolfo.data.captions import caption
from astolfo.data.store import CAPTIONS, Store
from astolfo.data.tokens import CHUNK, FtfyTokenizer, chunks
from astolfo.ledger.schema import SEMANTICS, Captions

_CELL, _TEXT, _GAP = 224, 76, 12
_MOST_READ = 20_000  # captions that are tokenized for the histogram
_BAR = 40


@dataclass(frozen=True)
class Reading:
    """How captions are read: a tokenizer, which text of a sample is taken, and the semantics that join and mend it."""

    words: Any
    captions: Captions
    semantics: str = "reference"

    def text(self, store: Store, row: int, position: int = 0) -> str:
        """The caption of a row, with what is drawn at a position of the data order."""
        tags, sentence = store.captions(row)
        way = SEMANTICS[self.semantics].captions
        return caption(self.captions, tags, sentence, seed=0, position=position, way=way)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, without begin and end."""
        if self._mended:
            return [len(self._mended(text)) for text in texts]
        return [len(ids) for ids in self.words(texts, add_special_tokens=False, verbose=False)["input_ids"]]

    def chunks(self, text: str) -> list[str]:
        """The chunks of a caption, each as its number of tokens and their text."""
        found, words = [], self.words
        for ids in chunks([words], [text], self.captions.tokens, self._mended)[0][0].tolist():
            inner = ids[1:]
            end = inner.index(words.eos_token_id) if words.eos_token_id in inner else CHUNK
            kept = [token for token in words.convert_ids_to_tokens(inner[: min(end, CHUNK)]) if token]
            found.append(f"{len(kept):>2} tokens  {''.join(kept).replace('</w>', ' ').strip()}")
        return found

    def __str__(self) -> str:
        return f"{self.captions.kind}, semantics: {self.semantics}"

    @cached_property
    def _mended(self) -> FtfyTokenizer | None:
        return FtfyTokenizer(self.words) if SEMANTICS[self.semantics].text == "ftfy" else None


def summary(store: Store, reading: Reading | None = None) -> str:
    """The store in some lines; `reading` adds how long its captions are."""
    size = sum((store.folder / shard["file"]).stat().st_size for shard in store.manifest["shards"])
    lines = [
        f"{store.folder}: {len(store):,} samples in {len(store.buckets)} buckets, {len(store.manifest['shards']):,} shards, "
        f"{size / 2**30:,.2f} GiB of latents",
        f"digest {store.digest}",
        "",
    ]
    most = max(store.counts)
    for bucket in store.buckets:
        bar = "#" * round(_BAR * bucket["count"] / most)
        lines.append(f"  {bucket['width']:>5} x {bucket['height']:<5} {bucket['count']:>12,}  {bar}")
    lines += ["", *_texts(store), *_duplicates(store)]
    if reading:
        lines += ["", *_lengths(store, reading)]
    return "\n".join(lines)


def _texts(store: Store) -> Iterator[str]:
    """How many samples have which captions."""
    count = {key: 0 for key in ((True, True), (True, False), (False, True), (False, False))}
    for batch in store.batches(CAPTIONS):
        tags, sentence = (
            np.diff(np.frombuffer(column.buffers()[1], np.int32)[: len(column) + 1]) > 0 for column in batch.columns
        )
        for key in count:
            count[key] += int(((tags == key[0]) & (sentence == key[1])).sum())
    names = {(True, True): "tags and a sentence", (True, False): "tags alone", (False, True): "a sentence alone",
             (False, False): "no caption at all"}  # fmt: skip
    yield from (f"{number:,} with {names[key]}" for key, number in count.items() if number)


def _duplicates(store: Store) -> Iterator[str]:
    """Samples whose latents are another's, to the bit. Eight bytes a sample; the whole digest decides."""
    heads = np.concatenate([np.frombuffer(batch.column("digest").buffers()[1], "V32")[: len(batch)].view("<u8")[::4]
                            for batch in store.batches()])  # fmt: skip
    ordered = np.sort(heads)
    doubtful = np.flatnonzero(np.isin(heads, ordered[1:][ordered[1:] == ordered[:-1]])).tolist()
    same: dict[bytes, list[str]] = {}
    for row in doubtful:
        found = store.row(row)
        same.setdefault(found["digest"], []).append(found["id"])
    groups = [names for names in same.values() if len(names) > 1]
    yield f"{sum(len(names) - 1 for names in groups):,} duplicates by content"
    yield from (f"  {' = '.join(names[:5])}{' ...' if len(names) > 5 else ''}" for names in groups[:5])


def _lengths(store: Store, reading: Reading) -> Iterator[str]:
    """A histogram of caption lengths in tokens, of up to _MOST_READ samples spread over the store."""
    rows = np.unique(np.linspace(0, len(store) - 1, min(len(store), _MOST_READ)).astype(int)).tolist()
    lengths = np.array(reading.lengths([reading.text(store, row) for row in rows]))
    read = f"{len(rows):,} of them, " if len(rows) < len(store) else ""
    yield f"captions ({reading}) in tokens, {read}median {np.median(lengths):.0f}, longest {lengths.max()}:"
    edges = np.arange(0, 10 * 25, 25)
    counts = [int(((lengths >= edge) & (lengths < edge + 25)).sum()) for edge in edges] + [int((lengths >= 250).sum())]
    for edge, count in zip((*edges, 250), counts, strict=True):
        bound = f"{edge:>3} to {edge + 24:>3}" if edge < 250 else "250 or more"
        if count:
            yield f"  {bound:<11} {count:>12,}  {'#' * round(_BAR * count / max(counts))}"
    over = int((lengths > reading.captions.tokens).sum())
    yield f"  {over:,} are longer than the {reading.captions.tokens} tokens that are read"


def described(store: Store, row: int, reading: Reading | None = None) -> str:
    """One sample in some lines; `reading` adds its caption as the chunks that the trainer reads."""
    sample, digest = store.sample(row), store.row(row)["digest"].hex()
    (height, width), (top, left), target = sample.original_size, sample.crop, sample.target_size
    lines = [
        f"{sample.id} (row {row:,}): picture of {width} x {height} pixels, trained at {target[1]} x {target[0]}, "
        f"crop {left} from the left, {top} from the top",
        f"latents {list(sample.latents.shape)} {sample.latents.dtype}, mean {sample.latents.mean():.4f}, "
        f"deviation {sample.latents.std():.4f}, sha256 {digest}",
        f"tags: {sample.tags}",
        f"sentence: {sample.sentence}",
    ]
    if reading:
        text = reading.text(store, row, row)
        lines.append(f"as trained ({reading}, {reading.captions.tokens} tokens): {text}")
        lines += [f"  chunk {number}: {shown}" for number, shown in enumerate(reading.chunks(text), start=1)]
    return "\n".join(lines)


def sheet(store: Store, autoencoder: Any, *, count: int, seed: int, columns: int = 4) -> Image.Image:
    """A contact sheet of `count` samples, picked by `seed`: each decoded, with its ID and the beginning of its captions."""
    rows = randomness.permuted(seed, "sheet", np.arange(min(count, len(store))), len(store)).tolist()
    columns = min(columns, len(rows))
    step_x, step_y = _CELL + _GAP, _CELL + _TEXT + _GAP
    page = Image.new("RGB", (columns * step_x + _GAP, -(-len(rows) // columns) * step_y + _GAP), (252, 252, 250))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for number, row in enumerate(sorted(rows)):
        x, y = _GAP + number % columns * step_x, _GAP + number // columns * step_y
        sample = store.sample(row)
        picture = _fitted(decoded(autoencoder, sample.latents))
        page.paste(picture, (x + (_CELL - picture.width) // 2, y + (_CELL - picture.height) // 2))
        texts = [sample.id, *_lines(draw, font, " | ".join(filter(None, (sample.tags, sample.sentence))))]
        for line, text in enumerate(texts[:5]):
            draw.text((x, y + _CELL + 4 + 14 * line), text, fill=(28, 28, 32) if line else (96, 96, 104), font=font)
    return page


def decoded(autoencoder: Any, latents: np.ndarray) -> np.ndarray:
    """The picture, uint8 (height, width, 3), of a sample's latents."""
    import torch

    from astolfo.data.pixels import to_pictures

    with torch.no_grad():
        return to_pictures(autoencoder.decode(torch.from_numpy(latents.astype(np.float32))[None]).sample)[0].numpy()


def _fitted(picture: np.ndarray) -> Image.Image:
    """The picture in a cell: enlarged by whole pixels when it is small, reduced smoothly when it is large."""
    scale = _CELL / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return Image.fromarray(picture).resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _lines(draw: ImageDraw.ImageDraw, font: Any, text: str) -> Sequence[str]:
    """Words in lines of a cell's width; a word that is longer than that is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=font) <= _CELL or not lines[-1]:
            lines[-1] = longer[:40]
        else:
            lines.append(word[:40])
    return lines
