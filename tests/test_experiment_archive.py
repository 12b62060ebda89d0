"""Experiments as ZIP archives, and bundles: complete, the same each time, and safe to unpack."""

import json
import os
import random
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from datastore_lab import media
from datastore_lab.bundles import Bundle, open_bundle, packing, write_bundle
from datastore_lab.errors import AlreadyExists, BadKey, Corrupt, EngineError, Foreign, Locked, Newer, NotFound
from datastore_lab.experiment import Storage, TaskReader, Trial, storage_to_zip, zip_to_storage
from datastore_lab.testing import power, syscalls
from datastore_lab.testing.processes import run_and_kill


def fill(root):
    with Storage(root) as storage:
        for subject in ("p1", "p2"):
            storage.subject_id = subject
            for name in ("grasp", "reach"):
                with storage.create_task(name) as task:
                    for number in range(3):
                        trial = Trial({"n": number, "who": subject})
                        trial.add_array("emg", np.full((2, 50), number))
                        task.write(trial)
        storage.subject_id = "p3"  # has not begun anything
    (root / "notes.txt").write_text("as planned")


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled")
    fill(folder / "data")
    return folder / "data"


@pytest.fixture
def root(filled, tmp_path):
    return shutil.copytree(filled, tmp_path / "data")


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


# -- packing


