"""The format helper: the decision tree of the guide, sizes, names, and the table."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore_lab import buffer_size, open_store, recommend, run_name
from datastore_lab.errors import AlreadyExists, NotFound
from datastore_lab.formats import data_rate, disk_space, format_names, format_table, format_traits
from datastore_lab.formats.grid import Grid
from datastore_lab.records import ArrayInfo, Stat

WHEN = datetime(2026, 1, 25, 14, 32, 45)  # noqa: DTZ001 (local time, as a user gives it)


class Camera:
    """A device as far as a question about formats looks at it."""

    name = "camera"

    def describe(self):
        dims = ("sample", "y", "x")
        return Stat("stream", {"image": ArrayInfo("|u1", (0, 480, 640), dims, 0, None)}, {"rate": 30.0})

    def read(self, timeout):
        return None


# -- the decision tree -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (dict(kind="images", compression=True), [("hdf5",), ("zarr",)]),
        (dict(kind="images"), [("hdf5",), ("zarr",)]),
        (dict(kind="images", cloud=True), [("zarr",)]),
        (dict(kind="images", cloud=True, compression=True), [("zarr",)]),
        (dict(kind="series", rate="10 kHz"), [("arrow",), ("parquet",), ("csv",)]),
        (dict(kind="series", rate=1001), [("arrow",)]),
        (dict(kind="series", rate=1000), [("parquet",), ("csv",)]),
        (dict(kind="series", rate="400 MB/s"), [("arrow",)]),
        (dict(data=("f8", (0, 16)), rate="1 MB/s"), [("arrow",)]),
        (dict(data=("f8", (0, 16)), rate="100 kB/s"), [("parquet",)]),
        (dict(kind="series"), [("parquet",), ("csv",)]),
        (dict(kind="series", rate=1, readers="Excel"), [("csv",)]),
        (dict(kind="scalars", readers=["excel", "pandas"]), [("csv",)]),
        (dict(kind="nested"), [("hdf5",), ("zarr",)]),
        (dict(dimensions=4), [("hdf5",), ("zarr",)]),
        (dict(dimensions=("wavelength", "position", "y", "x"), cloud=True), [("zarr",)]),
        (dict(kind="images", safety=True), [("hdf5", "arrow"), ("hdf5",)]),
        (dict(kind="series", rate="1 kHz", safety=True), [("hdf5", "arrow"), ("parquet",)]),
        (dict(safety=True), [("hdf5", "arrow")]),
    ],
)
def test_the_decision_tree_stands(question, expected):
    answers = recommend(**question)
    assert [answer.formats for answer in answers][: len(expected)] == expected
    assert [answer.rank for answer in answers] == list(range(1, len(answers) + 1))
    singles = [answer.formats[0] for answer in answers if len(answer.formats) == 1]
    assert sorted(singles) == sorted(format_names()), "every format is judged once"


@pytest.mark.parametrize(
    ("data", "first"),
    [
        (np.zeros((10, 480, 640), "u1"), "hdf5"),
        (np.zeros((2, 10, 4, 4)), "hdf5"),
        (np.zeros(1000), "parquet"),
        (("u2", (0, 16)), "parquet"),
        (Camera(), "hdf5"),
        (Camera().describe(), "hdf5"),
    ],
)
def test_data_tells_what_it_is(data, first):
    assert recommend(data)[0].formats == (first,)


def test_a_format_that_can_not_hold_the_data_comes_last():
    answers = recommend(kind="images", readers="Excel")
    last = {("parquet-folder",), ("sqlite",), ("sql",), ("csv",)}
    assert {answer.formats for answer in answers[-4:]} == last
    assert any("flat tables only" in text for text in answers[-1].objections)


def test_a_reader_that_is_not_known_to_open_a_format_puts_it_back():
    answers = recommend(kind="series", readers="MATLAB")
    parquet = next(answer for answer in answers if answer.formats == ("parquet",))
    assert "MATLAB is not known to open it" in parquet.objections
    assert answers[0].formats == ("csv",)
    assert recommend(kind="series", rate="1 MHz", readers=["h5py"])[0].formats == ("hdf5",)


def test_an_unknown_reader_is_said_and_changes_no_order():
    plain, asked = recommend(kind="nested"), recommend(kind="nested", readers="Mystery 3000")
    assert [a.formats for a in plain] == [a.formats for a in asked]
    assert all("Mystery 3000 is not known to open it" in a.objections for a in asked)


def test_what_can_not_be_written_yet_is_said():
    by_name = {answer.formats: answer for answer in recommend(kind="series")}
    assert by_name["hdf5",].available
    assert by_name["csv",].available == (not any("writer" in text for text in by_name["csv",].objections))


def test_the_size_is_computed_from_rate_and_duration():
    texts = " ".join(recommend(Camera(), duration="1 h")[0].reasons)
    assert "1 h takes 33.2 GB" in texts
    assert "1 h takes 66.4 GB" in repr(recommend(Camera(), duration="1 h", safety=True)[0]), "two files"
    csv = next(a for a in recommend(Camera(), duration="1 h") if a.formats == ("csv",))
    assert any("several times that as text" in text for text in csv.objections)
    assert "1 min takes 24 GB" in repr(recommend(kind="series", rate="400 MB/s", duration="1 min"))


@pytest.mark.parametrize(
    ("question", "error", "named"),
    [
        (dict(kind="pictures"), ValueError, "'pictures'"),
        (dict(dimensions=0), ValueError, "dimensions=0"),
        (dict(dimensions=True), TypeError, "dimensions=True"),
        (dict(dimensions="xy"), TypeError, "'xy'"),
        (dict(rate="5 s"), ValueError, "'5 s'"),
        (dict(duration="5 MB"), ValueError, "'5 MB'"),
        (dict(data=object()), ValueError, "object"),
    ],
)
def test_questions_that_are_not_understood(question, error, named):
    with pytest.raises(error) as caught:
        recommend(**question)
    assert named in str(caught.value)


def test_answers_show_themselves_and_escape():
    answers = recommend(kind="series", readers="<script>alert(1)</script>")
    shown = answers._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert repr(answers).startswith("1. ")
    assert answers[:2][1] == answers[1]
    assert repr(answers[0]) in repr(answers)
    assert "<table>" in answers[0]._repr_html_()


# -- sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("400 MB/s", "5 s"), 2_000_000_000),
        (("1.2 MB/s", "60 s"), 72_000_000),
        (("10 MB/s", 10), 100_000_000),
        ((1000, 2), 2000),
        ((1000, 2, 8), 16_000),
        ((1000, "2 s", "float64"), 16_000),
        ((1000, "2 s", np.float64), 16_000),
        (("1 kHz", 1, ("i2", (8,))), 16_000),
        (("1 kHz", 1, ("i2", 8)), 16_000),
        (("30 fps", 1, np.zeros((480, 640), "u1")), 9_216_000),
        ((30, 1, Camera()), 9_216_000),
        ((None, 1, Camera()), 9_216_000),
        ((0.1, 1, 1), 1),
        ((0, 1, 1), 0),
    ],
)
def test_buffer_sizes(arguments, expected):
    size = buffer_size(*arguments)
    assert size == expected
    assert type(size) is int


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("5 s", "5 s"), "'5 s' is not a rate"),
        (("400 MB/s", "400 MB/s"), "not a duration"),
        (("400 MB/s", 5, 8), "counts bytes already"),
        ((1000, 5, 0), "0 bytes"),
        ((1000, 5, True), "True"),
        ((1000, 5, 1.5), "1.5"),
        ((1000, 5, ("f8", (4, -3))), "negative"),
        ((1000, 5, "400 MB"), "'400 MB' is not a sample"),
        ((1000, 5, object), "no fixed size"),
        ((1000, 5, None), "None"),
        ((None, 5, 8), "declares no rate"),
        ((-1, 5), "-1"),
    ],
)
def test_wrong_units_are_errors(arguments, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        buffer_size(*arguments)


def test_the_figures_of_the_guide():
    frame = ("uint8", (480, 640))
    assert data_rate("30 fps", frame) == 9_216_000
    assert disk_space("30 fps", "1 h", frame) == 33_177_600_000
    digits = sum(len(str(value)) + 1 for value in range(256)) / 256
    assert disk_space("30 fps", "1 h", frame, text=True) == pytest.approx(33_177_600_000 * digits, rel=1e-9)
    assert 100e9 < disk_space("30 fps", "1 h", frame, text=True) < 130e9


@pytest.mark.parametrize("dtype", ["i1", "u2", "i4", "u8", ">i4", "f4", "f8"])
def test_text_is_as_long_as_written(dtype):
    random = np.random.default_rng(5)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        values = random.standard_normal(4000).astype(kind)
    else:
        info = np.iinfo(kind)
        values = random.integers(info.min, info.max, 4000, dtype=kind.newbyteorder("="), endpoint=True)
    written = sum(len(str(value)) + 1 for value in values)
    assert disk_space(4000, 1, kind, text=True) == pytest.approx(written, rel=0.02)


@pytest.mark.parametrize("sample", [4, "c16", "S5"])
def test_text_of_unknown_length_is_refused(sample):
    with pytest.raises(ValueError, match="as text"):
        disk_space(1, 1, sample, text=True)


# -- names -------------------------------------------------------------------------------------------


def test_names_follow_the_pattern_and_count_on(tmp_path):
    path = run_name(folder=tmp_path, experiment="scan", when=WHEN)
    assert path == tmp_path / "scan_2026-01-25_14-32-45_v1.h5"
    path.touch()
    assert run_name(folder=tmp_path, experiment="scan", when=WHEN).name.endswith("_v2.h5")
    (tmp_path / "SCAN_2026-01-25_14-32-45_v9.H5").touch()
    assert run_name(folder=tmp_path, experiment="scan", when=WHEN).name.endswith("_v10.h5")
    assert run_name(folder=tmp_path, experiment="scan", ext=".arrow", when=WHEN).name.endswith("_v1.arrow")


def test_a_left_over_journal_keeps_its_name_taken(tmp_path):
    (tmp_path / "scan_v3.h5-journal").touch()
    assert run_name("scan_{version}.{ext}", tmp_path).name == "scan_v4.h5"


@pytest.mark.parametrize(
    ("left", "ext", "version"),
    [
        ("scan_v3.camera.arrow", "arrow", 4),
        ("scan_v3.camera.parquet-spool", "parquet", 4),
        ("scan_v3.daq.csv.json", "csv", 4),
        ("scan_v3.old.h5", "h5", 1),
        ("scan_v3.camera.arrow", "h5", 1),
        ("scan_v3_extra.h5", "h5", 1),
    ],
)
def test_files_of_single_streams_keep_their_name_taken(left, ext, version, tmp_path):
    (tmp_path / left).touch()
    assert run_name("scan_{version}.{ext}", tmp_path, ext=ext).name == f"scan_v{version}.{ext}"


def test_a_recording_in_arrow_is_never_named_twice(tmp_path):
    path = run_name("scan_{version}.{ext}", tmp_path, ext="arrow")
    with open_store(path) as store:
        info = ArrayInfo("<f8", (0,), ("t",), 0, None)
        store.append("camera", Stat("stream", {"x": info}, {})).close({})
    assert not path.exists()
    assert run_name("scan_{version}.{ext}", tmp_path, ext="arrow").name == "scan_v2.arrow"
    with pytest.raises(AlreadyExists):
        run_name("scan_v1.arrow", tmp_path)


def test_a_version_may_stand_twice(tmp_path):
    (tmp_path / "v2_of_v2.h5").touch()
    assert run_name("{version}_of_{version}.h5", tmp_path).name == "v3_of_v3.h5"


def test_names_without_a_version_never_overwrite(tmp_path):
    path = run_name("{experiment}.{ext}", tmp_path, experiment="live", ext="arrow")
    assert path.name == "live.arrow"
    path.touch()
    with pytest.raises(AlreadyExists, match=r"LIVE\.arrow"):
        run_name("{experiment}.{ext}", tmp_path, experiment="LIVE", ext="arrow")


def test_the_time_is_local():
    zoned = datetime(2026, 1, 25, 12, 0, 0, tzinfo=UTC)
    assert run_name("{time}", when=zoned).name == zoned.astimezone().strftime("%H-%M-%S")
    assert abs(datetime.now().astimezone() - datetime.fromisoformat(_stamp())).total_seconds() < 5


def _stamp():
    date, time = run_name("{date}_{time}").name.split("_")
    return datetime.fromisoformat(f"{date}T{time.replace('-', ':')}").astimezone().isoformat()


def test_own_fields():
    path = run_name("{sample}_{experiment}_{version}", fields={"sample": "Cu/Zn 5"}, experiment="λ scan")
    assert path.name == "Cu-Zn_5_λ_scan_v1"


@pytest.mark.parametrize(
    "pattern",
    [
        "../{experiment}",
        "a/{version}",
        "a\\b",
        "a\x00",
        "a:b",
        "{experiment.__class__}",
        "{experiment!r}",
        "{version:>9}",
        "{operator}",
        "{0}",
        "{}",
        "{",
        "}",
        "",
        "..",
        ".",
        "{experiment}.",
        "NUL",
        "con.h5",
        "x" * 300,
        "\udc80",
    ],
)
def test_patterns_that_give_no_file_name(pattern, tmp_path):
    with pytest.raises(ValueError, match=r"pattern|name") as caught:
        run_name(pattern, tmp_path)
    assert pattern in str(caught.value) or repr(pattern)[1:-1] in str(caught.value)


@given(st.text(), st.text(max_size=6))
def test_any_experiment_stays_in_its_folder(experiment, ext):
    folder = Path("data")
    try:
        path = run_name(folder=folder, experiment=experiment, ext=ext, when=WHEN)
    except ValueError:
        return
    assert path.parent == folder
    assert not set(path.name) & set('/\\:*?"<>|\x00')
    assert len(path.name.encode()) <= 255


def test_names_taken_at_the_same_moment(tmp_path):
    """Opening with mode x and asking again gives each of many threads a file of its own."""
    made = []

    def take():
        for _ in range(200):
            path = run_name(folder=tmp_path, when=WHEN)
            try:
                with path.open("x"):
                    made.append(path.name)
                    return
            except FileExistsError:
                continue

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == sorted(entry.name for entry in tmp_path.iterdir())
    assert len(set(made)) == 8


def test_claimed_names_are_nobody_elses(tmp_path):
    first, second = (run_name("a_{version}.{ext}", tmp_path / "new", claim=True) for _ in range(2))
    assert (first.name, second.name) == ("a_v1.h5", "a_v2.h5")
    assert run_name("a_{version}.{ext}", tmp_path / "new").name == "a_v1.h5", "only who claims minds claims"
    with pytest.raises(AlreadyExists, match="claimed"):
        run_name("b.h5", tmp_path, claim=True) and run_name("b.h5", tmp_path, claim=True)
    longest = run_name("é" * 120 + "_{version}.h5", tmp_path, claim=True)
    assert longest.name.endswith("_v1.h5")


CLAIMING = """
import sys
from datastore_lab import run_name
for _ in range(25):
    print(run_name("scan_{version}.{ext}", sys.argv[1], claim=True).name, flush=True)
