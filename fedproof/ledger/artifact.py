"""The compiled contract: what is deployed, and what the code on chain must equal."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedproof.errors import ConfigurationError, WrongContract

_NAME = "Federation.json"
# A wheel carries the artifacts inside the package; a source tree has them beside the contracts.
_PLACES = (
    Path(__file__).parent / "artifacts" / _NAME,
    Path(__file__).parents[2] / "contracts" / "artifacts" / _NAME,
)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled contract.

    Attributes:
        abi: the JSON ABI, as the compiler gave it.
        bytecode: what creates the contract, without the constructor's arguments.
        deployed_bytecode: the code that then stands on chain.
        compiler: the compiler's version.
    """

    abi: tuple[dict[str, Any], ...]
    bytecode: bytes
    deployed_bytecode: bytes
    compiler: str

    def entries(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the ABI's entries of one kind (``event``, ``error``, ``function``) by name."""
        return {entry["name"]: entry for entry in self.abi if entry["type"] == kind}

    def verify_code(self, code: bytes, *, where: str) -> None:
        """Return if the code on chain is this contract's.

        Args:
            code: what ``eth_getCode`` returned.
            where: address and endpoint, for the message.

        Raises:
            WrongContract: there is no code, or another contract's.
        """
        if not code:
            raise WrongContract(
                f"{where}: expected the Federation contract's code, got none: no contract is there"
            )
        if code != self.deployed_bytecode:
            raise WrongContract(
                f"{where}: expected the Federation contract's code ({len(self.deployed_bytecode)} bytes, "
                f"solc {self.compiler}), got {len(code)} bytes that differ: another contract or version"
            )


@functools.cache
def load_artifact() -> Artifact:
    """Return the Federation contract's artifact.

    Raises:
        ConfigurationError: the installation carries none.
    """
    path = next((place for place in _PLACES if place.is_file()), None)
    if path is None:
        raise ConfigurationError(
            f"expected the contract's artifact at {_PLACES[0]}, got no file: reinstall fedproof"
        )
    document = json.loads(path.read_text(encoding="utf-8"))
    return Artifact(
        abi=tuple(document["abi"]),
        bytecode=bytes.fromhex(document["bytecode"].removeprefix("0x")),
        deployed_bytecode=bytes.fromhex(document["deployedBytecode"].removeprefix("0x")),
        compiler=document["compiler"]["version"],
    )
