"""Model layouts, flat vectors, digests and files."""

from __future__ import annotations

import re
import tracemalloc
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
    Model,
    ModelLayout,
    TensorSpec,
    compute_model_digest,
    compute_values_digest,
    decode_clips,
    encode_clips,
    load_model,
    save_model,
    verify_layout,
)

LAYOUT = ModelLayout(
    (
        TensorSpec("conv.weight", (2, 1, 3), "float32"),
        TensorSpec("base", (4, 4), "bfloat16", Digest(b"\xf0" * 32)),
        TensorSpec("norm.running_mean", (2,), "float64"),
        TensorSpec("norm.num_batches_tracked", (), "int64"),
        TensorSpec("scale", (), "float32"),
        TensorSpec("nothing", (0, 3), "float32"),
    )
)
FLAT = np.array([0.0, -0.0, 1.5, -2.25, 3e38, 1e-45, 7.0, 8.0, 9.0], dtype=np.float32)
CLIPS = (0.25, 0.125, 2.0**-40, 0.1)
MODEL = Model(FLAT, CLIPS)

_tensors = st.builds(
    TensorSpec,
    name=st.text(max_size=20),
    shape=st.lists(st.integers(0, 2**32 - 1), max_size=4).map(tuple),
    dtype=st.sampled_from(FLOAT_DTYPES + OTHER_DTYPES),
    frozen=st.none() | st.binary(min_size=32, max_size=32).map(Digest),
)
_layouts = (
    st.lists(_tensors, min_size=1, max_size=5, unique_by=lambda tensor: tensor.name)
    .filter(lambda tensors: any(tensor.travels and tensor.size for tensor in tensors))
    .map(lambda tensors: ModelLayout(tuple(tensors)))
)


def test_only_what_travels_is_counted() -> None:
    """Integer buffers and frozen tensors are not in the vector; empty tensors are groups."""
    assert LAYOUT.parameters == 6 + 2 + 1
    assert LAYOUT.group_sizes == (6, 2, 1, 0)


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
    assert accepted == [ModelLayout(LAYOUT.tensors[:count]) for count in range(1, len(LAYOUT.tensors))]
    for tail in (b"\x00", b"\x00\x00\x00\x00"):
        with pytest.raises(MalformedMessage):
            ModelLayout.parse(raw + tail)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "layout: expected 'fedproof.layout.v1' first, got b''"),
        (encode_fields("fedproof.layout.v2"), "layout: expected 'fedproof.layout.v1' first"),
        (encode_fields("fedproof.layout.v1"), "expected at least one floating value that .*, got none in 0"),
        (
            encode_fields("fedproof.layout.v1", encode_fields("w", "float32")),
            "layout: tensor 0: expected a name, a type, .* and sizes, got 2 fields",
        ),
        (
            encode_fields("fedproof.layout.v1", encode_fields("w", "float32", b"", b"123")),
            "layout: tensor 0: size: expected an integer of 8 bytes, got 3",
        ),
        (
            encode_fields("fedproof.layout.v1", encode_fields("w", "float32", b"", 1 << 32)),
            "tensor 'w': expected sizes from 0 to 2^32 - 1",
        ),
        (
            encode_fields("fedproof.layout.v1", encode_fields("w", "complex64", b"", 1)),
            "tensor 'w': expected a type out of .*, got 'complex64'",
        ),
        (
            encode_fields("fedproof.layout.v1", *[encode_fields("w", "float32", b"", 1)] * 2),
            "layout: expected each tensor once, got 'w' twice",
        ),
        (
            encode_fields("fedproof.layout.v1", encode_fields("w", "int64", b"", 1)),
            "expected at least one floating value that is not frozen, got none in 1 tensors, 0 of them",
        ),
        (
            encode_fields("fedproof.layout.v1", encode_fields("w", "float32", bytes(32), 1)),
            "expected at least one floating value that is not frozen, got none in 1 tensors, 1 of them",
        ),
        (
            encode_fields("fedproof.layout.v1", encode_fields("w", "float32", bytes(31), 1)),
            "layout: tensor 0: frozen: expected a digest of 32 bytes, got 31",
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
        "nothing": (0, 3),
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
        save_model(tmp_path / "model", LAYOUT, Model(flat, CLIPS))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (LAYOUT.tensors[:4], "model: tensor 4: expected scale float32[], got no more tensors"),
        (
            (*LAYOUT.tensors, TensorSpec("b", (1,), "float32")),
            "model: tensor 6: expected no more tensors, got b float32[1]",
        ),
        (
            (TensorSpec("conv.weight", (2, 1, 4), "float32"), *LAYOUT.tensors[1:]),
            "model: tensor 0: expected conv.weight float32[2, 1, 3], got conv.weight float32[2, 1, 4]",
        ),
        (
            (*LAYOUT.tensors[:4], TensorSpec("scale", (), "float16")),
            "model: tensor 4: expected scale float32[], got scale float16[]",
        ),
        (
            (LAYOUT.tensors[0], TensorSpec("base", (4, 4), "bfloat16"), *LAYOUT.tensors[2:]),
            "model: tensor 1: expected base bfloat16[4, 4] frozen as f0f0f0f0f0f0f0f0, got base bfloat16",
        ),
        (
            (LAYOUT.tensors[0], TensorSpec("base", (4, 4), "bfloat16", Digest(b"\xf1" * 32))),
            f"model: frozen tensor 'base': expected the values of digest {'f0' * 32}, got {'f1' * 32}: what "
            "is frozen does not travel",
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


@pytest.mark.parametrize("dtype", FLOAT_DTYPES + OTHER_DTYPES)
def test_every_type_can_be_frozen(dtype: str) -> None:
    """A frozen tensor of any type does not travel, and its values belong to the layout's digest."""
    tensors = [TensorSpec("base", (2,), dtype, Digest(bytes([value]) * 32)) for value in (1, 2)]
    layouts = [ModelLayout((TensorSpec("adapter", (3,), "float32"), tensor)) for tensor in tensors]
    assert not tensors[0].travels
    assert layouts[0].group_sizes == (3,)
    assert layouts[0].digest != layouts[1].digest


def test_digests_are_pinned() -> None:
    """Digests never change between versions: they stand on ledgers."""
    assert LAYOUT.digest.hex() == "b3ea587b089013f214593cc591c05824e94f29b414ad286fa2aaeaaab13a6b0a"
    assert (
        compute_values_digest(FLAT).hex()
        == "26b3b53ee3bae8b9a201954cf65488abb485f5987614a684a0c526755c123bab"
    )
    assert (
        MODEL.compute_digest(LAYOUT.digest).hex()
        == "26a41aac0e951b086e753041d84386676b65219f7632b8c8a831c11d9f2c5622"
    )


def test_digest_sees_each_bit() -> None:
    """Other values, clips or layouts make another digest; negative zero is not zero."""
    digest = MODEL.compute_digest(LAYOUT.digest)
    changed = FLAT.copy()
    changed[0] = -0.0
    assert Model(changed, CLIPS).compute_digest(LAYOUT.digest) != digest
    for i, clip in enumerate(CLIPS):
        clips = (*CLIPS[:i], float(np.nextafter(clip, 1.0)), *CLIPS[i + 1 :])
        assert Model(FLAT, clips).compute_digest(LAYOUT.digest) != digest
    assert MODEL.compute_digest(Digest(bytes(32))) != digest
    values = compute_values_digest(FLAT)
    assert compute_model_digest(LAYOUT.digest, 9, values, CLIPS) == digest
    assert compute_model_digest(LAYOUT.digest, 10, values, CLIPS) != digest


def test_digest_does_not_depend_on_memory_layout() -> None:
    """A view with strides, or of other byte order, has the digest of its values."""
    strided = np.repeat(FLAT, 2)[::2]
    assert not strided.flags.c_contiguous
    assert compute_values_digest(strided) == compute_values_digest(FLAT)


@given(clips=st.lists(st.floats(min_value=0, exclude_min=True, allow_infinity=False), min_size=1))
def test_clips_round_trip(clips: list[float]) -> None:
    """Clips come back to the last bit."""
    assert decode_clips(encode_clips(clips), "clips") == tuple(clips)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        encode_clips(CLIPS)[:-1],
        encode_clips(CLIPS) + b"\x00",
        *(encode_clips((0.5, bad)) for bad in (0.0, -0.0, -0.5, float("inf"), float("nan"))),
    ],
)
def test_bytes_that_are_no_clips_are_refused(raw: bytes) -> None:
    """No clip at all, a clip cut short, and one that is no positive finite number are refused."""
    with pytest.raises(MalformedMessage, match="manifest: clips: expected "):
        decode_clips(raw, "manifest: clips")


