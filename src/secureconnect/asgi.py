"""`secureconnect.asgi:app`: pages and operations as an ASGI application, for hypercorn's trio worker or any other trio server.

    hypercorn --worker-class trio secureconnect.asgi:app

Settings come from the environment as for `secureconnect serve`. Its lifespan opens the stores and runs the node; it has no
native sockets (those are our own listener's), clients use the long-poll.
"""

from __future__ import annotations

from typing import Any

from secureconnect.app import AsgiApp

app: Any = AsgiApp()
"""Made at import, opened by its lifespan."""
