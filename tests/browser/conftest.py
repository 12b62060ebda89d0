"""One JupyterLab and one Chromium for all browser tests; every test has a page of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import Lab, Server, browser, write_notebook
from playwright.sync_api import expect

expect.set_options(timeout=15_000)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("jupyter")) as running:
        yield running


@pytest.fixture(scope="session")
def chrome() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture
def lab(server: Server, chrome: Any) -> Iterator[Lab]:
    context = chrome.new_context(viewport={"width": 1280, "height": 900})
    opened = Lab(context.new_page(), server)
    yield opened
    opened.js("""async () => {
        const sessions = window.jupyterapp?.serviceManager?.sessions;
        if (sessions) await sessions.shutdownAll(); }""")
    context.close()
    assert opened.foreign == [], "the page asked another server"


@pytest.fixture
def notebook(lab: Lab, request: pytest.FixtureRequest) -> Callable[..., Lab]:
    """Write a notebook of the given cells, open it and run it all."""

    def run(*cells: str) -> Lab:
        name = f"{request.node.name}.ipynb"
        write_notebook(lab.server.root / name, *cells)
        lab.open(name).run_all()
        return lab

    return run