sys.stdin.readline()
"""


def test_processes_that_claim_at_once_get_different_names(tmp_path):
    command = [sys.executable, "-c", CLAIMING, str(tmp_path)]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    names = [child.stdout.readline().strip() for _ in range(25) for child in children]
    assert set(names) == {f"scan_v{number}.h5" for number in range(1, 76)}
    children[0].kill()
    for child in children:
        child.communicate("\n")
    assert run_name("scan_{version}.{ext}", tmp_path, claim=True).name == "scan_v1.h5", "claims end"
    assert [entry.name for entry in tmp_path.iterdir() if not entry.name.startswith(".")] == []


# -- the table ---------------------------------------------------------------------------------------


def test_the_table_has_every_format_and_is_the_one_of_the_guide():
    table = format_table()
    assert [row[0] for row in table.rows] == [format_traits(name).label for name in format_names()]
    guide = (Path(__file__).parent.parent / "docs" / "guide.md").read_text(encoding="utf-8")
    assert table.to_markdown() in guide, "docs/guide.md: put in format_table().to_markdown()"
    assert repr(table).splitlines()[0].startswith("Format")
    assert table._repr_html_().count("<tr>") == len(table.rows) + 1


def test_an_unknown_format_is_named():
    with pytest.raises(NotFound, match="hdf6"):
        format_traits("hdf6")


def test_a_grid_escapes():
    grid = Grid(("a|b",), [("<b>",)])
    assert "<b>" not in grid._repr_html_()
    assert grid.to_markdown().startswith("| a\\|b |")
