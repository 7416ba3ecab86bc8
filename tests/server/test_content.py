"""Content as JSON: what each type becomes, and that types are never guessed."""

import json
import math
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from plait.server.appearance import appearance
from plait.server.content import root_kinds, roots, roots_as_json
from plait.server.errors import BadRequest
from plait.server.shown import DEPTH_MAX, SAFE_INTEGER_MAX
from plait.server.wire.lib0 import var_string, write_var_uint
from plait.server.wire.update import inspect
from tests.support.node import run_node


def values(doc: "Doc[Any]") -> dict[str, Any]:
    return {name: root["value"] for name, root in roots(doc.get_update()).items()}


def types(update: bytes) -> dict[str, str]:
    return {name: root["type"] for name, root in roots(update).items()}


def from_yjs(script: str) -> bytes:
    """Run a script of Yjs on a document `d`; return its state."""
    source = "import * as Y from 'yjs'\nconst d = new Y.Doc()\n" + script
    printed = run_node(
        source + "\nconsole.log(Buffer.from(Y.encodeStateAsUpdate(d)).toString('hex'))"
    )
    return bytes.fromhex(printed)


# What only a stranger writes

FORMAT_IN_A_MAP = bytes.fromhex("010107002601016d016b04626f6c64047472756500")


def test_a_key_that_stands_for_no_value_is_left_out() -> None:
    """pycrdt lists such a key, and raises KeyError for its value; fuzzing found it."""
    inspect(FORMAT_IN_A_MAP)
    assert json.loads(roots_as_json(FORMAT_IN_A_MAP))["m"]["value"] == {}
    assert appearance(FORMAT_IN_A_MAP) == ""


# Types of roots


def test_each_type_is_told_from_its_content() -> None:
    doc: Doc[Any] = Doc()
    doc["text"] = Text("Grüße, 世界 😀")
    doc["map"] = Map({"key": "value"})
    doc["array"] = Array(["a", 1, None])
    doc["xml"] = XmlFragment([XmlElement("p", {"class": "c"}, [XmlText("Hello")])])

    assert roots(doc.get_update()) == {
        "text": {"type": "text", "value": "Grüße, 世界 😀"},
        "map": {"type": "map", "value": {"key": "value"}},
        "array": {"type": "array", "value": ["a", 1, None]},
        "xml": {"type": "xml", "value": '<p class="c">Hello</p>'},
    }


def test_an_empty_document_has_no_roots() -> None:
    assert roots(b"\x00\x00") == {}


def test_a_root_name_may_be_any_text() -> None:
    doc: Doc[Any] = Doc()
    doc[""] = Text("nameless")
    doc['"\\/\n ключ'] = Text("odd")
    assert values(doc) == {"": "nameless", '"\\/\n ключ': "odd"}


def test_text_keeps_its_type_when_all_visible_is_formatting_or_an_embed() -> None:
    # An array cast on such a root loops for ever in pycrdt.
    update = from_yjs("d.getText('t').insertEmbed(0, {image: 1}, {bold: true})")
    assert roots(update) == {
        "t": {
            "type": "text",
            "value": "",
            "delta": [{"insert": {"image": 1}, "attributes": {"bold": True}}],
        }
    }


def test_formatting_is_beside_the_text() -> None:
    update = from_yjs(
        "const t = d.getText('t'); t.insert(0, 'Hello'); t.format(0, 2, {bold: true}); "
        "t.insertEmbed(3, {image: 1})"
    )
    assert roots(update) == {
        "t": {
            "type": "text",
            "value": "Hello",
            "delta": [
                {"insert": "He", "attributes": {"bold": True}},
                *({"insert": "l"}, {"insert": {"image": 1}}, {"insert": "lo"}),
            ],
        }
    }


