"""BFV by SEAL over arrays of polynomials."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import tenseal.sealapi as seal

from fedproof.codec.bits import Words
from fedproof.codec.frames import Seeds
from fedproof.codec.parameters import RING_DEGREE, SEED_BYTES, CodecParameters
from fedproof.codec.scratch import open_scratch
from fedproof.codec.seal_files import FileForm, save
from fedproof.codec.secret_key import SecretKey
from fedproof.errors import ConfigurationError

_PLAINTEXT_PREFIX: Final = 72
_CIPHERTEXT_PREFIX: Final = 97
_SEED_PREFIX: Final = 17


class Cipher:
    """Encrypts, adds and decrypts under one set of parameters. Holds no key.

    Raises:
        ConfigurationError: the installed SEAL refuses the parameters, or saves objects in another form.
    """

    __slots__ = ("_context", "_evaluator", "_parameters", "_plaintext", "_update", "_whole")

    def __init__(self, parameters: CodecParameters) -> None:
        self._parameters = parameters
        self._context = _make_context(parameters)
        self._evaluator = seal.Evaluator(self._context)
        # A key for nothing but objects whose form can be learned.
        encryptor = seal.Encryptor(self._context, seal.KeyGenerator(self._context).secret_key())
        whole = seal.Ciphertext(self._context)
        encryptor.encrypt_zero_symmetric(whole)
        with open_scratch() as scratch:
            self._plaintext = FileForm.learn(
                save(seal.Plaintext(f"1x^{RING_DEGREE - 1}"), scratch),
                prefix_bytes=_PLAINTEXT_PREFIX,
                words=RING_DEGREE,
            )
            self._update = FileForm.learn(
                save(encryptor.encrypt_zero_symmetric(), scratch),
                prefix_bytes=_CIPHERTEXT_PREFIX,
                words=RING_DEGREE,
                middle_bytes=_SEED_PREFIX,
            )
            self._whole = FileForm.learn(
                save(whole, scratch), prefix_bytes=_CIPHERTEXT_PREFIX, words=2 * RING_DEGREE
            )

    def encrypt(self, plaintexts: Words, secret_key: SecretKey) -> tuple[Words, Seeds]:
        """Return the first polynomials and the seeds of the second ones.

        Symmetric BFV with SEAL's noise; each second polynomial is expanded from a seed of its own.

        Args:
            plaintexts: coefficients below t, of shape (frames, 4096).
            secret_key: the epoch's.
        """
        frames = plaintexts.shape[0]
        polynomials = np.empty((frames, RING_DEGREE), dtype=np.uint64)
        seeds = np.empty((frames, SEED_BYTES), dtype=np.uint8)
        encryptor = seal.Encryptor(self._context, self._expand_key(secret_key))
        plaintext = seal.Plaintext()
        with open_scratch() as scratch:
            for frame in range(frames):
                scratch.write(self._plaintext.join(plaintexts[frame]))
                plaintext.load(self._context, scratch.path)
                words, seed = self._update.split(save(encryptor.encrypt_symmetric(plaintext), scratch))
                polynomials[frame] = words
                seeds[frame] = np.frombuffer(seed, dtype=np.uint8)
        return polynomials, seeds

    def start_sum(self) -> CiphertextSum:
        """Return an empty sum."""
        return CiphertextSum(self._context, self._evaluator, self._update, self._whole)

    def decrypt(self, ciphertexts: Words, secret_key: SecretKey) -> Words:
        """Return the plaintexts' coefficients, of shape (frames, 4096).

        Args:
            ciphertexts: both polynomials of each, of shape (frames, 2 * 4096), of a sum that was verified.
            secret_key: the epoch's.
        """
        plaintexts = np.zeros((ciphertexts.shape[0], RING_DEGREE), dtype=np.uint64)
        decryptor = seal.Decryptor(self._context, self._expand_key(secret_key))
        ciphertext, plaintext = seal.Ciphertext(self._context), seal.Plaintext()
        with open_scratch() as scratch:
            for frame, words in enumerate(ciphertexts):
                scratch.write(self._whole.join(words))
                ciphertext.load(self._context, scratch.path)
                decryptor.decrypt(ciphertext, plaintext)
                # SEAL saves no zeros at the end.
                coefficients, _ = self._plaintext.split(save(plaintext, scratch))
                plaintexts[frame, : coefficients.size] = coefficients
        return plaintexts

    def _expand_key(self, secret_key: SecretKey) -> Any:
        """Return the key as SEAL's object: the ternary polynomial in NTT form.

        SEAL's own transformation of a plaintext reads t - 1 as -1, and its file form is that of a key.
        """
        residues = secret_key.expand(self._parameters)
        coefficients = np.where(residues == 2, np.uint64(self._parameters.plain_modulus - 1), residues)
        polynomial, key = seal.Plaintext(), seal.SecretKey()
        with open_scratch() as scratch:
            scratch.write(self._plaintext.join(coefficients))
            polynomial.load(self._context, scratch.path)
            self._evaluator.transform_to_ntt_inplace(polynomial, self._context.key_parms_id())
            polynomial.save(scratch.path)
            key.load(self._context, scratch.path)
        return key


class CiphertextSum:
    """A growing sum of fresh ciphertexts, frame by frame. Made by `Cipher.start_sum`."""

    __slots__ = ("_context", "_evaluator", "_totals", "_update", "_whole")

    def __init__(self, context: Any, evaluator: Any, update: FileForm, whole: FileForm) -> None:
        self._context = context
        self._evaluator = evaluator
        self._update = update
        self._whole = whole
        self._totals: list[Any] = []

    def add(self, polynomials: Words, seeds: Seeds) -> None:
        """Add one update's frames; as many as in the first call."""
        starting = not self._totals
        summand = seal.Ciphertext(self._context)
        with open_scratch() as scratch:
            for frame, (words, seed) in enumerate(zip(polynomials, seeds, strict=True)):
                scratch.write(self._update.join(words, seed.tobytes()))
                if starting:
                    summand = seal.Ciphertext(self._context)
                    self._totals.append(summand)
                summand.load(self._context, scratch.path)
                if not starting:
                    self._evaluator.add_inplace(self._totals[frame], summand)

    def result(self) -> Words:
        """Return both polynomials of each frame, of shape (frames, 2 * 4096)."""
        ciphertexts = np.empty((len(self._totals), 2 * RING_DEGREE), dtype=np.uint64)
        with open_scratch() as scratch:
            for frame, total in enumerate(self._totals):
                ciphertexts[frame], _ = self._whole.split(save(total, scratch))
        return ciphertexts


def _make_context(parameters: CodecParameters) -> Any:
    settings = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    settings.set_poly_modulus_degree(RING_DEGREE)
    settings.set_coeff_modulus([seal.Modulus(parameters.coeff_modulus)])
    settings.set_plain_modulus(parameters.plain_modulus)
    context = seal.SEALContext(settings, True, seal.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise ConfigurationError(
            f"codec: expected parameters that SEAL accepts, got q = {parameters.coeff_modulus}, "
            f"t = {parameters.plain_modulus}: {context.parameters_error_message()}"
        )
    return context
