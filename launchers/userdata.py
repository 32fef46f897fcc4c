"""Where the user's own data is kept: what studies taught, and engines that were installed for him."""

import os
from pathlib import Path


def user_data(kind: str) -> Path:
    """`$XDG_DATA_HOME/goodtune/<kind>`, by default below ~/.local/share. It need not be there."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "goodtune" / kind