def test_text_with_an_embedded_type_is_text() -> None:
    update = from_yjs(
        "const t = d.getText('t'); t.insert(0, 'ab'); t.insertEmbed(1, new Y.Map()); "
        "t.setAttribute('language', 'en')"
    )
    assert roots(update) == {
        "t": {
            "type": "text",
            "value": "ab",
            "delta": [{"insert": "a"}, {"insert": {}}, {"insert": "b"}],
            "attributes": {"language": "en"},
        }
    }


def test_a_root_of_deleted_content_is_unknown_and_a_map_still_a_map() -> None:
    update = from_yjs(
        "d.getText('t').insert(0, 'gone'); d.getText('t').delete(0, 4); "
        "d.getMap('m').set('k', 1); d.getMap('m').delete('k')"
    )
    assert roots(update) == {
        "m": {"type": "map", "value": {}},
        "t": {"type": "unknown", "value": None},
    }


def test_what_only_neighbours_name_is_found() -> None:
    """Structs in the middle name no parent: they are where their neighbours are, and those where
    theirs are.
    """
    update = from_yjs(
        """
        const others = []
        for (let i = 0; i < 40; i++) {
            const other = new Y.Doc(); other.clientID = 1000 - i
            Y.applyUpdate(other, Y.encodeStateAsUpdate(d))
            const a = other.getArray('a'), t = other.getText('t')
            a.insert(Math.floor(a.length / 2), [new Y.Map([['i', i]])])
            t.insert(Math.floor(t.length / 2), 'x')
            Y.applyUpdate(d, Y.encodeStateAsUpdate(other))
        }
        d.getArray('a').delete(0, 10)
        """
    )
    found = roots(update)
    assert found["t"] == {"type": "text", "value": "x" * 40}
    assert found["a"]["type"] == "array" and len(found["a"]["value"]) == 30


def test_a_long_chain_of_neighbours_needs_no_stack() -> None:
    doc: Doc[Any] = Doc()
    text = doc.get("t", type=Text)
    others: list[Doc[Any]] = [Doc(client_id=number) for number in (1, 2)]
    for turn in range(3000):
        other = others[turn % 2]
        other.apply_update(doc.get_update(other.get_state()))
        other.get("t", type=Text).insert(0, "x")
        doc.apply_update(other.get_update(doc.get_state()))
    assert len(text) == 3000
    assert root_kinds(doc.get_update()) == {"t": "text"}


def test_content_of_a_deleted_parent_is_nowhere() -> None:
    update = from_yjs(
        "const m = d.getMap('m'); const t = new Y.Text(); m.set('t', t); t.insert(0, 'inner'); "
        "m.delete('t'); m.set('k', 1)"
    )
    assert roots(update) == {"m": {"type": "map", "value": {"k": 1}}}


def test_an_array_of_types_is_an_array() -> None:
    update = from_yjs("d.getArray('a').insert(0, [new Y.Map([['k', 1]]), new Y.Array(), 'x'])")
    assert roots(update) == {"a": {"type": "array", "value": [{"k": 1}, [], "x"]}}


def test_an_xml_element_or_xml_text_at_the_top_is_shown() -> None:
    update = from_yjs(
        "const e = d.get('e', Y.XmlElement); e.insert(0, [new Y.XmlText('in')]); "
        "const r = d.get('r', Y.XmlText); const p = new Y.XmlText(); r.insertEmbed(0, p); "
        "p.insert(0, 'Lexical')"
    )
    assert roots(update) == {
        "e": {"type": "xml", "or": ["text"], "value": "in"},
        "r": {"type": "xml", "or": ["text"], "value": "Lexical"},
    }


def test_what_may_be_a_text_says_so() -> None:
    """A text that holds only embedded types looks like an array of them."""
    update = from_yjs(
        "d.getText('t').insertEmbed(0, new Y.Map([['k', 1]])); "
        "d.getArray('a').push([new Y.Map(), 1]); "
        "d.getXmlFragment('x').insert(0, [new Y.XmlElement('p'), new Y.XmlText('in')])"
    )
    assert roots(update) == {
        "a": {"type": "array", "value": [{}, 1]},
        "t": {"type": "array", "or": ["text"], "value": [{"k": 1}]},
        "x": {"type": "xml", "value": "<p></p>in"},
    }


