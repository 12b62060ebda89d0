"""Write the golden files anew: ``python -m tests.golden.make [engine ...]``.

Only a layout that has not been released may be written anew; from then on its files stay as they are.
"""

import socket
import sys
import tarfile
import tempfile
from pathlib import Path

from datastore_lab import integrity, objects
from datastore_lab.errors import NotStorable
from tests.engines import FILES
from tests.golden import content

ROOT = Path(__file__).parent
LARGEST = 200_000
"""Bytes of one store."""


def main(names):
    for case in FILES:
        if not names or case.engine in names:
            with tempfile.TemporaryDirectory() as place:
                (write_all if case.whole else write_stream)(case, Path(place) / case.name)
                pack(Path(place), ROOT / f"v{integrity.LAYOUT}" / f"{case.engine}.tar.xz")


def pack(place, target):
    """Put a store into one archive, which holds names that Windows can't check out, and many small files."""
    target.parent.mkdir(exist_ok=True)
    with tarfile.open(target, "w:xz") as archive:
        for path in sorted(path for path in place.rglob("*") if path.is_file()):
            assert_anonymous(path, place)
            about = tarfile.TarInfo(path.relative_to(place).as_posix())
            about.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(about, file)
    size = target.stat().st_size
    print(f"{target.name}: {size:,} bytes")
    assert size < LARGEST, target


def write_all(case, path):
    engine = case.open(path, "w")
    with engine.transaction():
        for key, record in content.records().items():
            engine.write(key, record)
        for family, found in content.OBJECTS.items():
            for name, obj in found.items():
                engine.write(("objects", family, name), objects.encode(obj))
        engine.update(("objects",), content.ATTRIBUTES)
    content.append(engine, content.key_of(case), plain=False)
    engine.close()


def write_stream(case, path):
    """Append the stream with all it has, or, where the format can't hold that, with single numbers."""
    for plain in (False, True):
        engine = case.open(path, "w")
        try:
            content.append(engine, content.key_of(case), plain=plain)
        except NotStorable:
            if plain:
                raise
            continue
        finally:
            engine.close()
        return


def assert_anonymous(path, place):
    """Refuse what tells about this computer, and what a store that is closed does not leave behind."""
    assert not path.name.endswith(("-journal", ".lock", ".tmp", "-wal", "-shm")), path
    found = path.read_bytes()
    words = [
        socket.gethostname(),
        str(Path.home()),
        str(ROOT.parent.parent),
        str(place),
        tempfile.gettempdir(),
    ]
    for word in (word for word in words if len(word) > 4):  # (a short name is anywhere by chance)
        assert word.encode() not in found, f"{path} holds {word!r}"


if __name__ == "__main__":
    main(sys.argv[1:])
