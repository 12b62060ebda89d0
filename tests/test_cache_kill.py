"""A process that is killed while it caches loses nothing that was kept, and leaves nothing else."""

import random
import warnings

import cache_jobs
import pytest
from servers import SERVERS, new_store, server

from datastore_lab.cache import CacheWarning, cached
from datastore_lab.cache.shelf import Shelf
from datastore_lab.cache.why import CODE
from datastore_lab.testing.equality import assert_same
from datastore_lab.testing.processes import run_and_kill

PLACES = {
    "c.h5": "HDF5",
    "c.zarr": "Zarr",
    "c.parquets": "Parquet folder",
    "c.sqlite": "SQLite",
    "postgresql": "PostgreSQL",
    "mariadb": "MariaDB",
}
STEPS = 4


def killed(url, times):
    """Kill a caching process so many times, and look at what it left after each; gives how many it kept."""
    done = 0
    for seed in range(times):
        choice = random.Random(seed)
        done += run_and_kill(
            cache_jobs.work, (str(url), done), 1 + choice.randrange(STEPS), choice.random() * 0.05
        )
        look(url, done, some=choice.sample(range(done), min(done, 3)))
    look(url, done, some=range(done))
    return done


def look(url, done, some):
    """Hold what is kept against what was acknowledged."""
    function = cached(url, deps="none")(cache_jobs.table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in some:
            assert function.is_cached(number), f"{number} of {done} is lost"
            assert_same(function(number), cache_jobs.table(number))
    function._core.shelf.place.close()


def left_over(url):
    """Sweep, and name what is in the store and belongs to no entry."""
    shelf = Shelf(url)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CacheWarning)
        swept = shelf.gc()
    lines = shelf.ls()
    store = shelf.place.reading()
    wanted = {("cache", line.owner, line.key) for line in lines} | {
        ("cache", CODE, line.code) for line in lines
    }
    extra = set(store.keys_below("cache")) - wanted
    problems = store.verify()
    shelf.place.close()
    assert swept.entries == 0
    return extra, problems, len(lines)


def hold(name, folder, times):
    url = new_store(server(name)) if name in SERVERS else folder / name
    done = killed(url, times)
    extra, problems, entries = left_over(url)
    assert not extra
    assert problems == []
    assert done <= entries <= done + times


@pytest.mark.parametrize("name", PLACES)
def test_a_killed_process_loses_no_result(name, scratch):
    hold(name, scratch, 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", PLACES)
def test_a_process_killed_often_loses_no_result(name, scratch, faults):
    times = faults.times(200)
    hold(name, scratch, times)
    faults.tried(f"Cache in {PLACES[name]}", "kill -9 while caching", times)
