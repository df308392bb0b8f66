"""Ways to spoil a file: blind to its format, or knowing where its fields and words are."""

import random
import struct

BYTES = b"\x00\x01\x7f\x80\xff\n \"'\\[]{}:,#&*!%-+.0123456789aNe"
NUMBERS = (0, 1, 2, 7, 8, 127, 255, 256, 0x7FFF, 0xFFFF, 1 << 20, 10**6, 0x7FFFFFFF, 0xFFFFFFFF)
LARGE = (10**9, 10**12, 1 << 62, (1 << 63) - 1, (1 << 64) - 1)
FLOATS = (0.0, -0.0, 1e-45, 1e30, -1.0, 352.0, float("inf"), float("-inf"), float("nan"), 3.5)

WORDS = (
    *(b"null", b"true", b"-1", b"0", b"1e999", b"-1e999", b"NaN", b"Infinity", b"1" + b"0" * 30),
    *(b"9" * 5000, b"[]", b"{}", b'""', b'"../../x"', b'"/etc/passwd"', b'"\\u0000"'),
    *(b'"\\ud800"', b"[" * 3000, b'{"a":' * 3000, b"&a", b"*a", b"&a [*a, *a]", b"<<: *a"),
    *(b"!!python/object/apply:os.mkdir [fuzzed]", b"!!binary x", b"? x", b"%YAML 9.9", b"---"),
    *(b"${HOME}", b"${", b"$${", b"extends: .", b"extends: [x]", b"<script>alert(1)</script>"),
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\x85", b"\xe2\x80\xa8", b"~", b".nan", b"-.inf"),
    *(b"cos\nmkdir\n", b"c__builtin__\nbytearray\n", b"ctorch\nFloatStorage\n", b"R.", b"Q"),
    *(b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"X\xff\xff\xff\x7f", b"\x81"),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"(", b"t", b"\x85", b"h\x00", b"2", b"0"),
)
# (offset, struct format) of the fields of a NIfTI-1 header.
NIFTI1 = (
    *((0, "i"), (70, "h"), (72, "h"), (108, "f"), (112, "f"), (116, "f"), (252, "h"), (254, "h")),
    *((40 + 2 * axis, "h") for axis in range(8)),
    *((76 + 4 * axis, "f") for axis in range(8)),
    *((256 + 4 * index, "f") for index in range(18)),
    *((344 + index, "B") for index in range(8)),
    *((352, "i"), (356, "i")),
)


def spoil(content: bytes, rng: random.Random, fields: tuple[tuple[int, str], ...] = ()) -> bytes:
    """Return ``content`` with one to eight changes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        place = rng.randrange(len(data) + 1)
        if fields and rng.random() < 0.7:
            _set_field(data, rng, rng.choice(fields))
            continue
        way = rng.randrange(9)
        if way == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif way == 1 and place < len(data):
            data[place] = rng.choice(BYTES)
        elif way == 2:
            data[place:place] = bytes(rng.choices(BYTES, k=rng.choice((1, 2, 4, 16))))
        elif way == 3:
            del data[place : place + rng.choice((1, 2, 4, 16, 1000))]
        elif way == 4:
            del data[place:]
        elif way == 5:
            chunk = data[place : place + rng.choice((4, 16, 64))]
            data[place:place] = chunk * rng.choice((1, 2, 50))
        elif way == 6:
            number = rng.choice(NUMBERS + LARGE)
            packed = struct.pack(rng.choice("<>") + "Q", number)
            width = rng.choice((1, 2, 4, 8))
            data[place : place + width] = packed[:width]
        elif way == 7:
            data[place:place] = rng.choice(WORDS)
        else:  # a word for a word
            end = place + rng.choice((1, 2, 4, 8))
            data[place:end] = rng.choice(WORDS)
    return bytes(data)


def _set_field(data: bytearray, rng: random.Random, field: tuple[int, str]) -> None:
    place, code = field
    width = struct.calcsize(code)
    if place + width > len(data):
        return
    if code == "f":
        value = struct.pack("<f", rng.choice((*FLOATS, rng.uniform(-10, 10))))
    else:
        number = rng.choice((*NUMBERS, rng.randrange(64)))
        value = struct.pack("<Q", number)[:width]
    data[place : place + width] = value
