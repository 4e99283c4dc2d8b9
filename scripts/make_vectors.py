"""Generate the test vectors of ``docs/format.md``; ``--check`` compares with the committed ones.

Ciphertexts and wrapped keys are random, so those that lie in ``tests/vectors`` are kept, once the product has
read from them what they are to hold. Remove such a file to have it drawn anew.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vectors.arithmetic import build_next_clips, build_next_model, build_quantisation, build_selection
from vectors.chunks import build_chunks
from vectors.ciphertexts import build_keys_and_seeds, build_packing, build_parameters
from vectors.documents import build_manifests, build_policy, build_wrapped_keys
from vectors.encodings import build_draw, build_fields, build_merkle
from vectors.form import Kept, dump
from vectors.models import build_layout, build_model
from vectors.round import build_round
from vectors.statements import build_statements

REPOSITORY = Path(__file__).resolve().parent.parent
VECTORS = REPOSITORY / "tests" / "vectors"


def build() -> dict[str, bytes]:
    """Return every file by its name."""
    kept = Kept(VECTORS)
    sections = {
        "fields": build_fields(),
        "merkle": build_merkle(),
        "layout": build_layout(),
        "model": build_model(),
        "policy": build_policy(),
        "parameters": build_parameters(),
        "selection": build_selection(),
        "quantisation": build_quantisation(),
        "packing": build_packing(),
        "keys_and_seeds": build_keys_and_seeds(),
        "chunks": build_chunks(kept),
        "next_model": build_next_model(),
        "next_clips": build_next_clips(),
        "manifests": build_manifests(),
        "draw": build_draw(),
        "statements": build_statements(),
        "wrapped_keys": build_wrapped_keys(kept),
        "round": build_round(kept),
    }
    return {f"{name}.json": dump(section) for name, section in sections.items()} | kept.taken


def main() -> int:
    """Generate, or compare and return 1 when a committed file is stale."""
    parser = argparse.ArgumentParser(description="Generate the test vectors.")
    parser.add_argument("--check", action="store_true", help="only compare with the committed files")
    arguments = parser.parse_args()
    fresh = build()
    committed = {path.name: path.read_bytes() for path in VECTORS.iterdir() if path.is_file()}
    for name in sorted(fresh.keys() | committed.keys()):
        path = VECTORS / name
        if fresh.get(name) == committed.get(name):
            continue
        if arguments.check:
            print(f"{path.relative_to(REPOSITORY)}: stale; run scripts/make_vectors.py", file=sys.stderr)
        elif name in fresh:
            path.write_bytes(fresh[name])
            print(f"wrote {path.relative_to(REPOSITORY)}")
        else:
            path.unlink()
            print(f"removed {path.relative_to(REPOSITORY)}")
    return int(arguments.check and fresh != committed)


if __name__ == "__main__":
    sys.exit(main())
