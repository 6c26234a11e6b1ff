"""msgpack with limits: bytes in, plain values out, one exception for everything that is wrong.

``unpackb`` is called per frame and never re-used after an error (an Unpacker that is crashes
msgpack before 1.2.1). Source: docs/PROTOCOL.md, "Encoding".
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

from broker.wire.errors import Code, WireError
from broker.wire.limits import ARRAY_ITEMS_MAX, MAP_PAIRS_MAX

_unpackb: Final = msgpack.unpackb

#: Encode one value. A bound method, since it stands on the hot path; one thread at a time.
Packer = msgpack.Packer


def unpack_request(frame: bytes) -> Any:
    """Decode one request frame; arrays and maps over the limits are refused unbuilt.

    Errors: ``bad_request`` for anything that is not one complete msgpack value in UTF-8.
    """
    try:
        return _unpackb(
            frame,
            max_array_len=ARRAY_ITEMS_MAX,
            max_map_len=MAP_PAIRS_MAX,
            max_ext_len=0,
            use_list=False,
        )
    except Exception:  # noqa: BLE001 - seven types come out of bad input, all mean the same
        raise WireError(
            Code.BAD_REQUEST, "the frame is not one msgpack value: send [id, command, token, args]"
        ) from None


def unpack_reply(frame: bytes) -> Any:
    """Decode one reply frame from a broker that is trusted to respect ``REPLY_BYTES_MAX``.

    Errors: ``bad_request`` when the peer does not speak this protocol.
    """
    try:
        return _unpackb(frame, max_ext_len=0)
    except Exception:  # noqa: BLE001 - as above
        raise WireError(
            Code.BAD_REQUEST, "the reply is not msgpack: is this a Kotak broker?"
        ) from None
