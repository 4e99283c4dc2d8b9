"""BFV by SEAL over arrays of polynomials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import tenseal.sealapi as seal

from fedproof.codec.bits import Words
from fedproof.codec.frames import Seeds
from fedproof.codec.parameters import RING_DEGREE, SEED_BYTES, CodecParameters
from fedproof.codec.seal_files import FileForm, open_exchange
from fedproof.codec.secret_key import SecretKey
from fedproof.errors import ConfigurationError

_PLAINTEXT_PREFIX: Final = 72
_CIPHERTEXT_PREFIX: Final = 97
_SEED_PREFIX: Final = 17


class Cipher:
    """SEAL, set up for one set of parameters. Holds no key.

    SEAL is set up with a plaintext modulus T, the largest power of two below q, and given m * (T / t) for m:
    round(q m / t) is the same, hence so is the ciphertext. What SEAL decrypts then is m with the noise still
    below it, and the last rounding is a shift. The noise is why: SEAL compresses all that it saves, and takes
    twice as long over words whose low bits are not random.

    Attributes:
        parameters: the federation's.
        context: SEAL's.
        shift: T / t as a power of two.
        plaintext: the form of a saved plaintext.
        update: the form of a saved fresh ciphertext, with a seed.
        whole: the form of a saved ciphertext with both its polynomials.

    Raises:
        ConfigurationError: the installed SEAL refuses the parameters, or saves objects in another form.
    """

    __slots__ = ("context", "parameters", "plaintext", "shift", "update", "whole")

    def __init__(self, parameters: CodecParameters) -> None:
        self.parameters = parameters
        self.context = _make_context(parameters)
        self.shift = np.uint64(_wide_bits(parameters) - parameters.values_per_slot * parameters.field_bits)
        # A key for nothing but objects whose form can be learned.
        encryptor = seal.Encryptor(self.context, seal.KeyGenerator(self.context).secret_key())
        whole = seal.Ciphertext(self.context)
        encryptor.encrypt_zero_symmetric(whole)
        with open_exchange() as exchange:
            self.plaintext = FileForm.learn(
                exchange.save_file(seal.Plaintext(f"1x^{RING_DEGREE - 1}")),
                prefix_bytes=_PLAINTEXT_PREFIX,
                words=RING_DEGREE,
            )
            self.update = FileForm.learn(
                exchange.save_file(encryptor.encrypt_zero_symmetric()),
                prefix_bytes=_CIPHERTEXT_PREFIX,
                words=RING_DEGREE,
                middle_bytes=_SEED_PREFIX,
            )
            self.whole = FileForm.learn(
                exchange.save_file(whole), prefix_bytes=_CIPHERTEXT_PREFIX, words=2 * RING_DEGREE
            )

    def expand_key(self, secret_key: SecretKey) -> Any:
        """Return the key as SEAL's object: the ternary polynomial in NTT form.

        SEAL's own transformation of a plaintext reads T - 1 as -1, and its file is that of a key.
        """
        residues = secret_key.expand(self.parameters)
        minus_one = np.uint64((1 << _wide_bits(self.parameters)) - 1)
        polynomial, key = seal.Plaintext(), seal.SecretKey()
        with open_exchange() as exchange:
            coefficients = np.where(residues == 2, minus_one, residues)
            exchange.load(polynomial, self.context, *self.plaintext.join(coefficients))
            seal.Evaluator(self.context).transform_to_ntt_inplace(polynomial, self.context.key_parms_id())
            exchange.load(key, self.context, exchange.save_file(polynomial))
        return key


class UpdateEncryptor:
    """Encrypts one update after another under one key."""

    __slots__ = ("_cipher", "_encryptor")

    def __init__(self, cipher: Cipher, secret_key: SecretKey) -> None:
        self._cipher = cipher
        self._encryptor = seal.Encryptor(cipher.context, cipher.expand_key(secret_key))

    def encrypt(self, plaintexts: Words) -> tuple[Words, Seeds]:
        """Return the first polynomials and the seeds of the second ones.

        Symmetric BFV with SEAL's noise; each second polynomial is expanded from a seed of its own.

        Args:
            plaintexts: coefficients below t, of shape (frames, 4096).
        """
        cipher = self._cipher
        frames = plaintexts.shape[0]
        polynomials = np.empty((frames, RING_DEGREE), dtype=np.uint64)
        seeds = np.empty((frames, SEED_BYTES), dtype=np.uint8)
        plaintext = seal.Plaintext()
        with open_exchange() as exchange:
            for frame, coefficients in enumerate(plaintexts):
                file = cipher.plaintext.join(coefficients << cipher.shift)
                exchange.load(plaintext, cipher.context, *file)
                saved = exchange.save(self._encryptor.encrypt_symmetric(plaintext))
                polynomials[frame], seed = cipher.update.split(saved)
                seeds[frame] = np.frombuffer(seed, dtype=np.uint8)
        return polynomials, seeds


class SumDecryptor:
    """Decrypts one sum after another under one key."""

    __slots__ = ("_cipher", "_decryptor")

    def __init__(self, cipher: Cipher, secret_key: SecretKey) -> None:
        self._cipher = cipher
        self._decryptor = seal.Decryptor(cipher.context, cipher.expand_key(secret_key))

    def decrypt(self, ciphertexts: Words) -> Words:
        """Return the plaintexts' coefficients, below t, of shape (frames, 4096).

        Args:
            ciphertexts: both polynomials of each, of shape (frames, 2 * 4096), of a sum that was verified.
        """
        cipher = self._cipher
        noisy = np.zeros((ciphertexts.shape[0], RING_DEGREE), dtype=np.uint64)
        ciphertext, plaintext = seal.Ciphertext(cipher.context), seal.Plaintext()
        with open_exchange() as exchange:
            for frame, words in enumerate(ciphertexts):
                exchange.load(ciphertext, cipher.context, *cipher.whole.join(words))
                self._decryptor.decrypt(ciphertext, plaintext)
                coefficients, _ = cipher.plaintext.split(exchange.save(plaintext))
                noisy[frame, : coefficients.size] = coefficients
        noisy += np.uint64(1) << (cipher.shift - np.uint64(1))
        noisy >>= cipher.shift
        noisy &= np.uint64(cipher.parameters.plain_modulus - 1)
        return noisy


class CiphertextSum:
    """A running sum of fresh ciphertexts, frame by frame."""

    __slots__ = ("_cipher", "_evaluator", "_totals")

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher
        self._evaluator = seal.Evaluator(cipher.context)
        self._totals: list[Any] = []

    def add(self, polynomials: Words, seeds: Seeds) -> None:
        """Add one update's frames; as many as in the first call."""
        if self._totals:
            self._combine(self._evaluator.add_inplace, polynomials, seeds)
            return
        self._totals = self._make_ciphertexts(len(polynomials))
        with open_exchange() as exchange:
            for total, words, seed in zip(self._totals, polynomials, seeds, strict=True):
                exchange.load(total, self._cipher.context, *self._cipher.update.join(words, seed.tobytes()))

    def subtract(self, polynomials: Words, seeds: Seeds) -> None:
        """Subtract the frames of an update that is in the sum, but not alone in it: SEAL refuses zero."""
        self._combine(self._evaluator.sub_inplace, polynomials, seeds)

    def result(self) -> Words:
        """Return both polynomials of each frame, of shape (frames, 2 * 4096)."""
        ciphertexts = np.empty((len(self._totals), 2 * RING_DEGREE), dtype=np.uint64)
        with open_exchange() as exchange:
            for frame, total in enumerate(self._totals):
                ciphertexts[frame], _ = self._cipher.whole.split(exchange.save(total))
        return ciphertexts

    def resume(self, ciphertexts: Words) -> None:
        """Become the sum that `result` returned."""
        self._totals = self._make_ciphertexts(len(ciphertexts))
        with open_exchange() as exchange:
            for total, words in zip(self._totals, ciphertexts, strict=True):
                exchange.load(total, self._cipher.context, *self._cipher.whole.join(words))

    def _combine(self, operation: Callable[[Any, Any], None], polynomials: Words, seeds: Seeds) -> None:
        (summand,) = self._make_ciphertexts(1)
        with open_exchange() as exchange:
            for total, words, seed in zip(self._totals, polynomials, seeds, strict=True):
                exchange.load(summand, self._cipher.context, *self._cipher.update.join(words, seed.tobytes()))
                operation(total, summand)

    def _make_ciphertexts(self, count: int) -> list[Any]:
        return [seal.Ciphertext(self._cipher.context) for _ in range(count)]


def _wide_bits(parameters: CodecParameters) -> int:
    """Return the size of SEAL's plaintext modulus T: the largest power of two below q is 2 to this."""
    return parameters.coefficient_bits - 1


def _make_context(parameters: CodecParameters) -> Any:
    settings = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    settings.set_poly_modulus_degree(RING_DEGREE)
    settings.set_coeff_modulus([seal.Modulus(parameters.coeff_modulus)])
    settings.set_plain_modulus(1 << _wide_bits(parameters))
    context = seal.SEALContext(settings, True, seal.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise ConfigurationError(
            f"codec: expected parameters that SEAL accepts, got q = {parameters.coeff_modulus}: "
            f"{context.parameters_error_message()}"
        )
    return context
