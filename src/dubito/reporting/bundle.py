"""The one script that draws all charts of a report: Vega, Vega-Lite and vega-embed, inlined.

Bundling takes seconds, the result is always the same for one version of vl-convert, and a report is
written every iteration; hence it is kept in the user's cache folder.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

from dubito.core.errors import StorageError
from dubito.core.files import write_text
from dubito.core.logs import get_logger

log = get_logger(__name__)
_SMALLEST = 100_000  # characters; anything shorter was cut off


def cache_folder() -> Path:
    """Return where the bundle is kept: ``$XDG_CACHE_HOME/dubito``, by default ``~/.cache/dubito``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "dubito"


def vega_bundle() -> str:
    """Return the script, safe inside a ``<script>`` element."""
    path = cache_folder() / f"vega-{version('vl-convert-python')}.js"
    try:
        script = path.read_text(encoding="utf-8")
        if len(script) > _SMALLEST:
            return script
    except OSError:
        pass
    import vl_convert

    # "</script" inside a string would end the element; "<\/" means the same in JavaScript.
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", r"<\/script")
    try:
        write_text(path, script)
    except StorageError as error:
        log.info("the chart script is not cached (%s)", error)
    return script
