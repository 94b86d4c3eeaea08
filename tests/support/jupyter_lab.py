"""A JupyterLab on the loopback address, in folders of its own, and notebooks opened in it by Playwright."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError

# nbformat is imported where it is used: it takes seconds, also of runs that collect the tests of JupyterLab only.
ROOT = Path(__file__).resolve().parent.parent.parent
PLACES = (
    "HOME",
    "IPYTHONDIR",
    "JUPYTER_CONFIG_DIR",
    "JUPYTER_DATA_DIR",
    "JUPYTER_RUNTIME_DIR",
    "JUPYTERLAB_SETTINGS_DIR",
    "JUPYTERLAB_WORKSPACES_DIR",
)
OPTIONS = (
    "--no-browser",
    "--allow-root",
    "--ip=127.0.0.1",
    "--ServerApp.port_retries=0",
    "--ServerApp.disable_check_xsrf=True",
    "--IdentityProvider.token=",
    "--LabApp.extension_manager=readonly",
    "--LabApp.news_url=None",
)
NO_NEWS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
STATE = "@jupyter-widgets/jupyterlab-manager/plugin"
ENDS = 30  # seconds that a server has to end its kernels and itself


class Lab:
    """A running JupyterLab.

    Attributes:
        url: its address.
        folder: where its notebooks lie.
        places: its own folders.
    """

    def __init__(self, url, folder, places):
        self.url = url
        self.folder = folder
        self.places = places

    def write(self, name, notebook, *, trusted=False):
        """Put a notebook into the folder, as one from elsewhere or as one that was run here."""
        import nbformat
        from nbformat.sign import NotebookNotary

        nbformat.write(notebook, self.folder / name)
        if trusted:
            NotebookNotary(data_dir=str(self.places["JUPYTER_DATA_DIR"])).sign(self.read(name))

    def read(self, name):
        import nbformat

        return nbformat.read(self.folder / name, as_version=4)

    def save_widget_state(self):
        """From now on, notebooks are saved with the state of their widgets."""
        write_settings(self.places, {STATE: {"saveState": True}})

    def ask(self, method, path):
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or "null")

    def end_kernels(self):
        for session in self.ask("GET", "sessions"):
            self.ask("DELETE", f"sessions/{session['id']}")


def notebook_of(*cells, kernel="python3"):
    """A notebook of code cells that have not run; without a kernel, JupyterLab asks for one."""
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": kernel, "display_name": "Python 3", "language": "python"}
    return notebook


@contextmanager
def jupyterlab(folder):
    """A JupyterLab whose files all lie in an empty folder; it and its kernels have ended when this ends.

    Its kernels find the package that is tested.
    """
    places = {name: folder / name.lower() for name in PLACES}
    for place in (*places.values(), notebooks := folder / "notebooks"):
        place.mkdir()
    write_settings(places, NO_NEWS)
    # The server would take ports, folders and coverage of a Jupyter or pytest that it is started from.
    of_others = ("JUPYTER", "JPY_", "COV_", "PYTEST")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(of_others)}
    environment |= {"PYTHONPATH": str(ROOT), **{name: str(place) for name, place in places.items()}}
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", *OPTIONS]
    command += [f"--port={port}", f"--ServerApp.root_dir={notebooks}"]
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    lab = Lab(f"http://127.0.0.1:{port}", notebooks, places)
    try:
        wait_for(lab, server, folder / "log.txt")
        yield lab
    finally:
        server.terminate()  # it ends its kernels
        try:
            server.wait(ENDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def write_settings(places, settings):
    for plugin, values in settings.items():
        file = places["JUPYTERLAB_SETTINGS_DIR"] / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def wait_for(lab, server, log):
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        with suppress(URLError, ConnectionError, TimeoutError):
            return lab.ask("GET", "status")
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab does not answer: {log.read_text()}")


@contextmanager
def opened(browser, lab, name, **options):
    """A page with a notebook of a JupyterLab; options are those of `new_context`: viewport, color_scheme.

    `page.said` collects what comes from neither JupyterLab nor its extensions: errors, and lines of the console.
    """
    with browser.new_context(**options) as context:
        page = context.new_page()
        page.said = []
        page.on("console", lambda line: page.said.extend(ours(lab, line.text, line.location["url"])))
        page.on("pageerror", lambda error: page.said.extend(ours(lab, f"thrown: {error}", error.stack or "")))
        page.goto(f"{lab.url}/doc/tree/{name}")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        yield page


def ours(lab, text, source):
    """The line, unless JupyterLab wrote it: anywidget's modules come from elsewhere, from `blob:` addresses."""
    own = (f"{lab.url}/static/", f"{lab.url}/lab/extensions/@jupyter-widgets/")
    return [] if any(place in source for place in own) else [f"{text} ({source})"]


def run_cell(page, number=0):
    """Run a cell as soon as there is a kernel."""
    page.get_by_text("| Idle").wait_for(timeout=180_000)
    page.locator(".jp-Cell").nth(number).locator(".jp-InputArea").click()
    page.keyboard.press("Shift+Enter")


def save(page):
    """Save the notebook by its button: keys pressed inside a widget are not JupyterLab's."""
    page.locator("[data-jp-item-name=save]").get_by_role("button").click()
    page.get_by_text("Saving completed").wait_for()
