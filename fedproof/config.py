"""TOML documents in, checked objects out; a refusal names the file, the key, what was expected and what came.

A daemon's configuration is a `Section` with fields; `load_config` reads it. The sections that both daemons
share are defined here.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import reprlib
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails

from fedproof.digests import Address, Digest, as_address, checksum_address
from fedproof.errors import ConfigurationError, MalformedMessage
from fedproof.files import read_whole

Document = TypeVar("Document")

_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
_PLAIN_WORDS = (
    ("Input should be ", ""),
    ("String should have", "text of"),
    ("a valid integer", "an integer"),
    ("a valid array", "an array"),
    ("a valid", "a"),
)
_NOT_A_TABLE = ("model_type", "dataclass_type", "dataclass_exact_type", "dict_type")


def load_config(path: Path, schema: type[Document]) -> Document:
    """Return the TOML document at a path as the schema's type.

    Args:
        path: the file; relative paths inside it are relative to its folder.
        schema: a `Section`, or a pydantic dataclass.

    Raises:
        ConfigurationError: no such file, not TOML, or a key that is unknown, missing, of the wrong type or
            out of range; the message names each of them.
    """
    raw = read_whole(path, "a TOML file")
    try:
        document = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path}: expected TOML, got: {error}") from error
    return parse_document(document, schema, where=str(path), folder=path.parent)


def parse_document(
    document: Mapping[str, object], schema: type[Document], *, where: str, folder: Path | None = None
) -> Document:
    """Return a parsed document as the schema's type.

    Args:
        document: what a TOML or JSON parser returned; bytes stand for their hex.
        schema: a `Section`, or a pydantic dataclass.
        where: what the messages begin with, usually the file.
        folder: what relative paths are relative to; they stay as they are without one.

    Raises:
        ConfigurationError: as `load_config`.
    """
    # By way of JSON: only there does pydantic's strict mode take text for a path and a list for a tuple, and
    # still refuse "5" and true for an integer.
    text = json.dumps(document, default=_spell)
    try:
        return TypeAdapter(schema).validate_json(text, strict=True, context={"folder": folder})
    except ValidationError as error:
        lines = [f"{where}: {_describe(details, schema)}" for details in error.errors()]
        raise ConfigurationError("\n".join(lines)) from error


def _spell(value: object) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


def _describe(details: ErrorDetails, schema: type[object]) -> str:
    location = _skip_union_tags(details["loc"], schema)
    key = ".".join(str(part) for part in location)
    came = reprlib.repr(details["input"])
    if details["type"] in _UNKNOWN_KEY:
        known = sorted(_known_keys(schema, location[:-1]))
        nearest = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        return f"{key}: unknown key (expected one of: {', '.join(known)}){hint}"
    if details["type"] == "missing":
        return f"{key}: expected a value, got none: the key is missing"
    if details["type"] == "value_error":
        reason = str(details["ctx"]["error"])
        return f"{key}: {reason}" if key else reason
    if details["type"] in _NOT_A_TABLE:
        return f"{key}: expected a table, got {came}"
    expected = details["msg"]
    for verbose, plain in _PLAIN_WORDS:
        expected = expected.replace(verbose, plain)
    return f"{key}: expected {expected}, got {came}"


def _skip_union_tags(location: tuple[int | str, ...], schema: object) -> tuple[int | str, ...]:
    """Return the location without what pydantic puts after a union's key: which of its options it tried."""
    keys: list[int | str] = []
    parts = iter(location)
    for part in parts:
        keys.append(part)
        options = _field_options(schema, part)
        if len(options) > 1:
            next(parts, None)
        schema = options[0]
    return tuple(keys)


