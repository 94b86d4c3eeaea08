"""Notebooks run by a kernel of this interpreter, without a network."""

import sys

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from traitlets import default

# Run in the kernel before the first cell. Jupyter itself talks through zmq, which this leaves alone.
NO_NETWORK = """
import socket
def _refused(*where, **options): raise OSError(f"this notebook asks for the network: {where}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = _refused
"""


class ThisInterpreter(AsyncKernelManager):
    """Kernel `python3` is the interpreter of the tests, whatever the user has installed under that name."""

    @default("kernel_spec_manager")
    def _no_folder_of_kernels(self):
        return KernelSpecManager(kernel_dirs=[])


def run_here(notebook, work):
    """Run the notebook in the folder `work`."""
    assert ThisInterpreter(kernel_name="python3").kernel_spec.argv[0] == sys.executable
    client = NotebookClient(
        notebook,
        kernel_manager_class=ThisInterpreter,
        timeout=300,
        resources={"metadata": {"path": str(work)}},
        extra_arguments=[f"--IPKernelApp.exec_lines={line}" for line in NO_NETWORK.strip().splitlines()],
    )
    client.execute()
