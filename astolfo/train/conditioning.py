"""What the UNet is told besides the noisy latents: the caption through the text encoders, and the picture's sizes.

SDXL reads both text encoders one layer before their last, joins them to 2,048 channels, and adds a pooled vector of the
second and six numbers of size and crop. SD 2.1 reads one encoder after its final norm.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from astolfo.data.store import Sample
from astolfo.data.tokens import FtfyTokenizer, chunks
from astolfo.data.vocabulary import tokenizer, tokenizers

Encoded = tuple[Tensor, Tensor | None]  # context, pooled vector
ROOM = 4 << 30  # bytes of the host's memory for conditioning that is remembered


class Text:
    """Both tokenizers and text encoders of a model, as one function from captions to conditioning."""

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        tokenizers: Sequence,
        *,
        tokens: int,
        context: str,
        mended: FtfyTokenizer | None = None,
    ):
        self.encoders, self.tokenizers, self.tokens, self.context = encoders, tokenizers, tokens, context
        self.mended = mended

    @classmethod
    def of(
        cls, parts: Mapping[str, nn.Module], vocabulary: Path, *, tokens: int, context: str, mends: bool = False,
        ftfy: str | None = None,
    ) -> "Text":  # fmt: skip
        """The text encoders among a model's `parts` with their tokenizers over the vocabulary in that folder.

        `mends`: whether ftfy mends captions before their tokens are read; `ftfy`: its version, where that was decided.
        """
        encoders = [parts[part] for part in ("text_encoder", "text_encoder_2") if part in parts]
        both = list(tokenizers(vocabulary)) if len(encoders) == 2 else [tokenizer(vocabulary, "!")]
        return cls(encoders, both, tokens=tokens, context=context, mended=FtfyTokenizer(both[0], ftfy) if mends else None)

    def __call__(self, captions: Sequence[str], device: torch.device | str) -> Encoded:
        """Context (batch, positions, channels) and, for SDXL, the pooled vector (batch, channels) of `captions`."""
        return self.encode(self.read(captions), device)

    def read(self, captions: Sequence[str]) -> list[Tensor]:
        """Each encoder's token numbers of `captions`, int64 (batch, chunks, 77), on the CPU. Any thread may ask."""
        return [torch.from_numpy(ids) for ids in chunks(self.tokenizers, captions, self.tokens, self.mended)]

    def encode(self, tokens: Sequence[Tensor], device: torch.device | str) -> Encoded:
        """Context and pooled vector, as above, from each encoder's token numbers."""
        hidden, pooled = [], None
        sdxl = len(self.encoders) == 2
        for encoder, ids in zip(self.encoders, tokens, strict=True):
            flat = ids.to(device, non_blocking=True).reshape(-1, ids.shape[-1])
            output = encoder(flat, output_hidden_states=sdxl)
            states = output.hidden_states[-2] if sdxl else output.last_hidden_state
            hidden.append(join_chunks(states.reshape(*ids.shape, -1), self.context))
            if hasattr(output, "text_embeds"):
                pooled = output.text_embeds.reshape(len(ids), ids.shape[1], -1)[:, 0]
        return torch.cat(hidden, dim=-1), pooled


class CachedText:
    """A `Text` whose encoders do not train: what tokens were encoded to is kept in the host's memory and is the same bits.

    Nothing is kept where the conditioning of `samples` captions, as many as the dataset has, would not fit into `room` bytes; nor
    more than that, where captions are drawn anew each time.
    """

    def __init__(self, text: Text, samples: int, room: int = ROOM):
        self.text, self.samples, self.room = text, samples, room
        self._known: dict[bytes, Encoded] = {}  # on the host
        self._here: dict[bytes, Encoded] = {}  # on the device, for the step that is computed
        self._held = 0  # bytes

    def begin(self, coming: Iterable[Sequence[Tensor]], device: torch.device | str) -> None:
        """Before a step: what the last one encoded goes to the host, and what is known of the `coming` tokens to the device.

        Both wait for the device, which has nothing to do yet; in the midst of a step it would be kept waiting.
        """
        for key, found in self._here.items():
            if key not in self._known:
                self._known[key] = _moved(found, "cpu")
        wanted = {key for key in map(_key, coming) if key in self._known}
        self._here = {key: self._here.get(key) or _moved(self._known[key], device) for key in wanted}

    def encode(self, tokens: Sequence[Tensor], device: torch.device | str) -> Encoded:
        """As `Text`'s."""
        key = _key(tokens)
        if key in self._here:
            return self._here[key]
        if key in self._known:
            found = _moved(self._known[key], device)
        else:
            found = self.text.encode(tokens, device)
            size = sum(value.nbytes for value in found if value is not None)
            if size * self.samples > self.room * len(tokens[0]) or self._held + size > self.room:
                return found
            self._held += size
        self._here[key] = found
        return found


def _key(tokens: Sequence[Tensor]) -> bytes:
    """What conditioning is remembered by.

    The tokens of the whole batch, since kernels may sum in another order when it has another size; and of both encoders, since
    a caption that ends with the first one's padding, written out, is not the second one's.
    """
    return b"".join(ids.numpy().tobytes() for ids in tokens)


def _moved(found: Encoded, device: torch.device | str) -> Encoded:
    queued = torch.device(device).type != "cpu"  # what the host is to have it must have when this returns
    context, pooled = found
    return context.to(device, non_blocking=queued), pooled if pooled is None else pooled.to(device, non_blocking=queued)


def join_chunks(states: Tensor, context: str) -> Tensor:
    """(batch, chunks, 77, channels) -> (batch, positions, channels).

    "inference" keeps each chunk whole, as the programs that sample do (231 positions for three chunks); "stripped" keeps
    only the first begin token and the last chunk's last token, as sd-scripts trains (227).
    """
    if context == "inference" or states.shape[1] == 1:
        return states.flatten(1, 2)
    inner = states[:, :, 1:-1].flatten(1, 2)
    return torch.cat([states[:, 0, :1], inner, states[:, -1, -1:]], dim=1)


def time_ids(samples: Sequence[Sample]) -> Tensor:
    """SDXL's six numbers per sample: original height and width, crop top and left, target height and width (pixels)."""
    rows = [(*sample.original_size, *sample.crop, *sample.target_size) for sample in samples]
    return torch.from_numpy(np.array(rows, np.float32))
