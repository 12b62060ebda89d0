"""What is kept for how long, what is said about it, and what a cache does where it can't do its work."""

from __future__ import annotations

import datetime as dt
import os
import random
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from datastore_lab import open_store
from datastore_lab.cache import CacheWarning, cached, entries, upkeep
from datastore_lab.cache.place import Place, local_path
from datastore_lab.cache.shelf import Shelf
from datastore_lab.cache.why import CODE
from datastore_lab.errors import EngineError, Foreign, Newer, NotStorable

PLACES = ["memory://", "c.h5", "c.zarr", "c.parquets", "c.sqlite"]


@pytest.fixture(params=PLACES)
def place(request, tmp_path):
    return request.param if request.param == "memory://" else str(tmp_path / request.param)


def made(text, **options):
    """Define functions from source, as an edited file would, and give the cached one named ``f``."""
    number = len(list(_FOLDER.iterdir()))
    file = _FOLDER / f"edited_{number}.py"
    file.write_text(text)
    space = {"__name__": "job", **options.pop("names", {})}
    exec(compile(text, str(file), "exec"), space)
    return cached(**options)(space["f"])


@pytest.fixture(autouse=True)
def _folder(tmp_path_factory):
    global _FOLDER
    _FOLDER = tmp_path_factory.mktemp("code")


_FOLDER = Path()


# -- age -------------------------------------------------------------------------------------------------


@pytest.fixture
def later(monkeypatch):
    """Let time pass for the ages of results."""
    passed, age = [0.0], entries.age
    monkeypatch.setattr(entries, "age", lambda attrs: age(attrs) + passed[0])
    return lambda seconds: passed.append(passed.pop() + seconds)


@pytest.mark.parametrize("ttl", ["7d", 604800, dt.timedelta(days=7)])
def test_a_result_gets_too_old(place, ttl, later):
    ran = []
    function = cached(place, "ran", ttl=ttl)(lambda x: ran.append(x) or [x])
    function(1)
    assert function(1) == [1]
    assert len(ran) == 1
    later(604801)
    assert not function.is_cached(1)
    assert function(1) == [1]
    assert len(ran) == 2
    later(-604801)
    assert function.is_cached(1)


def test_a_short_age_counts_for_results_of_before(tmp_path, later):
    cached(tmp_path / "c.h5", deps="none")(_double)(2)
    later(100)
    assert cached(tmp_path / "c.h5", deps="none")(_double).is_cached(2)
    assert not cached(tmp_path / "c.h5", deps="none", ttl=99)(_double).is_cached(2)


def test_a_result_from_the_future_counts_as_too_old():
    shelf = Shelf()
    ahead = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()
    shelf.keep("f", "k", 1, {"created": ahead})
    assert shelf.find("f", "k").value == 1
    assert shelf.find("f", "k", ttl=86400) is None


def _double(x):
    return 2 * x


# -- options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"ttl": "soon"}, ValueError, "'soon' is not a duration"),
        ({"ttl": 0}, ValueError, "ttl=0"),
        ({"ttl": dt.timedelta(-1)}, ValueError, "can't be younger"),
        ({"deps": "all"}, ValueError, "write 'auto', 'none'"),
        ({"deps": 3}, TypeError, "a list of functions"),
        ({"deps": np}, TypeError, "a list of functions"),
        ({"copy": "yes"}, TypeError, "copy='yes': write True or False"),
        ({"verify": 1}, TypeError, "verify=1"),
        ({"lock": None}, TypeError, "lock=None"),
        ({"max_size": "big"}, ValueError, "'big' is not a size"),
        ({"ignore_kwargs": "y"}, ValueError, "ignore_kwargs names"),
    ],
)
def test_options_that_make_no_sense(options, error, match):
    with pytest.raises(error, match=match):
        cached(**options)(_double)


