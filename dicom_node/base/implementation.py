"""How the node names its own software to peers and in the files it writes (PS3.7 D.3.3.2, PS3.10 7.1)."""

from __future__ import annotations

IMPLEMENTATION_CLASS_UID = "2.25.222914473541170968346251736412950723811"
IMPLEMENTATION_VERSION_NAME = "PRIMA_NODE"
