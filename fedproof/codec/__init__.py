"""The codec: quantised, packed, encrypted updates that add up exactly."""

from fedproof.codec.parameters import CodecParameters
from fedproof.codec.secret_key import SecretKey
from fedproof.codec.update import Codec

__all__ = ["Codec", "CodecParameters", "SecretKey"]
