"""Model layouts, flat vectors, digests and files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedproof.digests import Digest, encode_fields
from fedproof.errors import ConfigurationError, DigestMismatch, MalformedMessage
from fedproof.model import (
    FLOAT_DTYPES,
    OTHER_DTYPES,
    ModelLayout,
    TensorSpec,
    compute_model_digest,
    load_model,
    save_model,
    verify_layout,
)

LAYOUT = ModelLayout(
    (
        TensorSpec("conv.weight", (2, 1, 3), "float32"),
        TensorSpec("norm.running_mean", (2,), "float64"),
        TensorSpec("norm.num_batches_tracked", (), "int64"),
        TensorSpec("scale", (), "float32"),
    )
)
FLAT = np.array([0.0, -0.0, 1.5, -2.25, 3e38, 1e-45, 7.0, 8.0, 9.0], dtype=np.float32)

_tensors = st.builds(
    TensorSpec,
    name=st.text(max_size=20),
    shape=st.lists(st.integers(0, 2**32 - 1), max_size=4).map(tuple),
    dtype=st.sampled_from(FLOAT_DTYPES + OTHER_DTYPES),
)
_layouts = (
    st.lists(_tensors, min_size=1, max_size=5, unique_by=lambda tensor: tensor.name)
    .filter(lambda tensors: any(tensor.travels and tensor.size for tensor in tensors))
    .map(lambda tensors: ModelLayout(tuple(tensors)))
)


def test_only_floating_values_are_counted() -> None:
    """Integer buffers are part of the architecture, and not of the vector."""
    assert LAYOUT.parameters == 6 + 2 + 1


@given(layout=_layouts)
def test_layout_round_trip(layout: ModelLayout) -> None:
    """A layout's bytes stand for it."""
    assert ModelLayout.parse(layout.encode()) == layout


def test_every_truncation_of_a_layout_that_is_accepted_is_another_layout() -> None:
    """A cut at the end of a tensor leaves fewer tensors, hence another digest; any other cut is refused."""
    raw = LAYOUT.encode()
    accepted = []
    for end in range(len(raw)):
        try:
            accepted.append(ModelLayout.parse(raw[:end]))
        except MalformedMessage:
            continue
    assert accepted == [ModelLayout(LAYOUT.tensors[:count]) for count in (1, 2, 3)]
    for tail in (b"\x00", b"\x00\x00\x00\x00"):
        with pytest.raises(MalformedMessage):
            ModelLayout.parse(raw + tail)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "layout: expected 'fedproof.layout.v1' first, got b''"),
        (encode_fields("fedproof.layout.v2"), "layout: expected 'fedproof.layout.v1' first"),
        (encode_fields("fedproof.layout.v1"), "expected at least one floating value, got none"),
        (
            encode_fields("fedproof.layout.v1", encode_fields("w")),
            "layout: tensor 0: expected a name, a type",
        ),
        (
            encode_fields("fedproof.layout.v1", encode_fields("w", "float32", b"123")),
            "layout: tensor 0: size: expected an integer of 8 bytes, got 3",
        ),
        (
            encode_fields("fedproof.layout.v1", encode_fields("w", "float32", 1 << 32)),
            "tensor 'w': expected sizes from 0 to 2^32 - 1",
        ),
        (
            encode_fields("fedproof.layout.v1", encode_fields("w", "complex64", 1)),
            "tensor 'w': expected a type out of .*, got 'complex64'",
        ),
        (
            encode_fields("fedproof.layout.v1", *[encode_fields("w", "float32", 1)] * 2),
            "layout: expected each tensor once, got 'w' twice",
        ),
        (
            encode_fields("fedproof.layout.v1", encode_fields("w", "int64", 1)),
            "expected at least one floating",
        ),
    ],
)
def test_malformed_layout_is_refused(raw: bytes, message: str) -> None:
    """Bytes that stand for no layout are refused, with what is wrong."""
    with pytest.raises(MalformedMessage, match=message.replace("^", r"\^")):
        ModelLayout.parse(raw)


def test_flatten_and_unflatten_are_inverse() -> None:
    """Tensors become one vector in layout order, row-major, and come back."""
    tensors = LAYOUT.unflatten(FLAT)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "conv.weight": (2, 1, 3),
        "norm.running_mean": (2,),
        "scale": (),
    }
    assert tensors["conv.weight"][1, 0, 0] == FLAT[3]
    assert LAYOUT.flatten(tensors).tobytes() == FLAT.tobytes()


def test_wrong_shape_names_tensor_expected_and_got() -> None:
    """A tensor of another shape is named, even where the count of values agrees."""
    tensors = LAYOUT.unflatten(FLAT) | {"conv.weight": np.zeros((3, 1, 2), np.float32)}
    message = "model: tensor 'conv.weight': expected shape [2, 1, 3], got [3, 1, 2]"
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        LAYOUT.flatten(tensors)


