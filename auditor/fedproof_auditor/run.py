"""What is audited, and where its evidence is: from a run's folder, or given one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from fedproof.config import HexAddress, Section, load_address_book, parse_document
from fedproof.digests import Address, as_address
from fedproof.errors import ConfigurationError
from fedproof.files import read_whole
from fedproof_auditor.findings import NameBook

RUN_FILE = "run.json"
BOOK_FILE = "address-book.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A federation, and where its evidence is.

    Attributes:
        chain_id: what the endpoint must serve; any chain, when nothing is known.
        store: the aggregator's folder of ciphertexts; only the ledger can be looked at without it.
        policies: policy documents.
        journal: folder of a development chain's journal, for when the endpoint no longer answers.
        names: what people call the nodes.
        from_block: the contract has no events before it.
    """

    rpc_url: str
    contract: Address
    chain_id: int | None = None
    store: Path | None = None
    policies: tuple[Path, ...] = ()
    journal: Path | None = None
    names: NameBook = field(default_factory=dict)
    from_block: int = 0

    def find_node(self, text: str) -> Address:
        """Return the node that a name or an address means.

        Raises:
            ConfigurationError: neither a known name nor an address.
        """
        for address, name in self.names.items():
            if name == text:
                return address
        if text.startswith("0x"):
            return as_address(text, "--node")
        known = ", ".join(sorted(self.names.values())) or "none are known"
        raise ConfigurationError(f"--node: expected an address or a node's name ({known}), got {text!r}")


class RunFile(Section):
    """run.json: what a local federation wrote down about itself. Other keys are for others."""

    model_config = ConfigDict(extra="ignore")

    rpc_url: str
    chain_id: Annotated[int, Field(ge=1, lt=1 << 64)]
    contract: HexAddress
    policy: Path
    store: Path
    chain: Path | None = None
    nodes: Mapping[str, str] = Field(default_factory=dict)


def load_run(folder: Path) -> Target:
    """Return what a run's folder is about.

    Raises:
        ConfigurationError: no run is in the folder, or its run.json cannot be used.
    """
    path = folder / RUN_FILE
    raw = read_whole(path, "the file that describes a run (is the folder a run's?)")
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise ConfigurationError(f"{path}: expected JSON, got: {error}") from error
    run = parse_document(document, RunFile, where=str(path), folder=folder)
    path_of_book = folder / BOOK_FILE
    book = load_address_book(path_of_book) if path_of_book.exists() else None
    roles = {} if book is None else {book.aggregator: "aggregator", book.admin: "admin"}
    names = {as_address(address, f"{path}: nodes"): name for address, name in run.nodes.items()}
    if len({*names.values()}) != len(names) or not all(name.isprintable() for name in names.values()):
        raise ConfigurationError(
            f"{path}: nodes: expected printable names, each once, got {sorted(names.values())}"
        )
    return Target(
        rpc_url=run.rpc_url,
        contract=run.contract,
        chain_id=run.chain_id,
        store=run.store,
        policies=(run.policy,),
        journal=run.chain,
        names=roles | names,
        from_block=0 if book is None else book.block,
    )
