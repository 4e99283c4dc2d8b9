"""Objects of SEAL and TenSEAL, serialised: what other systems send, and what a forger would try first."""

from __future__ import annotations

import hashlib
import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tenseal
import tenseal.sealapi as seal
import zstandard

from fedproof.codec.parameters import CodecParameters

_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC, _ZSTD, _BOMB_BYTES = 0xA15E, 2, 64 << 20


@cache
def bfv(parameters: CodecParameters) -> dict[str, bytes]:
    """Return BFV objects under our own ring and modulus."""
    settings = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    settings.set_poly_modulus_degree(4096)
    settings.set_coeff_modulus([seal.Modulus(parameters.coeff_modulus)])
    settings.set_plain_modulus(1 << 20)
    context = seal.SEALContext(settings, True, seal.SEC_LEVEL_TYPE.TC128)
    generator = seal.KeyGenerator(context)
    encryptor = seal.Encryptor(context, generator.secret_key())
    evaluator = seal.Evaluator(context)
    fresh, ntt, product = (seal.Ciphertext(context) for _ in range(3))
    for each in (fresh, ntt, product):
        encryptor.encrypt_zero_symmetric(each)
    evaluator.transform_to_ntt_inplace(ntt)
    evaluator.multiply_inplace(product, product)
    return {
        "seeded": _save(encryptor.encrypt_zero_symmetric()),
        "whole": _save(fresh),
        "ntt": _save(ntt),
        "three_polynomials": _save(product),
        "secret_key": _save(generator.secret_key()),
        "plaintext": _save(seal.Plaintext("1x^4095")),
    }


@cache
def ckks() -> bytes:
    """Return a CKKS vector with the parameters that NVFlare uses, as TenSEAL serialises it."""
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40])
    context.global_scale = 2**40
    return bytes(tenseal.ckks_vector(context, [1.0, 2.0]).serialize())


@cache
def tenseal_bfv() -> bytes:
    """Return a BFV vector as TenSEAL serialises it."""
    context = tenseal.context(tenseal.SCHEME_TYPE.BFV, 4096, 1_032_193)
    return bytes(tenseal.bfv_vector(context, [1, 2]).serialize())


def bgv(parameters: CodecParameters) -> bytes:
    """Return a ciphertext of SEAL's third scheme, BGV, under our own ring and modulus, uncompressed.

    TenSEAL has no BGV; but SEAL's file of a ciphertext says so only by its flag (NTT form) and by the hash
    of its parameters, whose first word is the scheme's number.
    """
    ntt = bfv(parameters)["ntt"]
    body = zstandard.ZstdDecompressor().decompress(ntt[_HEADER.size :], max_output_size=1 << 17)
    words = [4096, parameters.coeff_modulus, 1 << 20]
    if body[:32] != _hash_parameters(1, *words):
        raise AssertionError("SEAL hashes its parameters in another way")
    body = _hash_parameters(3, *words) + body[32:]
    return _HEADER.pack(*_HEADER.unpack_from(ntt)[:4], 0, 0, _HEADER.size + len(body)) + body


def size_bomb() -> bytes:
    """Return SEAL's header, and in it a size of 2^63 bytes."""
    return _HEADER.pack(_MAGIC, 16, 4, 3, 0, 0, 1 << 63)


def compression_bomb() -> bytes:
    """Return SEAL's header, and after it a few kilobytes of zstd that swell to 64 MiB."""
    body = zstandard.ZstdCompressor(level=19).compress(bytes(_BOMB_BYTES))
    return _HEADER.pack(_MAGIC, 16, 4, 3, _ZSTD, 0, 16 + len(body)) + body


def allocation_bomb() -> bytes:
    """Return the file of a ciphertext that asks for 16 GiB: two polynomials of degree 2^30, and no words."""
    body = bytes(32) + struct.pack("<BQQQdQ", 0, 2, 1 << 30, 1, 1.0, 1)
    body += _HEADER.pack(_MAGIC, 16, 4, 3, 0, 0, 24) + struct.pack("<Q", 1 << 31)
    return _HEADER.pack(_MAGIC, 16, 4, 3, 0, 0, 16 + len(body)) + body


def _hash_parameters(*words: int) -> bytes:
    return hashlib.blake2b(struct.pack(f"<{len(words)}Q", *words), digest_size=32).digest()


def _save(entity: Any) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "object"
        entity.save(str(path))
        return path.read_bytes()
