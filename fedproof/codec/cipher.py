"""BFV by SEAL over arrays of polynomials."""

from __future__ import annotations

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
    """Encrypts, adds and decrypts under one set of parameters. Holds no key.

    SEAL is set up with a plaintext modulus T, the largest power of two below q, and given m * (T / t) for m:
    round(q m / t) is the same, hence so is the ciphertext. What SEAL decrypts then is m with the noise still
    below it, and the last rounding is a shift. The noise is why: SEAL compresses all that it saves, and takes
    twice as long over words whose low bits are not random.

    Raises:
        ConfigurationError: the installed SEAL refuses the parameters, or saves objects in another form.
    """

    __slots__ = ("_context", "_parameters", "_plaintext", "_shift", "_update", "_whole")

    def __init__(self, parameters: CodecParameters) -> None:
        self._parameters = parameters
        self._context = _make_context(parameters)
        self._shift = np.uint64(_wide_bits(parameters) - parameters.values_per_slot * parameters.field_bits)
        # A key for nothing but objects whose form can be learned.
        encryptor = seal.Encryptor(self._context, seal.KeyGenerator(self._context).secret_key())
        whole = seal.Ciphertext(self._context)
        encryptor.encrypt_zero_symmetric(whole)
        with open_exchange() as exchange:
            self._plaintext = FileForm.learn(
                exchange.save(seal.Plaintext(f"1x^{RING_DEGREE - 1}")),
                prefix_bytes=_PLAINTEXT_PREFIX,
                words=RING_DEGREE,
            )
            self._update = FileForm.learn(
                exchange.save(encryptor.encrypt_zero_symmetric()),
                prefix_bytes=_CIPHERTEXT_PREFIX,
                words=RING_DEGREE,
                middle_bytes=_SEED_PREFIX,
            )
            self._whole = FileForm.learn(
                exchange.save(whole), prefix_bytes=_CIPHERTEXT_PREFIX, words=2 * RING_DEGREE
            )

    def make_encryptor(self, secret_key: SecretKey) -> UpdateEncryptor:
        """Return what encrypts one update after another under the key."""
        encryptor = seal.Encryptor(self._context, self._expand_key(secret_key))
        return UpdateEncryptor(self._context, encryptor, self._plaintext, self._update, self._shift)

    def start_sum(self) -> CiphertextSum:
        """Return an empty sum."""
        return CiphertextSum(self._context, self._update, self._whole)

    def decrypt(self, ciphertexts: Words, secret_key: SecretKey) -> Words:
        """Return the plaintexts' coefficients, below t, of shape (frames, 4096).

        Args:
            ciphertexts: both polynomials of each, of shape (frames, 2 * 4096), of a sum that was verified.
            secret_key: the epoch's.
        """
        noisy = np.zeros((ciphertexts.shape[0], RING_DEGREE), dtype=np.uint64)
        decryptor = seal.Decryptor(self._context, self._expand_key(secret_key))
        ciphertext, plaintext = seal.Ciphertext(self._context), seal.Plaintext()
        with open_exchange() as exchange:
            for frame, words in enumerate(ciphertexts):
                exchange.load(ciphertext, self._context, self._whole.join(words))
                decryptor.decrypt(ciphertext, plaintext)
                coefficients, _ = self._plaintext.split(exchange.save(plaintext))
                noisy[frame, : coefficients.size] = coefficients
        noisy += np.uint64(1) << (self._shift - np.uint64(1))
        noisy >>= self._shift
        noisy &= np.uint64(self._parameters.plain_modulus - 1)
        return noisy

    def _expand_key(self, secret_key: SecretKey) -> Any:
        """Return the key as SEAL's object: the ternary polynomial in NTT form.

        SEAL's own transformation of a plaintext reads T - 1 as -1, and its file is that of a key.
        """
        residues = secret_key.expand(self._parameters)
        minus_one = np.uint64((1 << _wide_bits(self._parameters)) - 1)
        polynomial, key = seal.Plaintext(), seal.SecretKey()
        with open_exchange() as exchange:
            coefficients = np.where(residues == 2, minus_one, residues)
            exchange.load(polynomial, self._context, self._plaintext.join(coefficients))
            seal.Evaluator(self._context).transform_to_ntt_inplace(polynomial, self._context.key_parms_id())
            exchange.load(key, self._context, exchange.save(polynomial))
        return key


class UpdateEncryptor:
    """Encrypts under one key. Made by `Cipher.make_encryptor`."""

    __slots__ = ("_context", "_encryptor", "_plaintext", "_shift", "_update")

    def __init__(
        self, context: Any, encryptor: Any, plaintext: FileForm, update: FileForm, shift: np.uint64
    ) -> None:
        self._context = context
        self._encryptor = encryptor
        self._plaintext = plaintext
        self._update = update
        self._shift = shift

    def encrypt(self, plaintexts: Words) -> tuple[Words, Seeds]:
        """Return the first polynomials and the seeds of the second ones.

        Symmetric BFV with SEAL's noise; each second polynomial is expanded from a seed of its own.

        Args:
            plaintexts: coefficients below t, of shape (frames, 4096).
        """
        frames = plaintexts.shape[0]
        polynomials = np.empty((frames, RING_DEGREE), dtype=np.uint64)
        seeds = np.empty((frames, SEED_BYTES), dtype=np.uint8)
        plaintext = seal.Plaintext()
        with open_exchange() as exchange:
            for frame, coefficients in enumerate(plaintexts << self._shift):
                exchange.load(plaintext, self._context, self._plaintext.join(coefficients))
                saved = exchange.save(self._encryptor.encrypt_symmetric(plaintext))
                polynomials[frame], seed = self._update.split(saved)
                seeds[frame] = np.frombuffer(seed, dtype=np.uint8)
        return polynomials, seeds


class CiphertextSum:
    """A growing sum of fresh ciphertexts, frame by frame. Made by `Cipher.start_sum`."""

    __slots__ = ("_context", "_evaluator", "_totals", "_update", "_whole")

    def __init__(self, context: Any, update: FileForm, whole: FileForm) -> None:
        self._context = context
        self._evaluator = seal.Evaluator(context)
        self._update = update
        self._whole = whole
        self._totals: list[Any] = []

    def add(self, polynomials: Words, seeds: Seeds) -> None:
        """Add one update's frames; as many as in the first call."""
        first = not self._totals
        if first:
            self._totals = [seal.Ciphertext(self._context) for _ in polynomials]
        summand = seal.Ciphertext(self._context)
        with open_exchange() as exchange:
            for total, words, seed in zip(self._totals, polynomials, seeds, strict=True):
                file = self._update.join(words, seed.tobytes())
                if first:
                    exchange.load(total, self._context, file)
                else:
                    exchange.load(summand, self._context, file)
                    self._evaluator.add_inplace(total, summand)

    def result(self) -> Words:
        """Return both polynomials of each frame, of shape (frames, 2 * 4096)."""
        ciphertexts = np.empty((len(self._totals), 2 * RING_DEGREE), dtype=np.uint64)
        with open_exchange() as exchange:
            for frame, total in enumerate(self._totals):
                ciphertexts[frame], _ = self._whole.split(exchange.save(total))
        return ciphertexts


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