def test_attributes_of_what_has_a_sequence_are_told() -> None:
    update = from_yjs(
        """
        const e = d.get('e', Y.XmlElement), r = d.get('r', Y.XmlText), p = new Y.XmlText()
        e.insert(0, [new Y.XmlElement('br')])
        e.setAttribute('b', '1'); e.setAttribute('a', {z: 1, y: 2})
        r.insertEmbed(0, p); r.setAttribute('dir', 'ltr')
        p.insert(0, 'Lexical'); p.setAttribute('__type', 'paragraph')
        p.insertEmbed(0, new Y.Map([['__text', 't']]))
        """
    )
    found = json.loads(roots_as_json(update))
    assert found == {
        "e": {"type": "xml", "value": "<br></br>", "attributes": {"a": {"z": 1, "y": 2}, "b": "1"}},
        "r": {
            "type": "xml",
            "or": ["text"],
            "value": '<#text __type="paragraph">{"__text":"t"}Lexical</#text>',
            "attributes": {"dir": "ltr"},
        },
    }


def test_xml_is_written_as_yjs_writes_it() -> None:
    """But for values that are no text, of which `toString` makes `[object Object]`."""
    update = from_yjs(
        """
        const x = d.getXmlFragment('x'), p = new Y.XmlElement('p'), t = new Y.XmlText()
        x.insert(0, [p, new Y.XmlHook('hook')])
        const values = {b: '1', a: '"q"<', n: 5, t: true, z: null, f: 1.5}
        Object.keys(values).forEach(name => p.setAttribute(name, values[name]))
        p.insert(0, [t, new Y.XmlElement('br')])
        t.insert(0, 'hel<lo'); t.format(0, 2, {bold: true})
        t.format(1, 2, {link: {target: 'y', href: 'x'}, em: {}})
        const said = p.toString()
        p.setAttribute('l', [{columnName: 'kind', value: ['a', 'b']}])
        t.insertEmbed(6, {image: 'i', b: [1, -0]}); x.get(1).set('k', {b: 1, a: 2})
        d.getMap('expected').set('x', said)
        """
    )
    found = json.loads(roots_as_json(update))
    said = found["expected"]["value"]["x"]
    assert said.startswith('<p a=""q"<" b="1" f="1.5" n="5" t="true" z="null"><bold>h</bold>')
    assert found["x"]["value"] == (
        said.replace(' f="1.5"', ' f="1.5" l="[{"columnName":"kind","value":["a","b"]}]"').replace(
            "lo<br>", 'lo{"image":"i","b":[1,0]}<br>'
        )
        + '<hook data-yjs-hook="hook" k="{"b":1,"a":2}"></hook>'
    )
    assert len({roots_as_json(update) for _ in range(10)}) == 1


def test_half_an_emoji_deleted_is_shown_as_yjs_shows_it() -> None:
    # As it is in the log: pycrdt, given this, would shift what follows.
    update = from_yjs(
        """
        const parts = []; d.on('update', u => parts.push(u))
        const t = d.getText('t'); t.insert(0, 'a😀b'); t.delete(2, 1); t.insert(2, 'c')
        const merged = Y.mergeUpdates(parts)
        console.log(Buffer.from(merged).toString('hex')); process.exit(0)
        """
    )
    assert roots(update) == {"t": {"type": "text", "value": "a\ufffdcb"}}


# Values


