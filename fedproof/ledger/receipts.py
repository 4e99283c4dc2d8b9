"""A node's receipt: that its signed commitment stands at an index of the batch that was anchored."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from fedproof.config import HexDigest, parse_document
from fedproof.errors import ConfigurationError, DigestMismatch
from fedproof.files import PUBLIC, read_whole, replace_file
from fedproof.ledger.client import Ledger
from fedproof.ledger.rounds import RoundRecord
from fedproof.merkle import verify_path

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class BatchReceipt:
    """An inclusion proof with everything that it takes to check it against the ledger.

    Attributes:
        root: that was anchored.
        size: how many leaves the batch has.
        index: where this one stands, from 0.
        leaf: its bytes, in hexadecimal: docs/format.md, "Signed statements".
        path: the siblings on the way to the root, the lowest first.
    """

    round: Annotated[int, Field(ge=1, lt=1 << 24)]
    root: HexDigest
    size: Annotated[int, Field(ge=1, lt=1 << 16)]
    index: Annotated[int, Field(ge=0, lt=1 << 16)]
    leaf: Annotated[str, Field(pattern="^0x([0-9a-f]{2})*$")]
    path: tuple[HexDigest, ...]

    def verify(self, record: RoundRecord | None, *, ledger: Ledger) -> None:
        """Return if the leaf stands in the batch that the ledger names.

        1. The root and size are those that CommitmentsAnchored has of the round.
        2. The path leads from the leaf at its index to the root.
        3. The contract says so as well.

        Raises:
            DigestMismatch: a check fails.
        """
        where = f"receipt of round {self.round}"
        anchored = None if record is None else record.batch
        if anchored is None or (anchored.root, anchored.count) != (self.root, self.size):  # 1
            came = "none" if anchored is None else f"{anchored.count} of root {anchored.root.hex()}"
            raise DigestMismatch(
                f"{where}: expected an anchored batch of {self.size} leaves and root {self.root.hex()}, "
                f"the ledger has {came}"
            )
        leaf = bytes.fromhex(self.leaf.removeprefix("0x"))
        verify_path(self.root, size=self.size, index=self.index, leaf=leaf, path=self.path)  # 2
        if not ledger.is_included(self.root, self.size, self.index, leaf, self.path):  # 3
            raise DigestMismatch(f"{where}: expected the contract to find leaf {self.index}, it does not")


def save_receipt(path: Path, receipt: BatchReceipt) -> None:
    """Write a receipt as JSON; a crash leaves the old file or the new one."""
    document = asdict(receipt) | {
        "root": "0x" + receipt.root.hex(),
        "path": ["0x" + each.hex() for each in receipt.path],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, [(json.dumps(document, indent=2) + "\n").encode()], mode=PUBLIC)


def load_receipt(path: Path) -> BatchReceipt:
    """Return the receipt at a path.

    Raises:
        ConfigurationError: no such file, not JSON, or no receipt.
    """
    try:
        document = json.loads(read_whole(path, "a receipt"))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: expected JSON, got: {error}") from error
    return parse_document(document, BatchReceipt, where=str(path))
