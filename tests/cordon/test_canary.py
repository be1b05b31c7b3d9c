"""The search for a value in raw bytes finds it wherever software has put it."""

import gzip
import json
import struct
import zlib
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cordon.drill.canary import Search

VALUE = "k3f9a01bc7de24"
TEXT = f"before \u00fc {VALUE} behind".encode()
NOISE = bytes(range(256)) * 5


def packed(codec: str, data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return bytes(sink.getvalue())


SPELLED = {
    "plain": TEXT,
    "json": json.dumps({"email": VALUE}).encode(),
    "escapes": "".join(f"\\u{ord(c):04x}" for c in VALUE).encode(),
    "url": "".join(f"%{ord(c):02X}" for c in VALUE).encode(),
    "quoted": quote(f"a b/{VALUE}").encode(),
    "hex": TEXT.hex().encode(),
    "HEX": TEXT.hex().upper().encode(),
    "utf-16": f"x{VALUE}".encode("utf-16"),
    **{f"base64 {n}": b64encode(b"x" * n + TEXT) for n in range(3)},
    **{f"base64 url {n}": urlsafe_b64encode(b"\xff" * n + TEXT) for n in range(3)},
    **{f"base64 twice {n}": b64encode(b"y" * n + b64encode(b"x" + TEXT)) for n in range(3)},
    "gzip": gzip.compress(TEXT * 3),
    "zlib": zlib.compress(TEXT * 3),
    "zstd": packed("zstd", TEXT * 3),
    "lz4": packed("lz4", TEXT * 3),
    "snappy": pa.Codec("snappy").compress(NOISE + TEXT + NOISE, asbytes=True),
    "gzip of base64 of zstd": gzip.compress(b64encode(b"z") + b64encode(TEXT) + packed("zstd", TEXT)),
    "zstd in gzip in lz4": packed("lz4", gzip.compress(packed("zstd", TEXT))),
}


@pytest.mark.parametrize("spelling", SPELLED)
def test_every_spelling_is_found_amid_other_bytes(spelling: str) -> None:
    hidden = NOISE + struct.pack("<I", 7) + SPELLED[spelling] + NOISE
    assert Search([VALUE]).holds(hidden)
    assert not Search(["k3f9a0xbc7de24"]).holds(hidden)


@pytest.mark.parametrize("codec", ["snappy", "zstd", "gzip", "lz4", "none"])
def test_a_value_in_a_column_is_found(codec: str, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    table = pa.table({"id": [f"row {n}" for n in range(500)], "mail": ["x@example.com"] * 499 + [VALUE]})
    pq.write_table(table, tmp_path / "below" / "a.parquet", compression=codec)
    (tmp_path / "b").write_bytes(bytes(10_000))
    (tmp_path / "empty").write_bytes(b"")
    assert Search([VALUE]).files(tmp_path) == [tmp_path / "below" / "a.parquet"]
