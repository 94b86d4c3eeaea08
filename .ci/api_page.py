"""Write site/: one page a namespace with every public name and its docstring, made by pdoc, and an index.

The public names are re-exported lazily, so pdoc misses the docstrings of those that are objects rather than
functions or classes (`induction`, `repeat_loss`); they are read from the module where the object is made.
"""

import ast
import sys
from importlib import import_module
from inspect import ismodule
from pathlib import Path

from pdoc import doc, doc_ast, render

import induction_kernel


def page_of(module) -> doc.Module:
    """A namespace with its public names, each with its docstring."""
    for name in module.__all__:
        getattr(module, name)  # pdoc sees only what is loaded
    page = doc.Module(module)
    homes = public_homes(module)
    for name, member in page.members.items():
        if name in homes and isinstance(member, doc.Variable):
            member.docstring = doc_ast.walk_tree(import_module(homes[name])).var_docstrings.get(name, "")
            member.default_value_str = ""  # the repr of such an object says nothing to a reader
    return page


def public_homes(module) -> dict[str, str]:
    """Name -> module it comes from, as the namespace's `.pyi` lists them."""
    stub = Path(module.__file__).with_suffix(".pyi")
    if not stub.exists():
        return {}
    nodes = [
        node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom) and node.module
    ]
    return {alias.name: f"{module.__name__}.{node.module}" for node in nodes for alias in node.names}


def main(folder: Path) -> None:
    """Write a page for the package and for each namespace into `folder`."""
    render.configure(docformat="google", show_source=False)
    rooms = [getattr(induction_kernel, name) for name in induction_kernel.__all__]
    pages = {each.__name__: page_of(each) for each in (induction_kernel, *filter(ismodule, rooms))}
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in pages.items():
        path = folder / (
            "index.html" if name == induction_kernel.__name__ else f"{name.replace('.', '/')}.html"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render.html_module(page, pages))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
