"""``dubito status``: where a campaign stands, on one screen."""

from dubito.cli.status.files import campaign_name
from dubito.cli.status.show import show, watch
from dubito.cli.status.standing import Watcher

__all__ = ["Watcher", "campaign_name", "show", "watch"]
