"""Configuration of the manual: `sphinx-build -W -n -c docs . build/docs`, then open `build/docs/index.html`.

The sources lie in several folders, so that links between them also lead somewhere without being built.
"""

import functools
import inspect
import re
import sys
import typing

from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.inspect import stringify_signature
from sphinx.util.typing import stringify_annotation

import deqsmooth

project = "deqsmooth"
author = "the authors of deqsmooth"
copyright = "the authors of deqsmooth, Apache-2.0"
version = release = deqsmooth.__version__

root_doc = "docs/index"
include_patterns = ["docs/*.md", "results/README.md", "results/**/README.md", "CONTRIBUTING.md", "CHANGELOG.md"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
maximum_signature_line_length = 110
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Attributes stand once, as a list below their class.
napoleon_custom_sections = [("Attributes", "params_style")]
default_role = "code"

html_theme = "furo"
html_title = "deqsmooth"
html_static_path = ["_static"]
templates_path = ["_templates"]
# The first page of the folder leads to that of the manual.
html_additional_pages = {"index": "first.html"}
html_css_files = ["manual.css"]
html_theme_options = {"top_of_page_buttons": []}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

_NAME = re.compile(r"[A-Za-z_][\w.]*")
# Modules whose names of types have an entry; those of others are spelled out.
_NAMED = tuple(
    f"deqsmooth.{name}"
    for name in ("types", "models.classifiers", "models.base_classifier", "solvers.gradients", "solvers.loop")
)


def plain_text(app, what, name, obj, options, lines):
    """Docstrings are plain text, in which names of this package in backticks become links."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = line.split("`")
            parts[::2] = (re.sub(r"([|*])", r"\\\1", part) for part in parts[::2])
            line = "`".join(parts)
            lines[number] = re.sub(r"`(ds|deqsmooth)\.([\w.]+)`", r":py:obj:`\1.\2 <deqsmooth.\2>`", line)


def as_written(app, what, name, obj, options, signature, returned):
    """Signatures show types as the code writes them, `Images` and not the array that it stands for."""
    if what not in ("class", "function", "method") or signature == "()":
        return None
    if getattr(obj, "_is_protocol", False):
        return "", None
    home, found = sys.modules[inspect.unwrap(obj).__module__], inspect.signature(obj)
    parameters = [one.replace(annotation=_full(one.annotation, home)) for one in found.parameters.values()]
    if what == "method":
        parameters = parameters[1:]
    text = stringify_signature(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    return text, None if what == "class" else _full(found.return_annotation, home)


def _full(annotation, home):
    """An annotation with the full name of each of its types."""
    text = getattr(annotation, "__forward_arg__", annotation)
    return _NAME.sub(functools.partial(_full_name, home), text) if isinstance(text, str) else annotation


def _full_name(home, match):
    """The full name of a type that a module calls as in a match."""
    *path, name = match[0].split(".")
    for part in path:
        home = getattr(home, part, None)
    found = getattr(home, name, None)
    if isinstance(found, type) and found.__name__ == name:
        return f"{found.__module__}.{found.__qualname__}".removeprefix("builtins.")
    if found is None or name in ("ArrayLike", *typing.__all__) or not home.__name__.startswith("deqsmooth"):
        return match[0]
    return f"{home.__name__}.{name}" if home.__name__ in _NAMED else stringify_annotation(found)


def without_link(app, env, node, contnode):
    """Types of other libraries stand as text."""
    is_own = node.get("refdomain") != "py" or node["reftarget"].startswith("deqsmooth")
    return None if is_own else contnode


def source_of(app, modname):
    """The source of a module, in which a function is also found under its public name."""
    try:
        analyzer = ModuleAnalyzer.for_module(modname)
    except PycodeError:
        return None
    analyzer.find_tags()
    public = {name: getattr(deqsmooth, name) for name in deqsmooth.__all__}
    renamed = {name: one.__qualname__ for name, one in public.items() if one.__module__ == modname}
    return analyzer.code, analyzer.tags | {name: analyzer.tags[own] for name, own in renamed.items()}


def setup(app):
    """Connects the functions above."""
    app.connect("autodoc-process-docstring", plain_text, priority=400)
    app.connect("autodoc-process-signature", as_written)
    app.connect("missing-reference", without_link)
    app.connect("viewcode-find-source", source_of)