def test_values_become_what_json_can_hold() -> None:
    update = from_yjs(
        """
        const m = d.getMap('m')
        m.set('whole', 3); m.set('half', 2.5); m.set('negative zero', -0); m.set('large', 1e300)
        m.set('nan', NaN); m.set('infinity', -Infinity); m.set('undefined', undefined)
        m.set('null', null); m.set('true', true); m.set('big', 2n ** 62n); m.set('small big', 5n)
        m.set('bytes', new Uint8Array([0, 1, 255])); m.set('subdocument', new Y.Doc({guid: 'g'}))
        m.set('object', {a: [1, {b: null}]}); m.set('text', new Y.Text('t'))
        m.set('map', new Y.Map([['array', Y.Array.from([1, 'x'])]]))
        m.set('xml', new Y.XmlElement('p')); m.set('xml text', new Y.XmlText('<i>'))
        """
    )
    written = roots_as_json(update)

    assert json.loads(written)["m"]["value"] == {
        "whole": 3,
        "half": 2.5,
        "negative zero": 0,
        "large": 1e300,
        "nan": None,
        "infinity": None,
        "undefined": None,
        "null": None,
        "true": True,
        "big": str(2**62),
        "small big": 5,
        "bytes": {"$bytes": "AAH/"},
        "subdocument": {"$doc": "g"},
        "object": {"a": [1, {"b": None}]},
        "text": "t",
        "map": {"array": [1, "x"]},
        "xml": "<p></p>",
        "xml text": "<i>",
    }
    assert b'"whole":3,' in written
    assert b"NaN" not in written and b"Infinity" not in written


def test_keys_keep_their_order_and_odd_json_is_shown() -> None:
    update = from_yjs(
        """
        d.getMap('m').set('o', {b: 1, a: {z: [{y: 1, x: 2n ** 60n}], c: [undefined, true]}})
        d.getArray('a').push([{b: 1, a: -0}, [{d: 1.5, c: NaN, b: new Uint8Array([1])}]])
        const t = d.getText('t')
        t.insert(0, 'x', {link: {title: '\\u{1f680}'[0], href: 'h'}})
        t.insertEmbed(0, {id: 1e19, b: 5e-324, a: []})
        const beta = new Y.Item(Y.createID(5, 0), null, null, null, null,
            d.getArray('j'), null, new Y.ContentJSON([{b: 1, a: 2}, undefined, 'three', 4]))
        d.transact(transaction => beta.integrate(transaction, 0))
        """
    )
    written = roots_as_json(update).decode()
    for part in (
        f'"value":{{"o":{{"b":1,"a":{{"z":[{{"y":1,"x":"{2**60}"}}],"c":[null,true]}}}}}}',
        '"value":[{"b":1,"a":0},[{"d":1.5,"c":null,"b":{"$bytes":"AQ=="}}]]',
        r'"delta":[{"insert":{"id":1e+19,"b":5e-324,"a":[]}},'
        r'{"insert":"x","attributes":{"link":{"title":"\ud83d","href":"h"}}}]',
        '"j":{"type":"array","value":[{"b":1,"a":2},null,"three",4]}',
    ):
        assert part in written
    assert json.loads(written)["a"]["type"] == "array"
    assert len({roots_as_json(update) for _ in range(10)}) == 1


def test_an_array_holds_every_kind_of_value_too() -> None:
    update = from_yjs(
        "d.getArray('a').insert(0, [1, 2.5, NaN, null, {big: 2n ** 62n}, new Uint8Array([7]), "
        "{a: 1}, [1], 'x', new Y.Text('t'), new Y.Doc({guid: 'g'}), new Y.XmlElement('p')])"
    )
    assert roots(update)["a"]["value"] == [
        *(1, 2.5, None, None, {"big": str(2**62)}, {"$bytes": "Bw=="}, {"a": 1}, [1], "x", "t"),
        *({"$doc": "g"}, "<p></p>"),
    ]


@pytest.mark.parametrize("number", [SAFE_INTEGER_MAX, -SAFE_INTEGER_MAX])
def test_integers_keep_all_their_digits(number: int) -> None:
    doc: Doc[Any] = Doc()
    doc["m"] = Map({"n": number})
    assert values(doc) == {"m": {"n": number}}
    assert isinstance(values(doc)["m"]["n"], int)


