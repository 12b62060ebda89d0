"""Records from a stranger: each gives an object or a LabError, and runs nothing."""

import ast
import copy
import dataclasses
import enum
import importlib
import importlib.util
import itertools
import random
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from engines import WHOLE
from golden.content import MODULE, OBJECTS

import datastore_lab
from datastore_lab import media, objects
from datastore_lab.engines.memory import MemoryEngine
from datastore_lab.errors import Corrupt, LabError, MissingExtra, NotStorable, Untrusted
from datastore_lab.objects import decode, encode
from datastore_lab.records import BESIDE, CODEC_STATE, Record
from datastore_lab.registry import CODECS
from datastore_lab.store.mapping import Store

SOURCES = sorted(Path(datastore_lab.__file__).parent.rglob("*.py"))
UNPICKLERS = {
    "pickle",
    "_pickle",
    "cPickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "jsonpickle",
}

WATCHED = {
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "pickle.find_class",
}
RAN = []


def _watch(event, arguments):
    if event in WATCHED and "uname" not in map(
        str, arguments[:1]
    ):  # (which platform asks, when h5py is imported)
        RAN.append(event)


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def _nothing_ran():
    RAN.clear()
    yield
    assert not RAN


def of_value(state, **arrays):
    return Record("value", arrays, {CODEC_STATE: {"value": state}}, {})


