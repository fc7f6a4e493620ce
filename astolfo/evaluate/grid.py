"""The grid: one labelled picture of an evaluation, rows of prompts, columns along an axis in groups along another; PNG files.

Drawn with Pillow and the font that it embeds; the same numbers give the same bytes (no date, one compression level).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from astolfo.files import written

CELL, SMALL_CELL, MANY = 132, 88, 10  # pixels of a cell's longer side, about, and with so many columns or more
_GAP, _GROUP_GAP, _MARGIN, _LABEL = 6, 22, 18, 188
_SMALLEST = 7  # letters that can still be read, in pixels
_PAPER, _INK, _GREY, _LINE = (252, 252, 250), (28, 28, 32), (96, 96, 104), (205, 205, 208)
VERDICT_INK = {"works": (17, 110, 48), "kinda works": (120, 100, 0), "blur": (148, 84, 0), "broken": (190, 24, 40)}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: the `group` that it stands in, its `heading`, its verdict's `word` and `count`, one picture per row."""

    group: str
    heading: str
    word: str
    count: str
    pictures: Sequence[np.ndarray]


def draw_grid(
    labels: Sequence[str], columns: Sequence[Column], targets: Sequence[np.ndarray] | None, *, title: str, note: str
) -> Image.Image:
    """The grid as a picture: a label per row, then what was asked (where it is known), then the columns.

    Columns of one `group` stand together under its name, which must be consecutive.
    """
    cell_w, cell_h = _cell(columns[0].pictures[0], SMALL_CELL if len(columns) >= MANY else CELL)
    lefts, groups = _lefts(columns, targets is not None, cell_w)
    top = _MARGIN + 112
    width = max(lefts[-1] + cell_w + _MARGIN, 560)
    page = Image.new("RGB", (width, top + len(labels) * (cell_h + _GAP) - _GAP + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN - 4), title, fill=_INK, font=_font(24))
    draw.text((_MARGIN, _MARGIN + 27), note, fill=_GREY, font=_font(14))
    _headings(draw, columns, lefts, groups, top, cell_w)
    for row, label in enumerate(labels):
        y = top + row * (cell_h + _GAP)
        _paragraph(draw, label, (_MARGIN, y), cell_h)
        if targets is not None:
            page.paste(_enlarged(targets[row], cell_w, cell_h), (_MARGIN + _LABEL, y))
        for column, left in zip(columns, lefts, strict=True):
            page.paste(_enlarged(column.pictures[row], cell_w, cell_h), (left, y))
    if targets is not None:
        _centred(draw, "asked", _MARGIN + _LABEL + cell_w / 2, top - 42, 15, _INK)
    return page


def save_png(path: Path | str, picture: Image.Image | np.ndarray, texts: Mapping[str, str]) -> None:
    """Writes a PNG, whole or not at all, with text chunks in the order given."""
    with written(path) as beside:
        beside.write_bytes(png_bytes(picture, texts))


def png_bytes(picture: Image.Image | np.ndarray, texts: Mapping[str, str]) -> bytes:
    """The bytes of a PNG: no date, one compression level."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    chunks, buffer = PngInfo(), BytesIO()
    for key, text in texts.items():
        chunks.add_text(key, text)
    image.save(buffer, format="PNG", compress_level=9, pnginfo=chunks)
    return buffer.getvalue()


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _cell(picture: np.ndarray, side: int) -> tuple[int, int]:
    """Width and height of a cell: a whole multiple of a small picture, a fraction of a large one."""
    height, width = picture.shape[:2]
    longer = max(height, width)
    if longer <= side:
        factor = max(1, round(side / longer))
        return width * factor, height * factor
    scale = 2 * side / longer
    return round(width * scale), round(height * scale)


def _enlarged(picture: np.ndarray, width: int, height: int) -> Image.Image:
    """Pixels stay square when enlarged; a larger picture is reduced smoothly."""
    enlarging = width >= picture.shape[1]
    return Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST if enlarging else Image.Resampling.LANCZOS)


def _lefts(columns: Sequence[Column], with_asked: bool, cell: int) -> tuple[list[int], dict[str, tuple[int, int]]]:
    """The left edge of each column, and from where to where each group reaches."""
    x, lefts = _MARGIN + _LABEL + (cell + _GROUP_GAP if with_asked else 0), []
    groups: dict[str, tuple[int, int]] = {}
    for i, column in enumerate(columns):
        if i and column.group != columns[i - 1].group:
            x += _GROUP_GAP - _GAP
        lefts.append(x)
        groups[column.group] = (groups.get(column.group, (x, x))[0], x + cell)
        x += cell + _GAP
    return lefts, groups


def _headings(
    draw: ImageDraw.ImageDraw, columns: Sequence[Column], lefts: Sequence[int], groups: Mapping, top: int, cell: int
) -> None:
    for name, (left, right) in groups.items():
        _centred(draw, name, (left + right) / 2, top - 69, _fitting(draw, [name], right - left, 16), _INK)
        draw.line((left, top - 48, right, top - 48), fill=_LINE)
    verdicts = [column.word + (f", {column.count}" if column.count else "") for column in columns]
    heading = _fitting(draw, [column.heading for column in columns], cell, 15)
    verdict = _fitting(draw, verdicts, cell, 14)
    for column, text, left in zip(columns, verdicts, lefts, strict=True):
        _centred(draw, column.heading, left + cell / 2, top - 42, heading, _INK)
        _centred(draw, text, left + cell / 2, top - 23, verdict, VERDICT_INK[column.word])


def _fitting(draw: ImageDraw.ImageDraw, texts: Sequence[str], width: int, largest: int) -> int:
    """The largest size of letters, up to `largest`, in which each of the texts is no wider than its place."""
    sizes = range(largest, _SMALLEST, -1)
    return next((size for size in sizes if all(draw.textlength(one, font=_font(size)) <= width for one in texts)), _SMALLEST)


def _centred(draw: ImageDraw.ImageDraw, text: str, x: float, y: int, size: int, ink: tuple[int, int, int]) -> None:
    draw.text((round(x - draw.textlength(text, font=_font(size)) / 2), y), text, fill=ink, font=_font(size))


def _paragraph(draw: ImageDraw.ImageDraw, text: str, corner: tuple[int, int], height: int) -> None:
    """Words in lines of the label's width, as many as fit into `height`, centred in it."""
    font, lines = _font(15), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=font) <= _LABEL - 14:
            lines[-1] = longer
        else:
            lines.append(word)
    fits = max(1, height // 19)
    if len(lines) > fits:
        lines = [*lines[: fits - 1], lines[fits - 1] + " ..."]
    y = corner[1] + (height - 19 * len(lines)) // 2
    for i, line in enumerate(lines):
        draw.text((corner[0], y + 19 * i), line, fill=_INK, font=font)
