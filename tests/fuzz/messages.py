"""Targets: presence, the relay's messages, and JSON within messages."""

import json
import random
from typing import Any

from pycrdt import Awareness as PycrdtAwareness
from pycrdt import Doc

from plait.server.errors import DecodeError, LimitReached, UpdateRefused
from plait.server.wire import stand_ins, strict_json
from plait.server.wire.envelope import (
    Diff,
    Envelope,
    Hello,
    Kind,
    decode_diff,
    decode_envelope,
    decode_hello,
    decode_updates,
    encode_diff,
    encode_envelope,
    encode_hello,
    encode_updates,
)
from plait.server.wire.lib0 import var_string
from plait.server.wire.presence import check_state, decode_presence, encode_presence
from plait.server.wire.update import inspect
from tests.fuzz.bytes_of import change_json
from tests.fuzz.target import Target, expect
from tests.wire.recorded import vectors

JSON_DEPTH_MAX = 512
MARK = stand_ins.new_mark()


def presence(data: bytes) -> str:
    """Read presence, and give it to a client that is written in Python."""
    try:
        entries = decode_presence(data, 1000)
    except (DecodeError, LimitReached):
        return "refused"
    encoded = encode_presence(entries)
    expect(decode_presence(encoded, 1000) == entries, "presence is written wrongly")
    for entry in entries:
        if entry.state is not None:
            try:
                check_state(entry.state, 64 << 10)
            except (DecodeError, LimitReached):
                return "not shown"
            json.loads(entry.state)
    doc: Doc[Any] = Doc()
    PycrdtAwareness(doc).apply_awareness_update(encoded, "fuzzer")
    return "read"


def envelope(data: bytes) -> str:
    """Read a message of the relay, and what is in it."""
    try:
        message = decode_envelope(data)
    except DecodeError:
        return "refused"
    again = decode_envelope(encode_envelope(message))
    expect(again == message, "a message is written wrongly")
    payload = message.payload
    try:
        match message.kind:
            case Kind.UPDATE:
                updates = decode_updates(payload)
                expect(decode_updates(encode_updates(updates)) == updates, "other updates")
            case Kind.HELLO:
                hello = decode_hello(payload)
                expect(decode_hello(encode_hello(hello)) == hello, "another hello")
            case Kind.DIFF:
                diff = decode_diff(payload)
                expect(decode_diff(encode_diff(diff)) == diff, "another diff")
            case Kind.PRESENCE | Kind.CORRECT:
                decode_presence(payload, 1000)
    except (DecodeError, LimitReached):
        return f"{message.kind.name} refused"
    return message.kind.name


def seeds_of_envelopes() -> list[bytes]:
    """Return a message of each kind, with a payload if it has one."""
    update = bytes.fromhex(vectors("updates")[0]["hex"])
    told = bytes.fromhex(vectors("presence")[1]["hex"])
    payloads = {
        Kind.UPDATE: encode_updates([("", update), ("zoë", update)]),
        Kind.HELLO: encode_hello(Hello(b"\x01\x07\x05", told, True)),
        Kind.DIFF: encode_diff(Diff(update, told)),
        Kind.PRESENCE: told,
        Kind.CORRECT: told,
    }
    node = bytes(range(8))
    return [
        encode_envelope(Envelope(node, kind, "a room", 1000, saved, payloads.get(kind, b"")))
        for kind in Kind
        for saved in (0, 990)
    ]


def json_text(data: bytes) -> str:
    """Take a text for JSON; what passes has to come through pycrdt, and pass in Python, too."""
    text = data.decode(errors="replace")
    if strict_json.javascript_problem(text, JSON_DEPTH_MAX) is not None:
        return "refused"
    json.loads(text)
    for kind in (b"\x05\x01\x01t", b"\x06\x01\x01t" + var_string("bold")):
        update = b"\x01\x01\x07\x00" + kind + var_string(text) + b"\x00"
        try:
            inspect(update)
        except UpdateRefused:
            expect(False, "inspect refuses JSON that is fine")
        doc: Doc[Any] = Doc()
        doc.apply_update(stand_ins.hide(update, MARK))
        encoded = stand_ins.show(doc.get_update(), MARK)
        expect(encoded == update, "pycrdt lost it")
    return "accepted"


TEXTS = (
    *(
        '{"a":[1,2.5,-0,1e5,true,false,null,"x"]}',
        '"\\ud83d\\ude00\\n\\u0000"',
        "9223372036854775807",
    ),
    *(
        "18446744073709551616",
        "1e308",
        '{"":{}}',
        "[[[[[[]]]]]]",
        '"😀"',
        " [ 1 , 2 ] ",
        '{"a":1,"a":2}',
    ),
)

MARKS = ('"', "\\", "\\u", "d800", "[", "]", "{", "}", ":", ",", "e", "-", ".", "0", "9" * 19)


def change_text(rng: random.Random, data: bytes) -> bytes:
    """Change a value in JSON, or put one of the characters that it is made of somewhere."""
    if rng.random() < 0.3:
        return change_json(rng, data)
    cut = rng.randrange(len(data) + 1)
    return data[:cut] + rng.choice(MARKS).encode() + data[cut + rng.randrange(2) :]


TARGETS = {
    "presence": Target(
        presence, lambda: [bytes.fromhex(each["hex"]) for each in vectors("presence")]
    ),
    "envelope": Target(envelope, seeds_of_envelopes),
    "json": Target(json_text, lambda: [each.encode() for each in TEXTS], change_text, 512),
}
