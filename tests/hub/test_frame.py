"""Frames: what is on the wire, and that it is made once."""

from __future__ import annotations

import json

import pytest
from websockets.frames import Frame as Parsed
from websockets.frames import Opcode
from websockets.streams import StreamReader

from secureconnect.hub.frame import Frame, gap_frame, history_frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_the_websocket_form_is_one_unmasked_text_frame(size: int) -> None:
    frame = Frame(b"x" * size, "room:1", "said", 1)
    reader = StreamReader()
    reader.feed_data(frame.ws)
    reader.feed_eof()
    parser = Parsed.parse(reader.read_exact, mask=False, max_size=None)
    with pytest.raises(StopIteration) as parsed:
        next(parser)
    assert parsed.value.value == Parsed(Opcode.TEXT, b"x" * size, fin=True)
    assert frame.ws is frame.ws, "made once"


def test_text_is_decoded_once() -> None:
    frame = Frame('{"ü":1}'.encode(), "room:1", "said", 1)
    assert frame.text == '{"ü":1}'
    assert frame.text is frame.text


def test_envelopes_are_json_whatever_the_names_contain() -> None:
    frame = history_frame('user:"x"', 'a"b', position="e-1", data=b'{"n":1}')
    assert json.loads(frame.payload) == {"event": 'a"b', "channel": 'user:"x"', "position": "e-1", "data": {"n": 1}}
    gap = gap_frame("room:1", after=7, cause="retention")
    assert json.loads(gap.payload)["data"] == {"channel": "room:1", "after": 7, "cause": "retention"}
    assert gap.event == "gap"
