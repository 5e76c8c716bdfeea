"""Examining a store: every check in turn; and mending what can be mended."""

from collections.abc import Callable, Sequence

from embedstore.doctor.contents import contents, digests, leftovers, slides, unreadable
from embedstore.doctor.finding import Finding
from embedstore.doctor.relations import known_tables, relations
from embedstore.errors import EmbedstoreError
from embedstore.files.objects import is_uri
from embedstore.store import Store
from embedstore.store.sql import connect
from embedstore.store.tidy import alone, give_back

_ROUNDS = 5
"""How often what follows from mending is looked for."""


def examine(
    store: Store, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Finding]:
    """Return what is wrong with a store, nothing where it is whole; every row is read once.

    Tables that cannot be opened are all that is found while there are any, since what the others
    should say follows from them. on_progress(done, total) counts rows.
    """
    broken = unreadable(store)
    if any("cannot be opened" in f.says for f in broken):
        return broken
    total = sum(store.open_table(name).count_rows() for name in known_tables(store))
    done = 0

    def tell(n: int) -> None:
        nonlocal done
        done += n
        on_progress(min(done, total), total)

    found = [*broken, *contents(store, tell)]
    if any(not f.can_be_mended and f.check == "values" for f in found):
        return [*found, *digests(store)]
    con = connect(store)
    found += [*relations(store, con), *slides(store, con), *digests(store), *leftovers(store)]
    on_progress(total, total)
    return found


def mend(store: Store, findings: Sequence[Finding]) -> list[Finding]:
    """Mend what can be mended of what `examine` found, and give back the space it took.

    Returns the findings, and those that followed from mending them: what hung on what was deleted
    goes as well. EmbedstoreError where another process has a store on this disk open; on an object
    store nobody can tell.
    """
    if not is_uri(store.uri):
        with alone(store.uri) as is_alone:
            if not is_alone:
                raise EmbedstoreError(
                    f"another process has the store at {store.uri} open, nothing was mended; "
                    "give the command again when it has ended"
                )
    found, new = list(findings), list(findings)
    for _ in range(_ROUNDS):
        if not any(f.can_be_mended for f in new):
            break
        for finding in new:
            if finding.mending is not None:
                finding.mending()
                finding.is_mended = True
        said = {(f.check, f.table, f.says) for f in found if not f.is_mended}
        again = relations(store, connect(store))
        new = [f for f in again if (f.check, f.table, f.says) not in said]
        found += new
    for name in dict.fromkeys(f.table for f in found if f.is_mended and store.has(f.table)):
        give_back(store, name)
    return found
