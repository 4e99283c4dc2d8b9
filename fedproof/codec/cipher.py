"""BFV over arrays of polynomials: what is random or secret is SEAL's work, sums and scaling are ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import tenseal.sealapi as seal

from fedproof.codec.bits import Words
from fedproof.codec.frames import Seeds
from fedproof.codec.parameters import RING_DEGREE, SEED_BYTES, CodecParameters
from fedproof.codec.quantise import Int64Vector
from fedproof.codec.seal_files import FileForm, open_exchange
from fedproof.codec.secret_key import SecretKey
from fedproof.errors import ConfigurationError

_PLAINTEXT_PREFIX: Final = 72
_CIPHERTEXT_PREFIX: Final = 97
_SEED_PREFIX: Final = 17


class Cipher:
    """SEAL, set up for one set of parameters. Holds no key.

    Attributes:
        parameters: the federation's.
        context: SEAL's.
        plaintext: the form of a saved plaintext.
        update: the form of a saved fresh ciphertext, with a seed.

    Raises:
        ConfigurationError: the installed SEAL refuses the parameters, or saves objects in another form.
    """

    __slots__ = ("_polynomials", "context", "parameters", "plaintext", "update")

    def __init__(self, parameters: CodecParameters) -> None:
        self.parameters = parameters
        self.context = _make_context(parameters)
        self._polynomials: dict[int, FileForm] = {}
        # A key for nothing but an object whose form can be learned.
        encryptor = seal.Encryptor(self.context, seal.KeyGenerator(self.context).secret_key())
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

    def polynomials(self, count: int) -> FileForm:
        """Return the form of a saved ciphertext of so many polynomials, 2 to 16: SEAL's own limits."""
        if count not in self._polynomials:
            ciphertext = seal.Ciphertext(self.context)
            ciphertext.resize(self.context, count)
            with open_exchange() as exchange:
                self._polynomials[count] = FileForm.learn(
                    exchange.save_file(ciphertext),
                    prefix_bytes=_CIPHERTEXT_PREFIX,
                    words=count * RING_DEGREE,
                )
        return self._polynomials[count]

    def transform_key(self, secret_key: SecretKey) -> Any:
        """Return the secret polynomial as SEAL's plaintext, in NTT form.

        SEAL's transformation of a plaintext reads t - 1 as -1.
        """
        residues = secret_key.expand(self.parameters)
        minus_one = np.uint64(self.parameters.plain_modulus - 1)
        polynomial = seal.Plaintext()
        with open_exchange() as exchange:
            coefficients = np.where(residues == 2, minus_one, residues)
            exchange.load(polynomial, self.context, *self.plaintext.join(coefficients))
        seal.Evaluator(self.context).transform_to_ntt_inplace(polynomial, self.context.key_parms_id())
        return polynomial

    def expand_key(self, secret_key: SecretKey) -> Any:
        """Return the key as SEAL's object, whose file is that of the polynomial in NTT form."""
        key = seal.SecretKey()
        with open_exchange() as exchange:
            exchange.load(key, self.context, exchange.save_file(self.transform_key(secret_key)))
        return key


class UpdateEncryptor:
    """Encrypts one update after another under one key."""

    __slots__ = ("_cipher", "_encryptor")

    def __init__(self, cipher: Cipher, secret_key: SecretKey) -> None:
        self._cipher = cipher
        self._encryptor = seal.Encryptor(cipher.context, cipher.expand_key(secret_key))

    def encrypt(self, plaintexts: Words) -> tuple[Words, Seeds]:
        """Return the first polynomials and the seeds of the second ones.

        Symmetric BFV: SEAL encrypts zero, with its own noise and seed; the scaled plaintext is added to that.

        Args:
            plaintexts: coefficients below t, of shape (frames, 4096).
        """
        cipher = self._cipher
        polynomials = np.empty(plaintexts.shape, dtype=np.uint64)
        seeds = np.empty((len(plaintexts), SEED_BYTES), dtype=np.uint8)
        with open_exchange() as exchange:
            for frame, plaintext in enumerate(plaintexts):
                saved = exchange.save(self._encryptor.encrypt_zero_symmetric())
                zero, seed = cipher.update.split(saved)
                polynomials[frame] = add_modular(
                    zero, scale_up(plaintext, cipher.parameters), cipher.parameters
                )
                seeds[frame] = np.frombuffer(seed, dtype=np.uint8)
        return polynomials, seeds


