"""What a file is, by its first bytes, where it is not what its name says: for messages."""

from __future__ import annotations

from datastore_lab.streams import disk

_KINDS = {
    b"": "empty: its writer was stopped before it wrote anything, or a copy was; restore or remove it",
    b"PAR1": "a Parquet file; open it under a name that ends in .parquet",
    b"ARROW1": "an Arrow file; open it under a name that ends in .arrow",
    b"\xff\xff\xff\xff": "what looks like an Arrow stream; open it under a name that ends in .arrow",
    b"FEA1": "a Feather file of version 1; read it with pyarrow.feather and write it anew",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file; open it under a name that ends in .h5",
    b"SQLite format 3\0": "a SQLite database; open it under a name that ends in .sqlite",
    b"PK\x03\x04": "a ZIP archive, as Excel's .xlsx is; unpack it, or save it from there as CSV in UTF-8",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first",
    b"\xff\xfe": "text in UTF-16; save it as UTF-8 (in Excel: 'CSV UTF-8')",
    b"\xfe\xff": "text in UTF-16; save it as UTF-8 (in Excel: 'CSV UTF-8')",
    b"\xd0\xcf\x11\xe0": "a workbook of an old Excel; save it from there as CSV in UTF-8",
}


def said(path: str) -> str:
    """Say what a file is, and how it is opened.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "a.arrow"
    ...     _ = path.write_bytes(b"PAR1")
    ...     said(str(path))
    'a Parquet file; open it under a name that ends in .parquet'
    """
    start = disk.read(path, 0, 16)
    for magic in sorted(_KINDS, key=len, reverse=True):
        if magic and start.startswith(magic):
            return _KINDS[magic]
    if start and not _utf8(disk.read(path, 0, 1 << 16)):
        return "bytes of another program, or text in another encoding; if it is text, save it as UTF-8"
    return "text of another form, or damaged at its beginning" if start else _KINDS[b""]


def _utf8(raw: bytes) -> bool:
    try:
        raw[:-4].decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in raw
