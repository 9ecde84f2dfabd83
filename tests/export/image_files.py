"""Image files of every kind, good and bad, as servers and readers of folders meet them."""

import functools
import io
import struct
import zlib

import numpy as np
from PIL import Image
from serving import draw, encode


def make_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_png(width, height, data=b""):
    """A PNG file whose header says what it will."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + make_chunk(b"IHDR", header) + make_chunk(b"IDAT", data) + make_chunk(b"IEND", b"")


PICTURE = draw(1, 20, 30)[0]
NEITHER = r"An image must be a PNG or JPEG. Received bytes of neither"
TOO_LARGE = r"An image must have at most 64,000,000 pixels. Received, height and width:\W+10000\W+10000"
BROKEN = r"Invalid (PNG|JPEG)"  # TensorFlow's words
BAD_FILES = {
    "text": (b"not an image", NEITHER),
    "nothing": (b"", NEITHER),
    "gif": (encode(PICTURE, "GIF"), NEITHER),
    "animated gif": (
        encode(Image.fromarray(PICTURE), "GIF", save_all=True, append_images=[Image.fromarray(255 - PICTURE)]),
        NEITHER,
    ),
    "bmp": (encode(PICTURE, "BMP"), NEITHER),
    "cmyk": (encode(Image.fromarray(PICTURE).convert("CMYK"), "JPEG"), r"gray or RGB colours. Received: CMYK"),
    "100 megapixels png": (lambda: encode(Image.new("L", (10_000, 10_000))), TOO_LARGE),
    "100 megapixels jpeg": (lambda: encode(Image.new("L", (10_000, 10_000)), "JPEG"), TOO_LARGE),
    "100 megapixels claimed": (make_png(10_000, 10_000), TOO_LARGE),
    "2**62 pixels claimed": (make_png(2**31 - 1, 2**31 - 1), r"at most 64,000,000 pixels"),
    "2**64 pixels claimed": (make_png(2**32 - 1, 2**32 - 1), rf"at most 64,000,000 pixels|{BROKEN}"),
    "no pixels": (make_png(0, 10, zlib.compress(b"")), BROKEN),
    "png start": (encode(PICTURE)[:8], BROKEN),
    "png in the header": (encode(PICTURE)[:20], BROKEN),
    "png after the header": (encode(PICTURE)[:33], BROKEN),
    "half a png": (encode(PICTURE)[: len(encode(PICTURE)) // 2], BROKEN),
    "png without its end": (encode(PICTURE)[:-12], BROKEN),
    "png of another checksum": (encode(PICTURE)[:60] + b"!!" + encode(PICTURE)[62:], BROKEN),
    "jpeg start": (encode(PICTURE, "JPEG")[:3], BROKEN),
    "jpeg in the header": (encode(PICTURE, "JPEG")[:20], BROKEN),
    "half a jpeg": (encode(PICTURE, "JPEG")[: len(encode(PICTURE, "JPEG")) * 9 // 10], BROKEN),
    "jpeg without its end": (encode(PICTURE, "JPEG")[:-2], BROKEN),
}


@functools.cache
def read_bad_file(name):
    """The bytes of a bad file, and what is said of it."""
    file, message = BAD_FILES[name]
    return file() if callable(file) else file, message


def _deep_png():
    """RGB in 16 bits, which Pillow reads and does not write."""
    values = np.random.default_rng(0).integers(0, 2**16, (20, 30, 3)).astype(">u2")
    header = struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    return b"\x89PNG\r\n\x1a\n" + make_chunk(b"IHDR", header) + make_chunk(b"IDAT", data) + make_chunk(
        b"IEND", b""
    ), values >> 8


def _kinds():
    """Name: (file, its pixels as Pillow reads them, without alpha, 8 bits)."""
    rng = np.random.default_rng(1)
    picture, alpha = Image.fromarray(PICTURE), Image.fromarray(draw(1, 20, 30, 1)[0, ..., 0])
    palette = picture.quantize(16)
    bilevel = picture.convert("1")
    deep = rng.integers(0, 2**16, (20, 30)).astype(np.uint16)
    smooth = np.add.outer(np.arange(20) * 5, np.arange(30) * 4).astype(np.uint8)
    see_through = picture.copy()
    see_through.putalpha(alpha)
    kinds = {
        "rgb": (encode(picture), PICTURE),
        "gray": (encode(alpha), np.array(alpha)),
        "palette": (encode(palette), np.array(palette.convert("RGB"))),
        "palette with a transparent colour": (encode(palette, transparency=3), np.array(palette.convert("RGB"))),
        "1 bit": (encode(bilevel), np.array(bilevel.convert("L"))),
        "16 bits gray": (encode(Image.fromarray(deep)), (deep >> 8).astype(np.uint8)),
        "16 bits": _deep_png(),
        "rgb with alpha": (encode(see_through), PICTURE),
        "gray with alpha": (encode(Image.merge("LA", [alpha, alpha.rotate(180)])), np.array(alpha)),
        "interlaced": (_interlace(PICTURE), PICTURE),
    }
    for name, pixels in (("gray jpeg", smooth), ("jpeg", np.stack([smooth, 255 - smooth, smooth // 2], -1))):
        for suffix, options in (("", {}), (", progressive", {"progressive": True})):
            file = encode(pixels, "JPEG", quality=95, **options)
            kinds[name + suffix] = file, np.array(Image.open(io.BytesIO(file)))
    return kinds


def _interlace(pixels):
    """Adam7, which Pillow reads and does not write."""
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [row for top, left, down, right in passes for row in pixels[top::down, left::right] if row.size]
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    file = b"\x89PNG\r\n\x1a\n" + make_chunk(b"IHDR", header) + make_chunk(b"IDAT", data) + make_chunk(b"IEND", b"")
    np.testing.assert_array_equal(Image.open(io.BytesIO(file)), pixels)
    return file


KINDS = _kinds()
