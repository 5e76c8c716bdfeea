"""Reading what is to be added; a table whose columns have other names gets the command to try."""

from pathlib import Path

from embedstore.annotations.columns import Declared, UnknownColumnsError
from embedstore.annotations.readers import read_annotations
from embedstore.annotations.source import AnnotationFile
from embedstore.annotations.suggest import command, other_labels, suggestion
from embedstore.files.objects import Place


def read_or_suggest(
    dataset: str, path: Path, format: str, declared: Declared, slides: Place | None
) -> AnnotationFile:
    """Return what a file holds; UnknownColumnsError with the command to try, if one is likely."""
    try:
        return read_annotations(path, format, declared)
    except UnknownColumnsError as e:
        if not (options := suggestion(e)):
            raise
        others = other_labels(e, options)
        more = f"; the class may also be --label-from {' or '.join(map(repr, others))}"
        where = ["--annotations", str(path), *(["--slides", str(slides)] if slides else [])]
        needed = (
            f"{e.needed}. Say which is which; from names and values this may be it"
            f"{more * bool(others)}:\n  {command(dataset, [*where, *options])}"
        )
        raise UnknownColumnsError(e.path, needed, e.columns) from e
