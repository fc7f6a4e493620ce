"""Small makers of pictures as people have them: name -> (file name, bytes, what becomes of it).

What becomes of it is the mean colour of what is imported, to two levels of 255, or the reason for which it is left out.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image

SIZE = (48, 40)
RAMP = np.linspace(0, 65535, SIZE[0] * SIZE[1]).reshape(SIZE[::-1])
RED, BLUE, BLACK = (200, 40, 40), (40, 40, 200), (0, 0, 0)


def plain(mode="RGB", colour=RED, size=SIZE):
    return Image.new(mode, size, colour)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width, height, bits=8, colour=2, data=b""):
    """A PNG made by hand, whatever its header claims."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def tiff(bits, photometric, value, samples=1, extra=None):
    """A little-endian TIFF made by hand in one strip, each row `value`: for what Pillow reads and does not write."""
    entries = [(256, 3, SIZE[0]), (257, 3, SIZE[1]), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 0),
               (277, 3, samples), (278, 4, SIZE[1]), (279, 4, len(value) * SIZE[1])]  # fmt: skip
    if samples > 1:
        entries[2] = (258, 3, 8 + 2 + 12 * (len(entries) + (extra is not None)) + 4)  # where the bits of each sample stand
    if extra is not None:
        entries.append((338, 3, extra))
    data = 8 + 2 + 12 * len(entries) + 4
    bits_of_each = struct.pack(f"<{samples}H", *[bits] * samples) if samples > 1 else b""
    entries[5] = (273, 4, data + len(bits_of_each))
    header = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, kind, number in entries:
        header += struct.pack("<HHII", tag, kind, samples if tag == 258 else 1, number)
    return header + struct.pack("<I", 0) + bits_of_each + value * SIZE[1]


def deep(channels, colour):
    """A PNG of 16 bits a channel, each with the same value."""
    row = b"\0" + np.full((SIZE[0], channels), 0x8080, ">u2").tobytes()
    return png(*SIZE, 16, colour, row * SIZE[1])


def turned(kind, **options):
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(plain(), kind, exif=exif, **options)


def palette():
    image = Image.new("P", SIZE)
    image.putpalette([*RED, *BLUE])
    return image


