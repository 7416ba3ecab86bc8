"""Read and write the primitives of lib0, within bounds.

All dialects and Yjs itself are built from three primitives, defined in lib0 `encoding.js` and
`decoding.js`:

    var_uint    7 bits a byte, lowest first; the high bit says that another byte follows
    var_bytes   var_uint length, then that many bytes       (lib0 `writeVarUint8Array`)
    var_string  var_uint length in bytes, then UTF-8        (lib0 `writeVarString`)

pycrdt has a decoder too, but it must not see what strangers send: it has no bound (200 KB of `ff`
take 3 seconds), and gives a truncated message back short, without a word.
"""

from typing import Final, NoReturn

from plait.server.errors import DecodeError

UINT_MAX: Final = (1 << 53) - 1
"""The largest integer that JavaScript counts with (`Number.MAX_SAFE_INTEGER`)."""

UINT_BYTES_MAX: Final = 8
"""Bytes that `UINT_MAX` takes. lib0 accepts padding with zeros, so Plait does too, up to here."""

_SHORT = tuple(bytes((number,)) for number in range(128))


class UintTooLong(ValueError):
    """Raised by `read_var_uint` only; each caller turns it into the error of its own layer."""


def read_var_uint(data: bytes, position: int) -> tuple[int, int]:
    """Return the integer at a position, and the position after it.

    This is the hot path of every parser here, therefore a function without a class, and unrolled up
    to the five bytes that a client id of Yjs takes. Callers with many integers to read test for a
    single byte before they call.

    Raises:
        IndexError: the data ends within the integer.
        UintTooLong: the integer is above `UINT_MAX`, or padded beyond `UINT_BYTES_MAX`.
    """
    a = data[position]
    if a < 128:
        return a, position + 1
    b = data[position + 1]
    # Each high bit stays in the sum and is taken off in one go: that saves a mask for every byte.
    if b < 128:
        return a + (b << 7) - 0x80, position + 2
    c = data[position + 2]
    if c < 128:
        return a + (b << 7) + (c << 14) - 0x4080, position + 3
    d = data[position + 3]
    if d < 128:
        return a + (b << 7) + (c << 14) + (d << 21) - 0x204080, position + 4
    e = data[position + 4]
    low = a + (b << 7) + (c << 14) + (d << 21) + (e << 28) - 0x10204080
    if e < 128:
        return low, position + 5
    return _read_long_var_uint(data, position + 5, low - (1 << 35))


def _read_long_var_uint(data: bytes, position: int, low: int) -> tuple[int, int]:
    """Finish an integer whose first five bytes are in `low`."""
    for shift in range(35, 7 * UINT_BYTES_MAX, 7):
        byte = data[position]
        position += 1
        low |= (byte & 127) << shift
        if byte < 128:
            if low > UINT_MAX:
                break
            return low, position
    raise UintTooLong("An integer is larger than 2^53 - 1.")


def write_var_uint(number: int) -> bytes:
    """Return the bytes of an integer from 0 to `UINT_MAX`."""
    if number < 128:
        assert number >= 0
        return _SHORT[number]
    assert number <= UINT_MAX
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)


def var_bytes(data: bytes) -> bytes:
    """Return bytes with their length in front."""
    return write_var_uint(len(data)) + data


def var_string(text: str) -> bytes:
    """Return a string as UTF-8 with its length in bytes in front.

    A lone surrogate becomes U+FFFD, as JavaScript's `TextEncoder` writes it.
    """
    try:
        return var_bytes(text.encode())
    except UnicodeEncodeError:
        units = text.encode("utf-16-le", "surrogatepass")
        return var_bytes(units.decode("utf-16-le", "replace").encode())


class Reader:
    """Read primitives from a message, one after another, and be sure that they are all there is.

    Every method raises `DecodeError` when the data is not what was asked for.
    """

    __slots__ = ("data", "position")

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data = data
        self.position = position

    def var_uint(self) -> int:
        """Return an integer from 0 to `UINT_MAX`."""
        try:
            number, self.position = read_var_uint(self.data, self.position)
        except IndexError:
            self._truncated()
        except UintTooLong as error:
            raise DecodeError(str(error)) from None
        return number

    def var_bytes(self) -> bytes:
        """Return bytes that have their length in front."""
        length = self.var_uint()
        start, end = self.position, self.position + length
        if end > len(self.data):
            self._truncated()
        self.position = end
        return self.data[start:end]

    def var_string(self) -> str:
        """Return a string that has its length in bytes in front; it must be valid UTF-8."""
        try:
            return self.var_bytes().decode()
        except UnicodeDecodeError:
            raise DecodeError("A string is not valid UTF-8.") from None

    def end(self) -> None:
        """Check that nothing is left."""
        left = len(self.data) - self.position
        if left:
            raise DecodeError(f"The message has {left} bytes too many.")

    def _truncated(self) -> NoReturn:
        raise DecodeError("The message ends too early.")