def test_dependencies_that_are_named():
    text = "K = 1\nL = 1\ndef g(x):\n    return x\ndef f(x):\n    return g(x) + K + L\n"
    store = open_store("memory://")

    def keyed(text, deps):
        function = made(text, storage=store, deps=deps)
        return function._core.keys.call((1,), {}).key

    changes = {
        "g": text.replace("return x\n", "return -x\n"),
        "K": text.replace("K = 1", "K = 2"),
        "L": text.replace("L = 1", "L = 2"),
        "f": text.replace("+ K + L", "+ L + K"),
    }
    same = {
        word: [name for name, other in changes.items() if keyed(other, deps) == keyed(text, deps)]
        for word, deps in {
            "auto": "auto",
            "none": "none",
            "K": ["K"],
            "none given": [],
            "gL": ["g", "L"],
        }.items()
    }
    assert same == {
        "auto": [],
        "none": ["g", "K", "L", "f"],
        "K": ["g", "L"],
        "none given": ["g", "K", "L"],
        "gL": ["K"],
    }
    with pytest.raises(ValueError, match="deps names 'M'"):
        keyed(text, ["M"])


def test_dependencies_given_as_objects():
    table = {"a": 1}
    function = cached(deps=[_double, table])(lambda x: x)
    before = function._core.keys.call((1,), {}).key
    assert function._core.keys.call((1,), {}).key == before
    table["a"] = 2
    assert function._core.keys.call((1,), {}).key != before


# -- results -----------------------------------------------------------------------------------------------


def test_a_result_is_put(place):
    function = cached(place, deps="none")(_double)
    function.put(np.arange(5), 7)
    assert function(7).tolist() == [0, 1, 2, 3, 4]
    assert function.stats()["entries"] == 1
    with pytest.raises(NotStorable):
        function.put(sys.stdout, 8)
    assert function.__wrapped__(7) == 14


def results(n):
    return {"large": np.arange(float(n)), "small": np.arange(3), "list": [1]}