def test_every_file_is_in_the_archive_once_under_its_own_path(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage_to_zip("data") == "data.zip"
    assert storage_to_zip(root) == tmp_path / "data.zip"
    assert storage_to_zip("data", outfile="other.zip") == "other.zip"
    with zipfile.ZipFile("data.zip") as archive:
        names = archive.namelist()
        assert sorted(names) == sorted([*(f"data/{name}" for name in files(root)), "data/p3/"])
        assert {name: archive.read(f"data/{name}") for name in files(root)} == files(root)
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.zip", "other.zip"]
    subprocess.run(["python3", "-m", "zipfile", "-t", "data.zip"], check=True, capture_output=True)


def test_the_same_files_give_the_same_archive(root, tmp_path):
    storage_to_zip(root)
    before = (tmp_path / "data.zip").read_bytes()
    shutil.copytree(root, tmp_path / "copy" / "data")
    for place in (tmp_path / "copy" / "data").rglob("*"):
        os.utime(place, (1e9, 1e9))
    storage_to_zip(tmp_path / "copy" / "data", tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == before


def test_a_storage_packs_itself_and_the_archive_gives_it_back(root, tmp_path):
    with Storage(root) as storage:
        assert storage.to_zip(tmp_path / "out.zip") == tmp_path / "out.zip"
    assert zip_to_storage(tmp_path / "out.zip") == tmp_path / "out"
    assert zip_to_storage(str(tmp_path / "out.zip"), str(tmp_path / "new")) == str(tmp_path / "new")
    for place in (tmp_path / "out", tmp_path / "new"):
        assert files(place) == files(root)
        assert (place / "p3").is_dir()
        assert TaskReader(place / "p2" / "reach").array("emg").shape == (6, 50)
        with Storage(place) as storage:
            storage.subject_id = "p1"
            assert storage.resume_task("reach").write(Trial({"n": 3})) == 3


def test_an_archive_larger_than_the_old_format_can_say(root, tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    monkeypatch.setattr(packing, "_LARGE", 50)
    storage_to_zip(root)
    monkeypatch.undo()
    assert b"PK\x06\x06" in (tmp_path / "data.zip").read_bytes()  # the end of the newer format
    assert files(zip_to_storage(tmp_path / "data.zip", tmp_path / "new")) == files(root)


def test_progress_is_told(root, tmp_path):
    seen = []
    storage_to_zip(root, progress=seen.append)
    zip_to_storage(tmp_path / "data.zip", tmp_path / "new", progress=seen.append)
    for phase in ("packing", "verifying", "unpacking"):
        last = [one for one in seen if one.phase == phase][-1]
        assert last.items == last.of_items == len(files(root))
        assert last.nbytes == last.of_nbytes == sum(map(len, files(root).values()))


def test_an_archive_that_is_not_as_it_was_written_is_found_before_it_counts(root, tmp_path, monkeypatch):
    (tmp_path / "data.zip").write_text("the one of yesterday")
    plain = packing._verify

    def spoil(file, *rest):
        file.seek(200)
        file.write(b"\xff\x00\xff")
        file.flush()
        plain(file, *rest)

    monkeypatch.setattr(packing, "_verify", spoil)
    with pytest.raises(Corrupt, match=r"data\.zip"):
        storage_to_zip(root)
    assert (tmp_path / "data.zip").read_text() == "the one of yesterday"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.zip"]


def test_what_is_not_packed(root, tmp_path):
    with pytest.raises(NotFound, match="no folder"):
        storage_to_zip(tmp_path / "other")
    with pytest.raises(NotFound, match="make it first"):
        storage_to_zip(root, tmp_path / "no" / "data.zip")
    with pytest.raises(BadKey, match="lies in the folder"):
        storage_to_zip(root, root / "p1" / "data.zip")
    (root / "p1" / "link").symlink_to("/etc/hostname")
    with pytest.raises(Foreign, match="link"):
        storage_to_zip(root)
    (root / "p1" / "link").unlink()
    (root / "p1" / "folder").symlink_to("/etc")
    with pytest.raises(Foreign, match="link"):
        storage_to_zip(root)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_task_that_is_being_written_is_not_packed_by_halves(root, tmp_path):
    with Storage(root) as storage:
        storage.subject_id = "p1"
        task = storage.resume_task("reach")
        with pytest.raises(Locked, match=rf"reach.*process {os.getpid()}"):
            storage_to_zip(root)
        task.close()
        storage_to_zip(root)


def test_a_file_that_grows_while_it_is_packed(root, tmp_path):
    def grow(progress):
        if progress.nbytes:
            with (root / "notes.txt").open("a") as file:
                file.write("more")

    with pytest.raises(EngineError, match=r"notes\.txt.*changed"):
        storage_to_zip(root, progress=grow)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_what_an_interrupted_archive_left_is_gone_after_the_next(root, tmp_path):
    (tmp_path / ".data.zip-part").write_bytes(b"x" * 10_000)
    (tmp_path / ".new-part" / "p1").mkdir(parents=True)
    (tmp_path / ".new-part-lock").touch()
    storage_to_zip(root)
    zip_to_storage(tmp_path / "data.zip", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.zip", "new"]
    assert files(tmp_path / "new") == files(root)


# -- unpacking


def test_nothing_is_unpacked_over_something(root, tmp_path):
    storage_to_zip(root)
    with pytest.raises(AlreadyExists, match="another place"):
        zip_to_storage(tmp_path / "data.zip")
    (tmp_path / "empty").mkdir()
    zip_to_storage(tmp_path / "data.zip", tmp_path / "empty")
    assert files(tmp_path / "empty") == files(root)
    with pytest.raises(NotFound):
        zip_to_storage(tmp_path / "other.zip")
    (tmp_path / "text.zip").write_text("text")
    with pytest.raises(Foreign, match="no ZIP"):
        zip_to_storage(tmp_path / "text.zip")


def entry(name, data=b"x", *, mode=0, **options):
    info = zipfile.ZipInfo("placeholder")
    info.filename = info.orig_filename = name
    info.external_attr = mode << 16
    for field, value in options.items():
        setattr(info, field, value)
    return info, data


UNSAFE = {
    "climbs out": [entry("../evil")],
    "climbs out below": [entry("data/a/../../../evil")],
    "absolute": [entry("/tmp/evil")],
    "drive": [entry("C:evil")],
    "backslash": [entry("data\\..\\evil")],
    "line": [entry("data/a\nb")],
    "empty part": [entry("data//a")],
    "link": [entry("data/link", b"/etc/passwd", mode=stat.S_IFLNK | 0o777)],
    "device": [entry("data/pipe", mode=stat.S_IFIFO | 0o600)],
    "twice": [entry("data/a"), entry("data/a", b"y")],
    "folder and file": [entry("data/a"), entry("data/a/b")],
    "compression": [entry("data/a", compress_type=zipfile.ZIP_LZMA)],
    "bomb": [entry("data/a", bytes(1 << 20), compress_type=zipfile.ZIP_DEFLATED)],
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("what", UNSAFE)
def test_what_must_not_be_unpacked(tmp_path, monkeypatch, what):
    from datastore_lab.bundles import unpacking

    monkeypatch.setattr(unpacking, "_ALWAYS", 1000)
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for info, data in UNSAFE[what]:
            archive.writestr(info, data)
    for call in (zip_to_storage, open_bundle):
        with pytest.raises(Foreign, match="not unpacked"):
            call(tmp_path / "evil.zip", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.zip"]


def test_files_that_share_bytes_are_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("data/a", b"x" * 100)
        twin = zipfile.ZipInfo("data/b")
        twin.header_offset, twin.CRC = 0, archive.infolist()[0].CRC
        twin.file_size = twin.compress_size = 100
        archive.filelist.append(twin)
        archive.NameToInfo["data/b"] = twin
        archive._didModify = True
    with pytest.raises(Foreign, match="belong to another"):
        zip_to_storage(tmp_path / "evil.zip", tmp_path / "new")


def test_an_encrypted_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        archive.writestr("data/a", b"x")
    raw = bytearray((tmp_path / "plain.zip").read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(mark) + offset] |= 1
    (tmp_path / "plain.zip").write_bytes(raw)
    with pytest.raises(Foreign, match="encrypted"):
        zip_to_storage(tmp_path / "plain.zip", tmp_path / "new")


def test_a_flipped_bit_is_found_and_nothing_is_left(root, tmp_path):
    storage_to_zip(root)
    raw = (tmp_path / "data.zip").read_bytes()
    choice, refused = random.Random(4), 0
    for at in choice.sample(range(len(raw)), 60):
        spoiled = bytearray(raw)
        spoiled[at] ^= 1 << choice.randrange(8)
        (tmp_path / "bad.zip").write_bytes(spoiled)
        try:
            zip_to_storage(tmp_path / "bad.zip", tmp_path / "new")
        except (Corrupt, Foreign, EngineError):
            refused += 1
            assert not (tmp_path / "new").exists()
        else:  # of what says nothing of the content, such as a date, or of a name
            assert sorted(files(tmp_path / "new").values()) == sorted(files(root).values())
            shutil.rmtree(tmp_path / "new")
    assert refused > 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zip", "data", "data.zip"]


def test_an_archive_that_needs_more_room_than_there_is(root, tmp_path, monkeypatch):
    storage_to_zip(root)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=10))
    with pytest.raises(EngineError, match=r"needs .* bytes"):
        zip_to_storage(tmp_path / "data.zip", tmp_path / "new")
    assert not (tmp_path / "new").exists()


# -- interrupted at any moment


def pack_and_unpack(mark, folder, root):
    with media.atomic_file(folder / "data.zip") as file:
        file.write(b"the one of yesterday")
    mark()
    storage_to_zip(root, folder / "data.zip")
    mark()
    zip_to_storage(folder / "data.zip", folder / "new")
    mark()


def check_left(folder, root, done):
    """Hold what is left against the old state and the new one, and do the same again."""
    archive = folder / "data.zip"
    whole = {name: raw for name, raw in files(root).items() if not name.endswith("-lock")}
    if not done:  # not even that of yesterday need be there
        archive.unlink(missing_ok=True)
        for rest in folder.glob(".data.zip-*.tmp"):
            rest.unlink()
    old = archive.is_file() and archive.read_bytes() == b"the one of yesterday"
    assert old or done < 1 or zipfile.ZipFile(archive).testzip() is None
    assert done < 2 or not old
    if (folder / "new").exists():
        assert files(folder / "new") == whole
        shutil.rmtree(folder / "new")
    else:
        assert done < 3
    storage_to_zip(root, archive)
    zip_to_storage(archive, folder / "new")
    assert files(folder / "new") == whole == files(root)
    assert sorted(path.name for path in folder.iterdir()) == ["data.zip", "new"]


def test_a_crash_while_packing_and_unpacking(root, tmp_path, scratch):
    folder, notes = tmp_path / "live", tmp_path / "notes"
    for place in (folder, notes):
        place.mkdir()
    changes = syscalls.record(pack_and_unpack, (folder, root), folder, notes)
    count = 0
    for state in power.states(changes, 3, 0.4):
        place = power.Place(scratch / "state")
        place.put(state.files)
        check_left(place.folder, root, state.marks)
        shutil.rmtree(place.folder)
        count += 1
    assert count > 30


def kill(root, scratch, seeds):
    for seed in seeds:
        folder, choice = scratch / f"{seed}", random.Random(seed)
        folder.mkdir()
        done = run_and_kill(pack_and_unpack, (folder, root), choice.randrange(3), choice.random() * 0.02)
        check_left(folder, root, done)
        shutil.rmtree(folder)


def test_killed_while_packing_and_unpacking(root, scratch):
    kill(root, scratch, range(4))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_often_while_packing_and_unpacking(root, scratch, faults):
    count = faults.times(300)
    kill(root, scratch, range(count))
    faults.tried("Archives of experiments", "kills while packing and unpacking", count)


# -- bundles


@pytest.fixture
def bundle(tmp_path):
    for name, text in {"a.txt": "first", "b.bin": "second" * 1000}.items():
        (tmp_path / name).write_text(text)
    chosen = {"results/a.txt": tmp_path / "a.txt", "b.bin": tmp_path / "b.bin"}
    return write_bundle(tmp_path / "out.zip", chosen, about={"workspace": "tour", "runs": [1, 2]})


def test_a_bundle_gives_back_its_files_and_what_was_noted(tmp_path, bundle):
    with zipfile.ZipFile(bundle) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    assert [(one["name"], one["size"]) for one in manifest["files"]] == [
        ("b.bin", 6000),
        ("results/a.txt", 5),
    ]
    with open_bundle(bundle) as found:
        assert isinstance(found, Bundle)
        assert found.about == {"workspace": "tour", "runs": [1, 2]}
        assert found.names == ("b.bin", "results/a.txt")
        assert found.path("results/a.txt").read_text() == "first"
        with pytest.raises(BadKey, match=r"b\.bin"):
            found.path("../a.txt")
    assert not found.folder.exists()
    kept = open_bundle(bundle, tmp_path / "kept")
    kept.close()
    assert files(tmp_path / "kept") == {"results/a.txt": b"first", "b.bin": b"second" * 1000}
    with pytest.raises(AlreadyExists):
        open_bundle(bundle, tmp_path / "kept")
    before = bundle.read_bytes()
    chosen = {"b.bin": tmp_path / "b.bin", "results/a.txt": tmp_path / "a.txt"}
    write_bundle(bundle, chosen, about={"workspace": "tour", "runs": [1, 2]})
    assert bundle.read_bytes() == before


def repacked(bundle, change):
    """Write a bundle anew, with sums of ZIP that are right, after changing its files."""
    with zipfile.ZipFile(bundle) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    change(content)
    with zipfile.ZipFile(bundle, "w") as archive:
        for name, raw in content.items():
            archive.writestr(name, raw)


CHANGES = {
    "changed": (Corrupt, "not what its manifest", lambda files: files.update({"b.bin": b"Second" * 1000})),
    "shorter": (Corrupt, "does not hold", lambda files: files.update({"b.bin": b"s"})),
    "missing": (Corrupt, "does not hold", lambda files: files.pop("b.bin")),
    "more": (Corrupt, "does not hold", lambda files: files.update({"c.bin": b"s"})),
    "no manifest": (Foreign, "no bundle", lambda files: files.pop("manifest.json")),
    "other manifest": (Foreign, "no bundle", lambda files: files.update({"manifest.json": b"[]"})),
    "newer": (
        Newer,
        "version 2",
        lambda files: files.update(
            {"manifest.json": files["manifest.json"].replace(b'"lab_bundle": 1', b'"lab_bundle": 2')}
        ),
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_bundle_is_opened_only_if_all_of_it_is_right(tmp_path, bundle, what):
    error, text, change = CHANGES[what]
    repacked(bundle, change)
    for into in (None, tmp_path / "new"):
        with pytest.raises(error, match=text):
            open_bundle(bundle, into)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["../a", "/a", "a//b", "manifest.json", "C:/a", "", "a\\b", "a\nb", "."])
def test_names_that_no_bundle_has(tmp_path, name):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(BadKey, match="name of a file"):
        write_bundle(tmp_path / "out.zip", {name: tmp_path / "a.txt"})
    assert not (tmp_path / "out.zip").exists()


def test_a_bundle_of_what_is_not_there(tmp_path):
    with pytest.raises(BadKey, match="no file"):
        write_bundle(tmp_path / "out.zip", {"a": Path(tmp_path / "a.txt")})
    assert list(tmp_path.iterdir()) == []
