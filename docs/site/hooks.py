"""What the site has beside docs/: README as its front page, and the other files of the root."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
OF_ROOT = {"README.md": "index.md"} | {
    name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
}
"""Files of the root, and the page each is."""


def on_files(files: Any, config: Any) -> Any:
    """Add the files of the root."""
    for name, page in OF_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page whose links lead to pages of the site, as they lead to files in the tree."""
    if page.file.src_uri in OF_ROOT.values():
        markdown = re.sub(r"\]\(docs/", "](", markdown)
        markdown = re.sub(r'src="docs/', 'src="', markdown)
    for name, target in OF_ROOT.items():
        markdown = re.sub(rf"\]\((\.\./)?{re.escape(name)}", f"]({target}", markdown)
    return markdown