def test_results_are_protected(place):
    function = cached(place, deps="none")(results)
    own = function(30_000)
    own["large"][0] = 77.0
    found = function(30_000)
    for array in (found["large"], found["small"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
    found["list"].append(2)
    found["new"] = 1
    again = function(30_000)
    assert again["large"][0] == 0.0
    assert again["list"] == [1]
    assert "new" not in again


def test_results_as_copies(place):
    cached(place, deps="none")(results)(30_000)
    function = cached(place, deps="none", copy=True)(results)
    function(30_000)
    found = function(30_000)
    found["large"][0] = found["small"][0] = 5
    assert function(30_000)["large"][0] == 0.0
    assert function(30_000)["small"][0] == 0


def test_writing_to_a_result_in_a_cached_function_says_what_to_do():
    function = cached(deps="none")(results)
    function(5)

    def change(given, how):
        array = given["large"]
        if how == "item":
            array[0] = 1
        elif how == "sum":
            array += 1
        elif how == "sort":
            array.sort()
        raise ValueError("read-only memory is a wonderful thing")

    for how in ("item", "sum", "sort"):
        with pytest.raises(ValueError, match="read-only") as caught:
            cached(deps="none")(change)(function(5), how)
        (note,) = caught.value.__notes__
        assert "'array' came from the cache" in note
        assert "copy=True" in note
    own = np.arange(3.0)
    own.flags.writeable = False
    with pytest.raises(ValueError, match="read-only") as caught:
        cached(deps="none")(change)({"large": own}, "item")
    assert not hasattr(caught.value, "__notes__")


def test_tables_are_copies(place):
    import pandas as pd

    function = cached(place, deps="none")(lambda: {"t": pd.DataFrame({"a": np.arange(20_000.0)})})
    function()
    for _ in range(2):
        frame = function()["t"]
        assert frame["a"].iloc[0] == 0.0
        frame.loc[0, "a"] = 5.0
        frame["a"] += 1


def test_a_large_array_is_mapped_from_the_file(tmp_path):
    function = cached(tmp_path / "c.h5", deps="none")(results)
    function(200_000)
    held = function(200_000)["large"]
    base = held
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert type(base.base).__name__ == "mmap"
    function.invalidate(200_000)
    function._core.shelf.gc()
    function(300_000)
    assert held[-1] == 199_999.0
    assert held.sum() == np.arange(200_000.0).sum()


def test_what_was_handed_out_is_keyed_without_reading(tmp_path, monkeypatch):
    import xxhash

    function = cached(tmp_path / "c.h5", deps="none")(results)
    use = cached(deps="none")(lambda x: 1)
    function(200_000)
    found = function(200_000)["large"]
    keys = use._core.keys
    copied = keys.call((found.copy(),), {}).key
    hashed = []

    class Spy:
        def update(self, block):
            hashed.append(len(block))

        def digest(self):
            return bytes(16)

    monkeypatch.setattr(xxhash, "xxh3_128", Spy)
    assert keys.call((found,), {}).key == copied
    assert not hashed
    keys.call((found[1:],), {})
    keys.call((found[::-1],), {})
    assert hashed


def test_another_program_changes_a_mapped_file(tmp_path):
    path = tmp_path / "c.h5"
    ran = []
    function = cached(path, "ran", deps="none")(lambda: ran.append(1) or np.full(50_000, 7.25))
    function()
    assert function().sum() == 50_000 * 7.25
    raw, needle = path.read_bytes(), np.full(100, 7.25).tobytes()
    at = raw.index(needle) + 800
    with path.open("r+b") as file:
        file.seek(at)
        file.write(np.float64(8.25).tobytes())
    os.utime(path)
    with pytest.warns(CacheWarning, match="is damaged"):
        assert function().sum() == 50_000 * 7.25
    assert len(ran) == 2


def test_without_verifying_large_arrays_are_not_read(tmp_path, monkeypatch):
    cached(tmp_path / "c.h5", deps="none")(results)(200_000)
    summed = []
    monkeypatch.setattr(entries, "array_sum", lambda array: summed.append(1) or "")
    function = cached(tmp_path / "c.h5", deps="none", verify=False)(results)
    assert function(200_000)["large"][-1] == 199_999.0
    assert not summed


# -- why ---------------------------------------------------------------------------------------------------


CODE_1 = "def g(x):\n    y = x + 1\n    return y\ndef h(x):\n    return g(x)\ndef f(x):\n    return h(x)\n"


def test_why_counts_lines_and_names_the_caller(place):
    made(CODE_1, storage=place if place != "memory://" else (store := open_store(place)))(1)
    storage = place if place != "memory://" else store
    edited = made(CODE_1.replace("x + 1", "x + 2"), storage=storage)
    assert edited.why(1) == "`g` (called by `h`) changed −1 +1; `x` same"
    assert edited.why(2) == "`g` (called by `h`) changed −1 +1; `x` changed"
    assert made(CODE_1, storage=storage).why(2) == "`x` changed"
    assert made(CODE_1, storage=storage).why(1) == "this call is in the cache"
    assert made(CODE_1, storage=storage, version=2).why(1) == "version= changed; `x` same"
    more = CODE_1.replace("    y = x + 1\n", "    # a comment\n    y = x + 1\n    y = y * 1\n")
    assert made(more, storage=storage).why(1) == "`g` (called by `h`) changed −0 +1; `x` same"


def test_why_names_versions(monkeypatch):
    from datastore_lab.cache import sources

    store = open_store("memory://")
    text = "import numpy as np\ndef f(x):\n    return float(np.sum(x))\n"
    monkeypatch.setattr(sources, "distribution", lambda module: ("numpy", "2.4.5"))
    made(text, storage=store)(1.0)
    monkeypatch.setattr(sources, "distribution", lambda module: ("numpy", "2.4.6"))
    assert made(text, storage=store).why(1.0) == "numpy 2.4.5 → 2.4.6; `x` same"


def test_why_names_versions_of_what_arguments_are(monkeypatch):
    from datastore_lab.cache import sources

    function = cached(deps="none")(lambda x: 1)
    argument = np.polynomial.Polynomial([1, 2])
    monkeypatch.setattr(sources, "distribution", lambda module: ("numpy", "2.4.5"))
    function(argument)
    monkeypatch.setattr(sources, "distribution", lambda module: ("numpy", "2.4.6"))
    assert function.why(argument).endswith("numpy 2.4.5 → 2.4.6")


def test_accept_blesses_a_change(place):
    storage = open_store(place) if place == "memory://" else place
    before = made(CODE_1, storage=storage)
    before(1), before(2)
    after = made(CODE_1.replace("x + 1", "1 + x"), storage=storage)
    after(2)
    assert after.accept() == 1
    assert after.is_cached(1)
    assert after(1) == 2
    assert after._core.counts == {"hits": 1, "misses": 1}
    assert after.accept() == 0
    assert after.stats()["entries"] == 3
    assert not before.is_cached(1)
    assert before.is_cached(2)


def test_accept_blesses_no_other_values(place):
    storage = open_store(place) if place == "memory://" else place
    text = "K = 2\ndef f(x):\n    return K * x\n"
    made(text, storage=storage)(1)
    for other in (text.replace("K = 2", "K = 3"), text.replace("K = 2", "K = 3").replace("K * x", "x * K")):
        after = made(other, storage=storage)
        with pytest.raises(NotStorable, match=r"K changed; only changes of code can be accepted"):
            after.accept()
        assert not after.is_cached(1)
    assert made(text.replace("K * x", "x * K"), storage=storage).accept() == 1
    with pytest.raises(NotStorable, match="version changed"):
        made(text, storage=storage, version=2).accept()


# -- size --------------------------------------------------------------------------------------------------


def blob(n):
    return np.full(10_000, float(n))


def test_the_least_recently_used_results_go_first(place):
    function = cached(place, deps="none", max_size=250_000)(blob)
    for number in (1, 2, 3):
        function(number)
        time.sleep(0.002)
    function(1)
    function(4)
    assert [function.is_cached(n) for n in (1, 2, 3, 4)] == [True, False, True, True]
    assert function.stats()["nbytes"] <= 250_000


@pytest.mark.parametrize("kind", ["text", "mapping", "number"])
def test_results_without_arrays_have_a_size_too(place, kind):
    def make(x, kind):
        return {"text": str(x) * 20_000, "mapping": {f"k{n}": x for n in range(2000)}, "number": x}[kind]

    limit, count = (2_000, 12) if kind == "number" else (100_000, 12)
    function = cached(place, max_size=limit)(make)
    for x in range(count):
        function(x, kind)
    stats = function.stats()
    assert 0 < stats["entries"] < count
    assert 0 < stats["nbytes"] <= limit
    assert function.is_cached(count - 1, kind)


def test_a_result_larger_than_the_cache(place):
    function = cached(place, deps="none", max_size="50 kB")(blob)
    with pytest.warns(CacheWarning, match=r"not kept: it takes 80 kB.* max_size=50 kB"):
        assert function(1)[0] == 1.0
    assert function.stats()["entries"] == 0


def test_listing_follows_the_store(place):
    storage = open_store(place) if place == "memory://" else place
    function = cached(storage, deps="none")(blob)
    for number in range(5):
        function(number)
    shelf = Shelf(storage)
    owner = function._core.keys.owner
    assert sorted(line.arguments for line in shelf.ls()) == [f"n={number}" for number in range(5)]
    with shelf.place.writing() as store:
        store.delete(("cache", owner, shelf.ls()[0].key))
        entries.keep(store, ("cache", "other", "k"), 1, {"created": entries.now(), "arguments": "here"})
    assert len(shelf.ls()) == 5
    assert [line.arguments for line in shelf.ls("other")] == ["here"]
    if (folder := shelf.place.folder()) is not None:
        assert (folder / "index.sqlite").exists()
        for file in folder.iterdir():
            file.unlink()
        assert len(Shelf(storage).ls()) == 5


def test_listing_opens_nothing_that_a_shelf_has_kept(place, monkeypatch):
    storage = open_store(place) if place == "memory://" else place
    one, two = Shelf(storage), Shelf(storage)
    one.ls()
    (one if place == "memory://" else two).keep("f", "a", 1, {})
    one.keep("f", "b", 2, {})
    one.forget("f", "a")

    def refuse(*_args):
        raise AssertionError("the store was searched")

    monkeypatch.setattr(upkeep, "names", refuse)
    assert [line.key for line in one.ls()] == ["b"]


@pytest.mark.parametrize("content", [b"", b"not a database" * 1000])
def test_a_damaged_list_is_made_anew(tmp_path, content):
    function = cached(tmp_path / "c.h5", deps="none")(blob)
    function(1)
    function._core.shelf.ls()
    folder = tmp_path / "c.h5-cache"
    for suffix in ("-wal", "-shm"):
        (folder / f"index.sqlite{suffix}").unlink(missing_ok=True)
    (folder / "index.sqlite").write_bytes(content)
    assert [line.arguments for line in Shelf(tmp_path / "c.h5").ls()] == ["n=1"]


def test_sweeping(place):
    storage = open_store(place) if place == "memory://" else place
    shelf = Shelf(storage)
    old = (dt.datetime.now(dt.UTC) - dt.timedelta(days=40)).isoformat()
    shelf.keep("f", "old", 1, {"created": old})
    shelf.keep("f", "short", 1, {"created": old, "ttl": 3600.0})
    shelf.keep("f", "new", np.arange(5), {}, items={"a": 1, "b": [2]})
    shelf.keep("f", "damaged", np.arange(5.0), {})
    cached(storage, deps="none")(blob)(1)
    with shelf.place.writing() as store:
        place = ("cache", "f", "damaged")
        store.write(place, store.record(place)._replace(arrays={"data": np.arange(5.0) + 1}))
        entries.keep(store, ("cache", "f", "torn", "variables", "x"), 1, {})
        entries.keep(store, ("cache", CODE, "0" * 32), 1, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        swept = shelf.gc(older=86400 * 30)
    assert (swept.entries, swept.left_over) == (3, 2)
    assert sorted(line.key for line in shelf.ls("f")) == ["new"]
    assert shelf.item("f", "new", "b").value == [2]
    assert shelf.gc(older=86400 * 30)[:3] == (0, 0, 0)
    assert shelf.clear() == 2
    assert shelf.ls() == []
    assert not list(shelf.store.children(("cache", CODE))) if ("cache", CODE) in shelf.store else True


# -- what a key can't hold ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return time.time() > 0", r"the clock \(time.time\).*ttl="),
        ("return now() > 0", r"the clock \(now\)"),
        ("return datetime.datetime.now().year > 0", r"the clock \(datetime.datetime.now\)"),
        ("return os.environ.get('HOME')", r"the environment \(os.environ.get\)"),
        ("return os.getenv('HOME')", r"the environment \(os.getenv\)"),
        ("return random.random() < 2", r"random numbers without a seed \(random.random\)"),
        ("return float(np.random.normal()) < 99", r"\(numpy.random.normal\).*default_rng"),
        ("return float(np.random.default_rng().normal()) < 99", r"\(numpy.random.default_rng\)"),
        ("return [open(os.devnull).close()]", r"files \(open\)"),
        ("return pathlib.Path(os.devnull).read_text()", r"files \(read_text\)"),
        ("return np.genfromtxt([]).size if x > 1 else 0", r"files \(numpy.genfromtxt\)"),
        ("return urlopen('data:,1').read()", r"the network \(urlopen\)"),
        ("return input() if x > 1 else 0", r"what is typed \(input\)"),
        ("return len(str(uuid.uuid4()))", r"random numbers without a seed \(uuid.uuid4\)"),
        ("return len(glob.glob('*.none'))", r"files \(glob.glob\)"),
        ("return helper()", r"the clock \(time.time in .*helper\)"),
        ("x.append(1)\n    return 1", r"changes its argument 'x' in place"),
    ],
)
def test_what_a_key_does_not_hold_is_warned_about_once(body, told):
    names = (
        "import datetime, glob, os, pathlib, random, time, uuid\nimport numpy as np\n"
        "from time import time as now\nfrom urllib.request import urlopen\n"
        "def helper():\n    return time.time() > 0\n"
    )
    function = made(f"{names}def f(x):\n    {body}\n")
    argument = [1] if "append" in body else 1
    with pytest.warns(CacheWarning, match=told) as seen:
        function(argument)
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        function([5] if isinstance(argument, list) else 0)


@pytest.mark.parametrize(
    "body",
    [
        "return float(np.random.default_rng(x).normal())",
        "return random.Random(x).random()",
        "np.random.seed(x)\n    return float(np.random.normal())",
        "return datetime.datetime(2020, 1, x).year",
        "return os.path.join('a', 'b')",
        "return [x].copy()",
    ],
)
def test_what_is_no_reason_to_warn(body):
    names = "import datetime, os, random, time\nimport numpy as np\n"
    state = np.random.get_state()  # noqa: NPY002 (the shared one)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(f"{names}def f(x):\n    {body}\n")(1)
    np.random.set_state(state)  # noqa: NPY002


def test_what_is_ignored_is_not_warned_about():
    text = "import time\ndef f(x):\n    t = time.perf_counter()\n    return x\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(text, ignore_kwargs="time")(1)


# -- where it can't work -----------------------------------------------------------------------------------


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    function = cached(tmp_path / "c.h5", deps="none")(blob)
    function(1)

    def full(*_args):
        raise EngineError("no space left on device")

    from datastore_lab.engines.hdf5 import HDF5Engine

    with monkeypatch.context() as patch:
        patch.setattr(HDF5Engine, "write", full)
        with pytest.warns(CacheWarning, match="is returned, but could not be written: no space left"):
            assert function(2)[0] == 2.0
        assert function(1)[0] == 1.0
    assert function(2)[0] == 2.0
    assert function._core.counts == {"hits": 1, "misses": 3}


def test_a_store_of_a_newer_version(tmp_path):
    import h5py

    cached(tmp_path / "c.h5", deps="none")(blob)(1)
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        file.attrs["lab_layout"] = 99
    function = cached(tmp_path / "c.h5", deps="none")(blob)
    with pytest.raises(Newer, match=r"c\.h5"):
        function(1)


def test_a_file_of_another_program(tmp_path):
    (tmp_path / "c.h5").write_bytes(b"something else entirely" * 100)
    with pytest.raises(Foreign):
        cached(tmp_path / "c.h5", deps="none")(blob)(1)
    assert (tmp_path / "c.h5").read_bytes().startswith(b"something else")


def test_a_place_that_another_process_holds(tmp_path, monkeypatch):
    from datastore_lab.cache import place

    monkeypatch.setattr(place, "PATIENCE", 0.1)
    code = "import sys, datastore_lab as d; s = d.open_store(sys.argv[1]); print(1, flush=True); input()"
    import subprocess

    command = [sys.executable, "-c", code, str(tmp_path / "c.h5")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        function = cached(tmp_path / "c.h5", deps="none")(blob)
        with pytest.warns(CacheWarning, match=r"could not be written: .*is open for writing by process"):
            assert function(1)[0] == 1.0
        other.communicate("\n")
    assert function(1)[0] == 1.0
    assert function.is_cached(1)


def test_a_file_that_is_deleted_meanwhile(tmp_path):
    function = cached(tmp_path / "c.h5", deps="none")(blob)
    function(1), function(1)
    (tmp_path / "c.h5").unlink()
    assert function(1)[0] == 1.0
    assert function._core.counts == {"hits": 1, "misses": 2}
    assert function.is_cached(1)


def test_a_folder_that_is_missing(tmp_path):
    function = cached(tmp_path / "missing" / "c.h5", deps="none")(blob)
    with pytest.warns(CacheWarning, match=r"could not be written: .*missing does not exist"):
        assert function(1)[0] == 1.0
    assert function.stats()["entries"] == 0
    assert not (tmp_path / "missing").exists()


def test_addresses_with_a_place_on_this_computer(tmp_path):
    assert local_path(f"sqlite:///{tmp_path}/c.sqlite") == tmp_path / "c.sqlite"
    assert local_path(f"file://{tmp_path}/a%20b.h5") == tmp_path / "a b.h5"
    assert local_path("s3://bucket/c.zarr") is None


def test_a_place_does_not_change_with_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function = cached("c.h5", deps="none")(blob)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    function(1)
    assert (tmp_path / "c.h5").exists()
    assert not list((tmp_path / "other").iterdir())


def test_one_place_has_one_name(tmp_path):
    with open_store(tmp_path / "a::b.h5") as store:
        places = [Place(tmp_path / "a::b.h5"), Place(store), Place(f"file://{tmp_path}/a::b.h5")]
        assert len({place.address for place in places}) == 1
        assert {place.folder() for place in places} == {tmp_path / "a::b.h5-cache"}
        group = Place(store.group("run/7"))
        assert group.address.endswith("a::b.h5::run/7")
        assert group.folder() == tmp_path / "a::b.h5-cache"
    urls = ["postgresql://a@one/db", "postgresql+psycopg://b@two:5432/db?lab=lab"]
    assert len({Place(url).shared for url in urls}) == 1


def test_seeds_are_left_alone():
    random.seed(1)
    before = random.getstate()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        cached(deps="none")(_double)(1)
    assert random.getstate() == before