def test_model_file_round_trip(tmp_path: Path) -> None:
    """A saved model comes back bit for bit, in place of what was there."""
    path = tmp_path / "model"
    save_model(path, LAYOUT, Model(np.zeros_like(FLAT), CLIPS))
    assert save_model(path, LAYOUT, MODEL) == MODEL.compute_digest(LAYOUT.digest)
    layout, model = load_model(path)
    assert layout == LAYOUT
    assert model.clips == CLIPS
    assert model.flat.dtype == np.float32
    assert model.flat.tobytes() == FLAT.tobytes()
    model.flat[0] = 1.0  # the caller owns it
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("clips", [CLIPS[:-1], (*CLIPS, 0.5)])
def test_model_has_a_clip_for_each_group(tmp_path: Path, clips: tuple[float, ...]) -> None:
    """A clip too few or too many is neither saved nor loaded."""
    path = tmp_path / "model"
    with pytest.raises(ConfigurationError, match=f"expected 4 clips, got {len(clips)}"):
        save_model(path, LAYOUT, Model(FLAT, clips))
    digest = Model(FLAT, clips).compute_digest(LAYOUT.digest)
    head = encode_fields("fedproof.model-file.v1", LAYOUT.encode(), digest, encode_clips(clips))
    path.write_bytes(head + FLAT.tobytes())
    with pytest.raises(MalformedMessage, match=f"and 4 clips, got 36 bytes and {len(clips)} clips"):
        load_model(path)


def test_damaged_model_file_is_refused(tmp_path: Path) -> None:
    """No truncation, no trailing byte and no flipped bit is loaded; the file is named."""
    path = tmp_path / "model"
    save_model(path, LAYOUT, MODEL)
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
    digest = save_model(path, LAYOUT, MODEL)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DigestMismatch, match=f"expected model {digest.hex()}, got .*: the file is damaged"):
        load_model(path)


def test_model_is_read_into_place(tmp_path: Path) -> None:
    """Loading a model takes the memory of its values, not twice that."""
    layout = ModelLayout((TensorSpec("w", (1 << 21,), "float32"),))
    save_model(tmp_path / "model", layout, Model(np.ones(1 << 21, dtype=np.float32), (0.5,)))
    tracemalloc.start()
    try:
        _, model = load_model(tmp_path / "model")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert model.flat.nbytes == 1 << 23
    assert peak < model.flat.nbytes + (1 << 20)


def test_missing_model_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is the user's to provide."""
    with pytest.raises(ConfigurationError, match="model: expected a model file, got: No such file"):
        load_model(tmp_path / "model")