def test_what_is_written_is_the_same_each_time() -> None:
    doc: Doc[Any] = Doc()
    doc["m"] = Map({f"key {number}": number for number in range(50)})
    update = doc.get_update()
    assert len({roots_as_json(update) for _ in range(5)}) == 1


def nested(levels: int) -> bytes:
    """Return an update with arrays of JSON in one another."""
    value = b"\x75\x01" * levels + b"\x7e"
    item = b"\x28" + b"\x01" + var_string("m") + var_string("k") + b"\x01" + value
    return b"\x01\x01" + write_var_uint(7) + b"\x00" + item + b"\x00"


def test_nesting_goes_as_deep_as_json_readers_go() -> None:
    update = nested(DEPTH_MAX - 1)
    inspect(update)
    value = json.loads(roots_as_json(update))["m"]["value"]["k"]
    depth = 0
    while value is not None:
        (value,) = value
        depth += 1
    assert depth == DEPTH_MAX - 1


def test_deeper_nesting_is_refused_with_advice() -> None:
    update = nested(DEPTH_MAX + 1)
    inspect(update)
    with pytest.raises(BadRequest, match="get it as application/octet-stream"):
        roots_as_json(update)


def test_deeply_nested_types_are_refused_as_well() -> None:
    doc: Doc[Any] = Doc()
    inner: Map[Any] = doc.get("m", type=Map)
    for _ in range(DEPTH_MAX + 50):
        inner["k"] = Map()
        inner = inner["k"]
    with pytest.raises(BadRequest):
        roots_as_json(doc.get_update())


def test_a_large_array_takes_no_quadratic_time() -> None:
    """Read one by one, 40,000 maps took 17 s; the time-out of the test would end that."""
    doc: Doc[Any] = Doc()
    array = doc.get("a", type=Array)
    with doc.transaction():
        for _ in range(40_000):
            array.insert(0, Map())
    assert roots(doc.get_update())["a"]["value"] == [{}] * 40_000


def test_no_number_is_beyond_json() -> None:
    doc: Doc[Any] = Doc()
    doc["a"] = Array([math.inf, -math.inf, math.nan, 1e308])
    json.loads(roots_as_json(doc.get_update()), parse_constant=lambda name: pytest.fail(name))


def test_types_agree_with_yjs_after_random_editing() -> None:
    update = from_yjs(
        """
        let seed = 7; const random = n => (seed = (seed * 1103515245 + 12345) % 2147483648) % n
        const docs = [0, 1, 2].map(i => { const x = new Y.Doc(); x.clientID = i + 1; return x })
        for (let step = 0; step < 600; step++) {
            const x = docs[random(3)], t = x.getText('t'), a = x.getArray('a'), m = x.getMap('m')
            switch (random(6)) {
                case 0: t.insert(random(t.length + 1), 'ab'); break
                case 1: if (t.length) t.delete(random(t.length), 1); break
                case 2: a.insert(random(a.length + 1), [step, new Y.Array()]); break
                case 3: if (a.length) a.delete(random(a.length), 1); break
                case 4: m.set('k' + random(5), new Y.Text('v' + step)); break
                case 5: Y.applyUpdate(docs[random(3)], Y.encodeStateAsUpdate(x)); break
            }
        }
        docs.forEach(x => Y.applyUpdate(d, Y.encodeStateAsUpdate(x)))
        d.getMap('expected').set('json', JSON.stringify(
            {t: d.getText('t'), a: d.getArray('a'), m: d.getMap('m')}))
        """
    )
    found = {name: root["value"] for name, root in roots(update).items()}
    assert json.loads(found.pop("expected")["json"]) == found
    assert types(update) == {"a": "array", "expected": "map", "m": "map", "t": "text"}