def _known_keys(schema: object, location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the table at a location, or none where a type on the way has no named keys."""
    for part in location:
        schema = _field_options(schema, part)[0]
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return list(schema.model_fields)
    return [field.name for field in dataclasses.fields(schema)] if dataclasses.is_dataclass(schema) else []


def _field_options(schema: object, key: int | str) -> list[object]:
    """Return the types that a table's field may have, None aside; [None] for a key that is no field."""
    hint = (_find_type_hints(schema) if isinstance(schema, type) else {}).get(str(key))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [option for option in typing.get_args(hint) if option is not type(None)]
    return [hint]


@functools.cache
def _find_type_hints(schema: type) -> dict[str, object]:
    return typing.get_type_hints(schema)


def _read_digest(value: object) -> Digest:
    if isinstance(value, bytes):
        digits = value.hex()
    else:
        digits = value[2:] if isinstance(value, str) and value.startswith("0x") else ""
    if len(digits) != 64 or not set(digits) <= set("0123456789abcdefABCDEF"):
        raise ValueError(f"expected a digest of 0x and 64 hex digits, got {reprlib.repr(value)}")
    return Digest(bytes.fromhex(digits))


def _read_address(value: object) -> Address:
    try:
        return as_address(value if isinstance(value, bytes | str) else b"", "address")
    except MalformedMessage as error:
        raise ValueError(f"expected an address of 0x and 40 hex digits, got {reprlib.repr(value)}") from error


HexDigest = Annotated[
    Digest, PlainValidator(_read_digest), PlainSerializer(lambda digest: "0x" + digest.hex(), return_type=str)
]
"""A digest that a document spells as 0x and 64 hex digits."""

HexAddress = Annotated[
    Address, PlainValidator(_read_address), PlainSerializer(checksum_address, return_type=str)
]
"""An address that a document spells as 0x and 40 hex digits."""


class Section(BaseModel):
    """A table of a configuration file: frozen, and no key beyond its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="after")
    def _resolve_paths(self, info: ValidationInfo) -> Self:
        if not info.context or info.context["folder"] is None:
            return self
        folder = info.context["folder"]
        paths = {key: folder / value for key, value in self if isinstance(value, Path)}
        return self.model_copy(update=paths)


class AddressBook(Section):
    """What `fedproof deploy` writes: where a federation's contract is, and who had its roles first."""

    chain_id: Annotated[int, Field(ge=1, lt=1 << 64)]
    contract: HexAddress
    rpc_url: str | None = None
    admin: HexAddress
    aggregator: HexAddress
    block: Annotated[int, Field(ge=0)]

    def need_rpc_url(self) -> str:
        """Return the endpoint that the book names; raise ConfigurationError where it names none."""
        if self.rpc_url is None:
            raise ConfigurationError(
                "rpc_url: expected an endpoint of the chain, got none: the address book names none; "
                "name your own, with --rpc-url or as rpc_url in the section [chain]"
            )
        return self.rpc_url


def load_address_book(path: Path) -> AddressBook:
    """Return the address book at a path.

    Raises:
        ConfigurationError: no such file, not JSON, or not an address book.
    """
    raw = read_whole(path, "an address book (`fedproof deploy` writes one)")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: expected JSON, got: {error}") from error
    return parse_document(document, AddressBook, where=str(path))


class ChainEndpoint(typing.NamedTuple):
    """Where a federation's contract answers: at one address, or at several, and on which chain, if known."""

    rpc_url: str | tuple[str, ...]
    contract: Address
    chain_id: int | None = None


class ChainConfig(Section):
    """Which contract, reached how, and with whose key.

    Attributes:
        rpc_url: a JSON-RPC endpoint, or a list of them; the address book's, when none is given.
        agreement: how many endpoints have to say the same: of blocks, events, receipts, refusals, fees.
        finality: which blocks count: "latest" counts each at once, as a development chain may; a number waits
            until so many others follow; "finalized" until the chain says so.
        contract: its address; or
        address_book: the file that `fedproof deploy` wrote.
        keystore: the encrypted key that signs transactions; or
        signer_url: a remote signer (Web3Signer, Clef), and
        signer_account: the account that it signs as.
        password_file: the keystore's password; $FEDPROOF_PASSWORD, when none is given.
        outbox: the file of what this account sends; below the daemon's `state_dir` by default.
        replace_after_s: how long a transaction may stay unmined before its fees are raised.
        max_fee_gwei: most that a unit of gas may cost, base fee and tip together.
        max_tip_gwei: most of it that may be the tip.
    """

    rpc_url: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    agreement: Annotated[int, Field(ge=1)] = 1
    finality: typing.Literal["latest", "finalized"] | Annotated[int, Field(ge=0, lt=1 << 32)] = "latest"
    contract: HexAddress | None = None
    address_book: Path | None = None
    keystore: Path | None = None
    signer_url: str | None = None
    signer_account: HexAddress | None = None
    password_file: Path | None = None
    outbox: Path | None = None
    replace_after_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    max_fee_gwei: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 500.0
    max_tip_gwei: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 50.0

    @model_validator(mode="after")
    def _name_one_contract(self) -> ChainConfig:
        if (self.contract is None) == (self.address_book is None):
            raise ValueError("expected one of the keys contract and address_book, got both or neither")
        if self.contract is not None and self.rpc_url is None:
            raise ValueError("expected the key rpc_url beside contract, got none")
        return self

    @model_validator(mode="after")
    def _name_one_signer(self) -> ChainConfig:
        if (self.keystore is None) == (self.signer_url is None):
            raise ValueError("expected one of the keys keystore and signer_url, got both or neither")
        if (self.signer_url is None) != (self.signer_account is None):
            raise ValueError("expected the keys signer_url and signer_account together, got one of them")
        return self

    def resolve(self) -> ChainEndpoint:
        """Return where the contract answers, from this section and the address book that it names.

        Raises:
            ConfigurationError: the address book cannot be used, or nobody names an endpoint.
        """
        if self.contract is not None and self.rpc_url is not None:
            return ChainEndpoint(self.rpc_url, self.contract)
        if self.address_book is None:
            raise ConfigurationError("chain: expected one of the keys contract and address_book, got neither")
        book = load_address_book(self.address_book)
        return ChainEndpoint(self.rpc_url or book.need_rpc_url(), book.contract, book.chain_id)


class TlsConfig(Section):
    """PEM files: whom we trust, and who we are."""

    ca: Path
    certificate: Path
    key: Path
