"""Adding a sealed round's updates up, in one pass over the store."""

from __future__ import annotations

from fedproof.digests import Digest
from fedproof.ledger.history import RoundRecord
from fedproof.store import ObjectStore
from fedproof_aggregator.terms import Terms, describe_aggregate
from fedproof_aggregator.view import LedgerView


def sum_round(record: RoundRecord, *, view: LedgerView, terms: Terms, store: ObjectStore) -> Digest:
    """Store the sum of the contributors' updates and return its root.

    One chunk of one update is in memory at a time, beside its sum. Done twice, it stores the same bytes, so a
    crash anywhere in here costs only the time.

    Raises:
        PeerError: the store has lost or altered an update.
    """
    manifest = describe_aggregate(view, record, terms)
    headers = [store.get_header(each.update_root) for each in manifest.contributors]
    digests = []
    for index in range(terms.chunks):
        chunks = (store.get(Digest(header.chunk_digests[index])) for header in headers)
        digests.append(store.put(terms.codec.sum_chunks(chunks)))
    return store.put_header(manifest.encode(), digests)