def half_clear(mode, kind, **options):
    """A picture of which the left half is transparent, red below; the right one is blue."""
    image = plain("RGBA", (*BLUE, 255))
    image.paste((*RED, 0), (0, 0, SIZE[0] // 2, SIZE[1]))
    return saved(image if mode == "RGBA" else image.convert(mode), kind, **options)


def frames(kind, **options):
    return saved(plain(), kind, save_all=True, append_images=[plain(colour=BLUE), plain(colour=BLACK)], **options)


def narrow(width, height):
    return saved(plain("L", 128, (width, height)), "PNG")


GREY = (128, 128, 128)
UNDECODED = "cannot be decoded"
UNKNOWN = "no picture of a known kind"
PICTURES = {
    "PNG": ("a.png", saved(plain(), "PNG"), RED),
    "capital suffix": ("a.PNG", saved(plain(), "PNG"), RED),
    "JPEG": ("a.jpg", saved(plain(), "JPEG"), RED),
    "progressive JPEG": ("a.jpeg", saved(plain(), "JPEG", progressive=True), RED),
    "grey JPEG": ("a.jpe", saved(plain("L", 128), "JPEG"), GREY),
    "CMYK JPEG": ("a.jfif", saved(plain("CMYK", (0, 255, 255, 0)), "JPEG", quality=95), (255, 0, 0)),
    "JPEG named PNG": ("a.png", saved(plain(), "JPEG"), RED),
    "WebP": ("a.webp", saved(plain(), "WEBP", lossless=True), RED),
    "lossy WebP": ("a.WebP", saved(plain(), "WEBP"), RED),
    "AVIF": ("a.avif", saved(plain(), "AVIF"), RED),
    "BMP": ("a.bmp", saved(plain(), "BMP"), RED),
    "GIF": ("a.gif", saved(palette(), "GIF"), RED),
    "TIFF": ("a.tiff", saved(plain(), "TIFF"), RED),
    "packed TIFF": ("a.tif", saved(plain(), "TIFF", compression="tiff_lzw"), RED),
    "CMYK TIFF": ("a.tif", saved(plain("CMYK", (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
    "Lab TIFF": ("a.tif", saved(plain("LAB", (100, 128, 128)), "TIFF"), (92, 92, 92)),
    "animated GIF": ("a.gif", frames("GIF"), RED),
    "animated WebP": ("a.webp", frames("WEBP", lossless=True), RED),
    "animated PNG": ("a.apng", frames("PNG"), RED),
    "animated AVIF": ("a.avif", frames("AVIF"), RED),
    "TIFF of several pages": ("a.tiff", frames("TIFF"), RED),
    "1 bit": ("a.png", saved(plain("1", 1), "PNG"), (255, 255, 255)),
    "1 bit TIFF": ("a.tif", saved(plain("1", 1), "TIFF"), (255, 255, 255)),
    "grey with alpha": ("a.png", saved(plain("LA", (128, 0)), "PNG"), GREY),
    "palette": ("a.png", saved(palette(), "PNG"), RED),
    "palette with transparency": ("a.png", saved(palette(), "PNG", transparency=b"\0\x80"), RED),
    "palette with one clear colour": ("a.png", saved(palette(), "PNG", transparency=0), RED),
    "half transparent WebP": ("a.webp", half_clear("RGBA", "WEBP", lossless=True, exact=True), (120, 40, 120)),
    "half transparent": ("a.png", half_clear("RGBA", "PNG"), (120, 40, 120)),
    "half transparent TIFF": ("a.tif", half_clear("RGBA", "TIFF"), (120, 40, 120)),
    "a clear colour": ("a.png", saved(plain(), "PNG", transparency=RED), RED),
    "16 bits, grey": ("a.png", saved(Image.fromarray(RAMP.astype(np.uint16)), "PNG"), (127.5,) * 3),
    "16 bits, grey TIFF": ("a.tif", saved(Image.fromarray(RAMP.astype("<u2")), "TIFF"), (127.5,) * 3),
    "16 bits, big-endian TIFF": ("a.tif", saved(Image.fromarray(RAMP.astype(">u2")), "TIFF"), (127.5,) * 3),
    "16 bits, grey TIFF with white at 0": ("a.tif", tiff(16, 0, b"\xff\x3f" * SIZE[0]), (191.25,) * 3),
    "12 bits, grey TIFF": ("a.tif", tiff(12, 1, b"\x7f\xf7\xff" * (SIZE[0] // 2)), (127.5,) * 3),
    "TIFF with premultiplied alpha": ("a.tif", tiff(8, 2, bytes((100, 20, 20, 128)) * SIZE[0], 4, 1), (200, 40, 40)),
    "TIFF with white at 0": ("a.tif", tiff(8, 0, b"\x40" * SIZE[0]), (191,) * 3),
    "16 bits, white": ("a.png", saved(Image.fromarray(np.full(SIZE[::-1], 65535, np.uint16)), "PNG"), (255,) * 3),
    "16 bits, colour": ("a.png", deep(3, 2), GREY),
    "16 bits, colour and alpha": ("a.png", deep(4, 6), GREY),
    "16 bits, grey and alpha": ("a.png", deep(2, 4), GREY),
    "32-bit integers": ("a.tif", saved(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), "nobody says what is white"),
    "floats": ("a.tif", saved(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "nobody says what is white"),
    "turned JPEG": ("a.jpg", turned("JPEG"), RED),
    "turned PNG": ("a.png", turned("PNG"), RED),
    "turned WebP": ("a.webp", turned("WEBP", lossless=True), RED),
    "damaged EXIF": ("a.jpg", saved(plain(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), RED),
    "damaged profile": ("a.png", saved(plain(), "PNG", icc_profile=b"no profile"), RED),
    "one pixel": ("a.png", saved(plain("L", 128, (1, 1)), "PNG"), GREY),
    "1 x 3,000": ("a.png", narrow(1, 3000), GREY),
    "1 x 20,000": ("a.png", narrow(1, 20_000), GREY),
    "20,000 x 1": ("a.png", narrow(20_000, 1), GREY),
    "1 x 10,000,000": ("a.png", png(1, 10_000_000, 8, 0, b"\0\x80" * 10_000_000), GREY),
    "100 megapixels": ("a.png", png(10_000, 10_000), "100.0 megapixels; at most 64"),
    "4 gigapixels by 4": ("a.png", png(2**31 - 1, 2**31 - 1), "megapixels; at most 64"),
    "no width": ("a.png", png(0, 5), f"{UNKNOWN}|{UNDECODED}|megapixels"),
    "no data": ("a.png", png(48, 40), UNDECODED),
    "a bomb of text": ("a.png", saved(plain(), "PNG")[:-12] + png(1, 1)[8:], RED),
    "0 bytes": ("a.png", b"", "the picture has 0 bytes"),
    "1 byte": ("a.png", b"\x89", UNKNOWN),
    "half a PNG": ("a.png", saved(plain(colour=RED), "PNG")[:60], UNDECODED),
    "half a JPEG": ("a.jpg", saved(Image.fromarray((RAMP / 257).astype(np.uint8)), "JPEG")[:300], f"{UNDECODED}|{UNKNOWN}"),
    "half a WebP": ("a.webp", saved(plain(), "WEBP", lossless=True)[:20], f"{UNDECODED}|{UNKNOWN}"),
    "half an AVIF": ("a.avif", saved(plain(), "AVIF")[:80], f"{UNDECODED}|{UNKNOWN}"),
    "half a GIF": ("a.gif", saved(palette(), "GIF")[:20], f"{UNDECODED}|{UNKNOWN}"),
    "half a TIFF": ("a.tif", saved(plain(), "TIFF")[:40], f"{UNDECODED}|{UNKNOWN}"),
    "half a BMP": ("a.bmp", saved(plain(), "BMP")[:60], UNDECODED),
    "noise": ("a.jpg", np.random.Generator(np.random.PCG64(1)).bytes(999), UNKNOWN),
    "a web page": ("a.jpg", b"<!DOCTYPE html><title>404</title>", UNKNOWN),
    "PostScript": ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n", UNKNOWN),
    "a pointer of LFS": ("a.png", b"version https://git-lfs.github.com/spec/v1\n", UNKNOWN),
    "JPEG XL": ("a.jxl", b"\xff\x0a", "a kind of picture that is not read: .jxl"),
    "HEIC": ("a.HEIC", b"\0\0\0\x18ftypheic", "a kind of picture that is not read: .heic"),
    "Photoshop": ("a.psd", b"8BPS", "a kind of picture that is not read: .psd"),
    "a film": ("a.mp4", b"\0\0\0\x18ftypmp42", "a kind of picture that is not read: .mp4"),
    "of the Mac's": ("._a.png", b"\0\x05\x16\x07", "a file of the system's"),
    "of the Mac's folder": (".DS_Store", b"\0\0\0\1Bud1", "a file of the system's"),
    "of Windows": ("Thumbs.db", b"\xd0\xcf\x11\xe0", "a file of the system's"),
    "a cache": ("a.npz", b"PK\x03\x04", "no picture and no caption: .npz"),
    "no suffix": ("a", saved(plain(), "PNG"), "no picture and no caption: no suffix"),
    "a caption alone": ("b.txt", b"1girl", "a caption without its picture"),
    "a sentence alone": ("b.CAPTION", b"a girl", "a caption without its picture"),
}
NOTES = {
    "animated GIF": "first picture", "animated WebP": "first picture", "animated PNG": "first picture",
    "animated AVIF": "first picture", "TIFF of several pages": "first picture", "CMYK JPEG": "CMYK", "CMYK TIFF": "CMYK",
    "16 bits, grey TIFF with white at 0": "16 bits", "12 bits, grey TIFF": "16 bits", "TIFF with premultiplied alpha": "--alpha white",
    "16 bits, grey": "16 bits", "16 bits, white": "16 bits", "16 bits, grey TIFF": "16 bits", "16 bits, big-endian TIFF": "16 bits",
    "turned JPEG": "--exif apply", "turned PNG": "--exif apply", "turned WebP": "--exif apply",
    "palette with transparency": "--alpha white", "half transparent": "--alpha white", "grey with alpha": "--alpha white",
    "a clear colour": "--alpha white", "half transparent WebP": "--alpha white", "half transparent TIFF": "--alpha white",
    "palette with one clear colour": "--alpha white", "16 bits, grey and alpha": "--alpha white", "16 bits, colour and alpha": "--alpha white",
}  # fmt: skip
CAPTIONS = {
    "UTF-8": ("a.txt", "1girl, ünï".encode(), "1girl, ünï"),
    "a BOM": ("a.txt", b"\xef\xbb\xbf1girl", "1girl"),
    "ends of Windows": ("a.txt", b"1girl\r\nsolo\r\n", "1girl\nsolo"),
    "ends of the old Mac": ("a.txt", b"1girl\rsolo", "1girl\nsolo"),
    "a capital suffix": ("a.TXT", b"1girl", "1girl"),
    "behind the picture's suffix": ("a.png.txt", b"1girl", "1girl"),
    "empty": ("a.txt", b"", ""),
    "white space": ("a.txt", b" \n\t", ""),
    "UTF-16": ("a.txt", "1girl".encode("utf-16"), "UTF-16, not UTF-8"),
    "Latin 1": ("a.txt", "Größe".encode("latin-1"), "not UTF-8"),
    "a zero": ("a.txt", b"1girl\0solo", r"control character U\+0000"),
    "an escape": ("a.txt", b"\x1b[31m", r"control character U\+001B"),
    "a megabyte": ("a.txt", b"x" * (1 << 20), "more than 65,536"),
    "half a character": ("a.txt", b"\xed\xa0\x80", "not UTF-8"),
    "shift-JIS": ("a.txt", "少女".encode("shift-jis"), "not UTF-8"),
}
NAMES = ["with space", "new\nline", "tab\tstop", "100%", "-dash", "ünï", "u\u0308ni", "少女", "🙂", "a.b.c", "[x]", "a'b\"c", "$HOME", "..a", "x" * 240, "a;b", "#1", "&amp;", "a=b", "~"]  # fmt: skip
REFUSED_NAMES = {"back\\slash": "leads out", "bell\x07": "control characters", "\udcff": "not valid Unicode"}