def test_missing_tensor_is_named() -> None:
    """A tensor that is not there is named with what it should be."""
    tensors = LAYOUT.unflatten(FLAT)
    del tensors["norm.running_mean"]
    message = "model: expected the tensor norm.running_mean float64[2], got none of that name"
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        LAYOUT.flatten(tensors)


@pytest.mark.parametrize(
    "flat", [FLAT[:-1], np.append(FLAT, FLAT), FLAT.astype(np.float64), FLAT.reshape(3, 3)]
)
def test_vector_of_another_layout_is_refused(tmp_path: Path, flat: np.ndarray) -> None:
    """A vector of another length, type or rank is neither unflattened nor saved."""
    with pytest.raises(ConfigurationError, match=r"expected a float32 vector of shape \[9\], got float"):
        LAYOUT.unflatten(flat)
    with pytest.raises(ConfigurationError):
        save_model(tmp_path / "model", LAYOUT, flat)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (LAYOUT.tensors[:3], "model: tensor 3: expected scale float32[], got no more tensors"),
        (
            (*LAYOUT.tensors, TensorSpec("b", (1,), "float32")),
            "model: tensor 4: expected no more tensors, got b float32[1]",
        ),
        (
            (TensorSpec("conv.weight", (2, 1, 4), "float32"), *LAYOUT.tensors[1:]),
            "model: tensor 0: expected conv.weight float32[2, 1, 3], got conv.weight float32[2, 1, 4]",
        ),
        (
            (*LAYOUT.tensors[:3], TensorSpec("scale", (), "float16")),
            "model: tensor 3: expected scale float32[], got scale float16[]",
        ),
    ],
)
def test_other_layout_is_refused_by_its_first_difference(
    tensors: tuple[TensorSpec, ...], message: str
) -> None:
    """A user's model with another layout is told which tensor differs, and how."""
    verify_layout(LAYOUT, expected=LAYOUT)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        verify_layout(ModelLayout(tensors), expected=LAYOUT)


def test_digests_are_pinned() -> None:
    """Digests never change between versions: they stand on ledgers."""
    assert LAYOUT.digest.hex() == "db4c508d90f1911df54b272cbd470c1c355ba54bb7edff18eb1926f40d8d27a6"
    assert (
        compute_model_digest(LAYOUT.digest, FLAT).hex()
        == "2983bf244b09a0f5fec48a01ca674bb37e1ddd8ae3c897595d0f4bede7624978"
    )


def test_digest_sees_each_bit() -> None:
    """Two vectors with different bytes, or two layouts, have different digests; negative zero is not zero."""
    digest = compute_model_digest(LAYOUT.digest, FLAT)
    changed = FLAT.copy()
    changed[0] = -0.0
    assert compute_model_digest(LAYOUT.digest, changed) != digest
    assert compute_model_digest(Digest(bytes(32)), FLAT) != digest


def test_digest_does_not_depend_on_memory_layout() -> None:
    """A view with strides, or of other byte order, has the digest of its values."""
    strided = np.repeat(FLAT, 2)[::2]
    assert not strided.flags.c_contiguous
    assert compute_model_digest(LAYOUT.digest, strided) == compute_model_digest(LAYOUT.digest, FLAT)


def test_model_file_round_trip(tmp_path: Path) -> None:
    """A saved model comes back bit for bit, in place of what was there."""
    path = tmp_path / "model"
    save_model(path, LAYOUT, np.zeros_like(FLAT))
    assert save_model(path, LAYOUT, FLAT) == compute_model_digest(LAYOUT.digest, FLAT)
    layout, flat = load_model(path)
    assert layout == LAYOUT
    assert flat.dtype == np.float32
    assert flat.tobytes() == FLAT.tobytes()
    flat[0] = 1.0  # the caller owns it
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_model_file_is_refused(tmp_path: Path) -> None:
    """No truncation, no trailing byte and no flipped bit is loaded; the file is named."""
    path = tmp_path / "model"
    save_model(path, LAYOUT, FLAT)
    raw = path.read_bytes()
    damaged = [raw[:end] for end in range(len(raw))] + [raw + b"\x00"]
    damaged += [raw[:i] + bytes([raw[i] ^ 0x10]) + raw[i + 1 :] for i in range(len(raw))]
    for each in damaged:
        path.write_bytes(each)
        with pytest.raises((MalformedMessage, DigestMismatch), match="model"):
            load_model(path)


def test_flipped_value_says_that_the_file_is_damaged(tmp_path: Path) -> None:
    """A value that was altered on the disk shows in the digest."""
    path = tmp_path / "model"
    digest = save_model(path, LAYOUT, FLAT)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DigestMismatch, match=f"expected model {digest.hex()}, got .*: the file is damaged"):
        load_model(path)


def test_missing_model_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is the user's to provide."""
    with pytest.raises(ConfigurationError, match="model: expected a model file, got: No such file"):
        load_model(tmp_path / "model")