class SumDecryptor:
    """Decrypts one sum after another under one key."""

    __slots__ = ("_cipher", "_evaluator", "_key")

    def __init__(self, cipher: Cipher, secret_key: SecretKey) -> None:
        self._cipher = cipher
        self._evaluator = seal.Evaluator(cipher.context)
        self._key = cipher.transform_key(secret_key)

    def decrypt(self, ciphertexts: Words) -> Words:
        """Return the plaintexts' coefficients, below t, of shape (frames, 4096).

        The products with the key are SEAL's, of all second polynomials at once, as those of one ciphertext:
        SEAL compresses what it saves, and takes less time over one large object than over many. Rounding is
        ours, and exact for any sum; SEAL's decryptor returns the same for sums within the noise's bound.

        Args:
            ciphertexts: both polynomials of each, of shape (frames, 2 * 4096), of a sum that was verified;
                at most 16.
        """
        cipher, evaluator = self._cipher, self._evaluator
        frames = len(ciphertexts)
        count = max(2, frames)  # SEAL has no ciphertext of one polynomial
        form = cipher.polynomials(count)
        products = seal.Ciphertext(cipher.context)
        with open_exchange() as exchange:
            second = np.resize(ciphertexts[:, RING_DEGREE:], (count, RING_DEGREE))
            exchange.load(products, cipher.context, *form.join(second))
            evaluator.transform_to_ntt_inplace(products)
            evaluator.multiply_plain_inplace(products, self._key)
            evaluator.transform_from_ntt_inplace(products)
            words, _ = form.split(exchange.save(products))
        plaintexts = np.empty((frames, RING_DEGREE), dtype=np.uint64)
        for frame, product in enumerate(words.reshape(count, RING_DEGREE)[:frames]):
            masked = add_modular(ciphertexts[frame, :RING_DEGREE], product, cipher.parameters)
            plaintexts[frame] = scale_down(masked, cipher.parameters)
        return plaintexts


def add_modular(one: Words, other: Words, parameters: CodecParameters) -> Words:
    """Return the sums modulo q of numbers below q."""
    total = one + other
    # Below 2q. What is below q becomes huge when q is taken from it, and stays.
    reduced: Words = np.minimum(total, total - np.uint64(parameters.coeff_modulus))
    return reduced


def scale_up(plaintexts: Words, parameters: CodecParameters) -> Words:
    """Return round(q m / t) for each m below t.

    Where q m / t is within 2^-30 of halfway between two integers, it may be either: float64 has no more
    digits, and the noise drowns it.
    """
    modulus, plain_modulus = parameters.coeff_modulus, parameters.plain_modulus
    # q m / t is m for each whole multiple of t in q, less what the last one lacks: q is just below 2^w.
    whole = -(-modulus // plain_modulus)
    lacking = (whole * plain_modulus - modulus) / plain_modulus
    values = plaintexts.view(np.int64)
    scaled: Int64Vector = values * whole - np.ceil(values * lacking - 0.5).astype(np.int64)
    return scaled.view(np.uint64)


def scale_down(masked: Words, parameters: CodecParameters) -> Words:
    """Return round(t p / q) modulo t for each p below q. Exact: q is odd, so nothing is halfway."""
    modulus, plain_modulus = parameters.coeff_modulus, parameters.plain_modulus
    quotients: Int64Vector = np.rint(masked.view(np.int64) * (plain_modulus / modulus)).astype(np.int64)
    # What is left is far below 2^63, so it is known from itself modulo 2^64.
    left = (masked * np.uint64(plain_modulus)).view(np.int64) - quotients * modulus
    # Float64 may have been off by one or two.
    while (is_off := np.abs(left) > modulus // 2).any():
        step = np.sign(left) * is_off
        quotients += step
        left -= step * modulus
    quotients &= plain_modulus - 1
    return quotients.view(np.uint64)


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
        form = self._cipher.polynomials(2)
        ciphertexts = np.empty((len(self._totals), 2 * RING_DEGREE), dtype=np.uint64)
        with open_exchange() as exchange:
            for frame, total in enumerate(self._totals):
                ciphertexts[frame], _ = form.split(exchange.save(total))
        return ciphertexts

    def resume(self, ciphertexts: Words) -> None:
        """Become the sum that `result` returned."""
        form = self._cipher.polynomials(2)
        self._totals = self._make_ciphertexts(len(ciphertexts))
        with open_exchange() as exchange:
            for total, words in zip(self._totals, ciphertexts, strict=True):
                exchange.load(total, self._cipher.context, *form.join(words))

    def _combine(self, operation: Callable[[Any, Any], None], polynomials: Words, seeds: Seeds) -> None:
        (summand,) = self._make_ciphertexts(1)
        with open_exchange() as exchange:
            for total, words, seed in zip(self._totals, polynomials, seeds, strict=True):
                exchange.load(summand, self._cipher.context, *self._cipher.update.join(words, seed.tobytes()))
                operation(total, summand)

    def _make_ciphertexts(self, count: int) -> list[Any]:
        return [seal.Ciphertext(self._cipher.context) for _ in range(count)]


def _make_context(parameters: CodecParameters) -> Any:
    settings = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    settings.set_poly_modulus_degree(RING_DEGREE)
    settings.set_coeff_modulus([seal.Modulus(parameters.coeff_modulus)])
    settings.set_plain_modulus(parameters.plain_modulus)
    context = seal.SEALContext(settings, True, seal.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise ConfigurationError(
            f"codec: expected parameters that SEAL accepts, got q = {parameters.coeff_modulus}: "
            f"{context.parameters_error_message()}"
        )
    return context
