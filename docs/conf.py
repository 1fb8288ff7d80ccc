"""Configuration of the manual: `sphinx-build -W -n -c docs . build/docs`, then open `build/docs/index.html`.

The sources lie in several folders, so that links between them also lead somewhere without being built.
"""

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
napoleon_google_docstring = True
napoleon_numpy_docstring = False

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