# -- nothing is unpickled ----------------------------------------------------------------------


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_no_module_can_unpickle(path):
    tree = ast.parse(path.read_text())
    assert not UNPICKLERS & {name.partition(".")[0] for name in imported(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            assert getattr(given.get("allow_pickle"), "value", False) is False
        if isinstance(node, ast.Attribute):
            assert node.attr not in {
                "read_pickle",
                "unsafe_load",
                "full_load",
                "UnsafeLoader",
                "loads_pickle",
            }


def test_the_scan_sees_what_it_looks_for():
    assert set(imported(ast.parse("import pickle, a.b\nfrom joblib import load"))) & UNPICKLERS


# -- classes -----------------------------------------------------------------------------------


class Effects:
    ran = 0


@dataclasses.dataclass
class WithEffects:
    x: int

    def __post_init__(self):
        Effects.ran += 1

    def __setattr__(self, name, value):
        Effects.ran += 1


class Level(enum.Enum):
    LOW = 1

    @classmethod
    def _missing_(cls, value):
        Effects.ran += 1


NAMES = [
    "os:system",
    "builtins:eval",
    "builtins:exec",
    "builtins:object.__subclasses__",
    "builtins:type",
    "builtins:__import__",
    "subprocess:Popen",
    "sys:modules",
    "os:path.join",
    f"{MODULE}:Colour.__class__",
    f"{MODULE}:Colour.RED",
    f"{MODULE}:Fit.__init__",
    f"{MODULE}:Fit.__init__.__globals__",
    "lab_missing:Thing",
    "",
    ":",
    "os",
    "os:",
    ":system",
    "os:system:x",
    "importlib:import_module",
    "../os:system",
    "\0:\0",
]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_in_a_record_reaches_what_it_should_not(name):
    made = [
        of_value({"$enum": {"class": name, "name": "RED"}}),
        of_value({"$enum": {"class": name, "value": 1}}),
        of_value({"$dataclass": {"class": name, "fields": {"x": 1}}}),
        of_value({"$namedtuple": {"class": name, "fields": {"x": "echo lab"}}}),
        Record("object", {}, {CODEC_STATE: {"class": name}}, {}),
        Record(name or "?", {}, {CODEC_STATE: {"kind": "value", "state": {"value": 1}}}, {}),
    ]
    for record in made:
        with pytest.raises((Untrusted, Corrupt)):
            decode(record)
    assert not RAN


def test_classes_are_made_without_their_own_code():
    Effects.ran = 0
    name = f"{__name__}:WithEffects"
    found = decode(of_value({"$dataclass": {"class": name, "fields": {"x": 5}}}))
    assert (type(found), found.x) == (WithEffects, 5)
    with pytest.raises(Corrupt, match="members"):
        decode(of_value({"$enum": {"class": f"{__name__}:Level", "value": 7}}))
    assert Effects.ran == 0


def test_a_module_that_waits_to_be_loaded_is_left_waiting(tmp_path, monkeypatch):
    (tmp_path / "lab_lazy.py").write_text("import dataclasses\n@dataclasses.dataclass\nclass Data: x: int\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec = importlib.util.find_spec("lab_lazy")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lab_lazy", module)
    spec.loader.exec_module(module)
    record = of_value({"$dataclass": {"class": "lab_lazy:Data", "fields": {"x": 1}}})
    with pytest.raises(Untrusted, match="import lab_lazy"):
        decode(record)
    assert module.Data(1)  # by hand it can be loaded, and then the item is read
    assert decode(record) == module.Data(1)


def test_a_module_with_a_getattr_of_its_own_is_not_asked(monkeypatch):
    asked = []
    module = types.ModuleType("lab_asking")
    module.__getattr__ = asked.append
    monkeypatch.setitem(sys.modules, "lab_asking", module)
    for name in ("lab_asking:Thing", "lab_asking:__dict__", "lab_asking:__path__"):
        with pytest.raises(Untrusted):
            decode(of_value({"$enum": {"class": name, "name": "A"}}))
    assert not asked


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.engine)
def test_the_arrays_of_an_unknown_class_can_be_read(case, tmp_path, monkeypatch):
    module = types.ModuleType("lab_gone")
    module.Data = dataclasses.make_dataclass("Data", ["trace"], namespace={"__module__": "lab_gone"})
    monkeypatch.setitem(sys.modules, "lab_gone", module)
    with_store = Store(case.open(tmp_path / case.name, "w", durability="process"))
    with_store["fit"] = module.Data(np.arange(4.0))
    monkeypatch.delitem(sys.modules, "lab_gone")
    with pytest.raises(Untrusted, match="import lab_gone"):
        with_store["fit"]
    assert with_store.record("fit").arrays["trace"].tolist() == [0, 1, 2, 3]
    with_store.close()


# -- what is damaged, or made to do harm -------------------------------------------------------


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


def endless():
    value = {}
    value["a"] = value
    return value


ZERO = np.zeros(3, "i8")
TABLE = {"type": "Index", "index": {"type": "multi", "levels": []}}
HOSTILE = {
    "deep": of_value(deep(100_000)),
    "deep in text": Record("value", {}, {CODEC_STATE: {"text": "[" * 200_000}}, {}),
    "cycle": of_value(endless()),
    "cycle of records": of_value({"$record": endless()}),
    "exponent": of_value({"$fraction": "1e999999999"}),
    "digits": of_value({"$fraction": "9" * 10_000_000}),
    "zone outside": of_value({"$zoneinfo": {"zone": "../../../../etc/passwd"}}),
    "zone absolute": of_value({"$zoneinfo": {"zone": "/etc/passwd"}}),
    "zone with nul": of_value({"$zoneinfo": {"zone": "a\0"}}),
    "large text scalar": of_value({"$numpy": {"dtype": "<U500000000", "value": "x"}}),
    "large void scalar": of_value({"$numpy": {"dtype": "|V2000000000", "value": 1}}),
    "object scalar": of_value({"$numpy": {"dtype": "|O", "bytes": "00" * 8}}),
    "length of a deque": of_value({"$deque": {"maxlen": 10**30, "items": [1]}}),
    "factory": of_value({"$default_dict": {"factory": "eval", "items": []}}),
    "shape in a name": of_value({"$dtype": "(1000,)f8"}),
    "open bracket": of_value({"$dtype": "(1,f8"}),
    "days": of_value({"$timedelta": [10**30, 0, 0]}),
    "year": of_value({"$date": "99999-01-01"}),
    "no such array": of_value({"$packed": {"array": "x", "levels": [], "of": "int"}}),
    "levels": of_value({"$packed": {"array": "x", "levels": ["tuple"] * 9, "of": "int"}}, x=ZERO),
    "arguments": of_value({"$range": [1, 2, 3, 4]}),
    "step": of_value({"$range": [1, 2, 0]}),
    "unhashable": of_value({"$dict": [[[1], 2]]}),
    "kind": Record(["value"], {}, {}, {}),
    "no kind": Record(None, {}, {}, {}),
    "no state": Record("value", {}, {}, {}),
    "state": Record("table", {}, {CODEC_STATE: 5}, {}),
    "codes": Record(
        "table",
        {"l": np.array([1, 2]), "c": np.array([0, 9])},
        {
            CODEC_STATE: {
                "type": "Index",
                "index": {
                    "type": "multi",
                    "levels": [{"type": "values", "values": {"array": "l"}, "codes": "c"}],
                },
            }
        },
        {},
    ),
    "categories": Record(
        "table",
        {"d": np.array([0, 7], "i1"), "c": np.array([1.5])},
        {
            CODEC_STATE: {
                "type": "Series",
                "values": {"array": "d", "type": "category", "ordered": False, "categories": {"array": "c"}},
                "index": {"type": "range", "start": 0, "stop": 2, "step": 1},
            }
        },
        {},
    ),
    "rows": Record(
        "table",
        {},
        {
            CODEC_STATE: {
                "type": "DataFrame",
                "columns": [{"array": "x"}],
                "labels": {"type": "inline", "text": ["a"], "values": {"type": "object"}},
                "index": {"type": "range", "start": 0, "stop": 10**17, "step": 1},
            }
        },
        {},
    ),
    "label of a level": Record(
        "xarray",
        encode(OBJECTS["xarray"]["Dataset with a MultiIndex"]).arrays,
        media.from_json(
            media.to_json(encode(OBJECTS["xarray"]["Dataset with a MultiIndex"]).meta).replace(
                '"<U1"', '"<U500000000"'
            )
        ),
        {},
    ),
    "mask": Record(
        "array", {"data": ZERO, "mask": np.zeros(9, bool)}, {CODEC_STATE: {"form": "masked", "hard": 0}}, {}
    ),
    "no data": Record("array", {}, {}, {}),
    "registered": Record("lab_hostile", {}, {CODEC_STATE: endless()}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_record_is_refused(name):
    with pytest.raises((Corrupt, Untrusted)):
        decode(HOSTILE[name])
    assert not RAN


@pytest.mark.parametrize(
    "beside", [{}, {"names": 5}, {"names": [[]], "hidden": {}}, {"names": [], "hidden": 1}]
)
def test_damaged_notes_on_attributes_are_corrupt(beside):
    store = Store(MemoryEngine())
    store.write("x", encode(1)._replace(meta={**encode(1).meta, BESIDE: beside}))
    with pytest.raises(Corrupt, match="lab_beside"):
        store["x"]


def test_an_unknown_time_zone_says_what_helps():
    with pytest.raises(MissingExtra, match="tzdata"):
        decode(of_value({"$zoneinfo": {"zone": "Mars/Olympus"}}))


def test_a_failing_decoder_of_ones_own_is_named():
    class Own:
        pass

    objects.register_type(Own, lambda _: 1, lambda _: 1 / 0, kind="tests.Own")
    try:
        record = encode(Own())
        with pytest.raises(Corrupt, match=r"tests\.Own.*ZeroDivisionError"):
            decode(record)
    finally:
        objects.forget_type(Own)


# -- mutations of good records -----------------------------------------------------------------

BAD = [
    None, True, -1, 0, 10**30, 1.5, float("nan"), "", "x", "os:system", "builtins:eval", "lab_hostile:Thing",
    "|O", "<f8", "<U500000000", "data", [], {}, [[]], {"$enum": {"class": "os:system", "name": "x"}},
    {"$record": {"kind": "object", "meta": {"lab_codec": {"class": "os:system"}}}}, {"": 1}, "period[9X]",
    [1] * 100, "../x", "\0", {"type": "multi", "levels": []}, "1e99999999",
]  # fmt: skip
ARRAYS = [
    np.zeros(0),
    np.zeros((2, 2)),
    np.array(5),
    np.array([-5, 10**15]),
    np.array(["a"]),
    np.array([b"a"]),
    np.zeros(3, "i4,f8"),
    np.array(["x"], np.dtypes.StringDType()),
    np.array([2**63 - 1, -(2**63)]).view("M8[ns]"),
    np.full(4, 255, "u1"),
]


def spots(tree):
    """Give all places of a JSON tree as (container, key)."""
    pairs = (
        list(tree.items() if isinstance(tree, dict) else enumerate(tree))
        if isinstance(tree, (dict, list))
        else []
    )
    for key, item in pairs:
        yield tree, key
        yield from spots(item)


def mutated(record, source):
    meta, arrays = copy.deepcopy(dict(record.meta)), dict(record.arrays)
    for _ in range(source.randint(1, 3)):
        places = list(spots(meta))
        if places and (not arrays or source.random() < 0.75):
            holder, key = source.choice(places)
            if source.random() < 0.2:
                del holder[key]
            else:
                other, at = source.choice(places)
                elsewhere = other[at] if other is not holder else None  # (what was deleted is not there)
                holder[key] = copy.deepcopy(source.choice([*BAD, elsewhere]))
        elif arrays:
            name = source.choice(list(arrays))
            arrays[name] = source.choice([*ARRAYS, *record.arrays.values()])
            if source.random() < 0.2:
                del arrays[name]
    return record._replace(meta=meta, arrays=arrays)


GOOD = [
    (family, name, encode(obj)._replace(meta=media.from_json(media.to_json(encode(obj).meta))))
    for family, found in OBJECTS.items()
    for name, obj in found.items()
]


def attack(record, seed):
    try:
        found = decode(mutated(record, random.Random(seed)))
    except LabError:
        return 0
    if isinstance(found, (pd.DataFrame, pd.Series, xr.Dataset, xr.DataArray)):
        shape = found.sizes.values() if isinstance(found, (xr.Dataset, xr.DataArray)) else found.shape
        assert all(isinstance(size, int) for size in shape)
    return 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", OBJECTS)
def test_mutated_records_give_an_object_or_a_lab_error(family):
    tried = 0
    for number, (of, name, record) in enumerate(GOOD):
        if of == family:
            for seed in range(25):
                try:
                    attack(record, 1000 * number + seed)
                except Exception as error:
                    raise AssertionError(f"{family}, {name}, seed {1000 * number + seed}") from error
                tried += 1
    assert tried > 200
    assert not RAN
    assert "lab_hostile" not in sys.modules


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_mutated_records(faults):
    times = faults.times(1000)
    for (number, (_, name, record)), seed in itertools.product(enumerate(GOOD), range(times)):
        try:
            attack(record, 7_000_000 + 1000 * number + seed)
        except Exception as error:
            raise AssertionError(f"{name}, seed {7_000_000 + 1000 * number + seed}") from error
    assert not RAN
    faults.tried("codecs", "mutated record", times * len(GOOD))


# -- what can't be stored, on every engine -----------------------------------------------------


class Plain:
    pass


@dataclasses.dataclass
class Holder:
    field: object


REFUSED = {
    "list": ([1, [2, Plain()]], r"value\[1\]\[1\]"),
    "tuple": ((1, Plain()), r"value\[1\]"),
    "dict": ({"a": [1, 2, 3, Holder(Plain())]}, r"value\['a'\]\[3\]\.field"),
    "dict by number": ({1: {(1, 2): Plain()}}, r"value\[1\]\[\(1, 2\)\]"),
    "key": ({frozenset({Plain()}): 1}, r"value\[key 0\]\[0\]"),
    "set": ({Plain()}, r"value\[0\]"),
    "dataclass": (Holder({"b": Plain()}), r"value\.field\['b'\]"),
    "series": (pd.Series([1, Plain()], dtype=object), r"series.*\[1\]"),
    "frame": ({"f": pd.DataFrame({"x": [Plain()]})}, r"column 'x': value\['f'\]\[0\]"),
    "frame attribute": (pd.Series([1]).set_axis(["a"]).rename("s").to_frame(), None),
    "index": (pd.DataFrame({"x": [1]}, index=pd.Index([Plain()])), "index.*\\[0\\]"),
    "dataset": (xr.Dataset({"v": ("x", np.array([Plain()]))}), "variable 'v'"),
    "attribute": (xr.Dataset(attrs={"a": [Plain()]}), r"\['a'\]\[0\]"),
    "tree": (xr.DataTree.from_dict({"/g": xr.Dataset(attrs={"a": Plain()})}), r"\['a'\]"),
    "object array": ({"x": np.array([object()])}, r"value\['x'\]"),
    "memoryview": ([memoryview(b"a")], r"value\[0\].*memoryview"),
    "module": ({"np": np}, r"value\['np'\]"),
}
REFUSED.pop("frame attribute")


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.engine)
def test_what_cannot_be_stored_leaves_no_trace(case, tmp_path):
    store = Store(case.open(tmp_path / case.name, "w", durability="process"))
    store["old"] = {"kept": np.arange(3)}
    before = store.revision()
    for name, (obj, path) in REFUSED.items():
        for key in ("old", f"new/{name}"):
            with pytest.raises(NotStorable, match=f"(?s){path}"):
                store[key] = obj
    assert store.revision() == before
    assert list(store.children()) == ["old"]
    assert store["old"]["kept"].tolist() == [0, 1, 2]
    store.close()


# -- codecs of other distributions -------------------------------------------------------------

PLUGIN = """
from datastore_lab.records import Record
class Thing:
    def __init__(self, data): self.data = data
class Codec:
    kind = "lab_far.Thing"
    def __init__(self, encode, decode): self.encode_other, self.decode_other = encode, decode
    def encode(self, obj): return self.encode_other({"data": obj.data})._replace(kind=self.kind)
    def decode(self, record): return Thing(self.decode_other(record._replace(kind="value"))["data"])
class Halting:
    def __init__(self): pass
"""


@pytest.fixture
def far(tmp_path, monkeypatch):
    """Install a distribution with codecs, one of which can't be imported and one can't be made."""
    (tmp_path / "lab_far.py").write_text(PLUGIN)
    info = tmp_path / "lab_far-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-far\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[datastore_lab.codecs]\nlab_far.Thing = lab_far:Codec\nlab_far.Broken = lab_far_missing:Codec\n"
        "lab_far.Halting = lab_far:Halting\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(CODECS, "_objects", dict(CODECS._objects))
    yield importlib.import_module("lab_far")
    sys.modules.pop("lab_far", None)
    objects.codec_of.cache_clear()
    objects._plugin_kind.cache_clear()


def test_a_codec_of_another_distribution_stores_its_class(far):
    record = encode([far.Thing(np.arange(3))])
    assert decode(record)[0].data.tolist() == [0, 1, 2]


def test_an_installed_codec_may_be_imported_to_read(far):
    record = encode(far.Thing(5))
    sys.modules.pop("lab_far")
    CODECS._objects.pop("lab_far.Thing")
    objects.codec_of.cache_clear()
    assert decode(record).data == 5


def test_a_broken_codec_warns_and_hides_nothing_else(far):
    record = Record("lab_far.Broken", {}, {}, {})
    with (
        pytest.warns(RuntimeWarning, match=r"lab_far\.Broken"),
        pytest.raises(Untrusted, match=r"lab_far\.Broken"),
    ):
        decode(record)
    with pytest.raises(Untrusted, match=r"lab_far\.Halting.*can't be used"):
        decode(record._replace(kind="lab_far.Halting"))
    assert decode(encode(far.Thing(1))).data == 1
    assert decode(encode([1])) == [1]


@pytest.mark.filterwarnings("ignore")
def test_mutated_records_are_shown_lazily_or_refused():
    for number, (_, name, record) in enumerate(GOOD):
        for seed in range(3):
            store = Store(MemoryEngine())
            try:
                store.write("k", mutated(record, random.Random(9_000_000 + 1000 * number + seed)))
                store.lazy("k")
                store.tree()
            except LabError:
                continue
            except Exception as error:
                raise AssertionError(f"{name}, seed {9_000_000 + 1000 * number + seed}") from error
