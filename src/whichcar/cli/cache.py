"""`whichcar cache`: the decoded images that training keeps on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from whichcar.cli.render import columns
from whichcar.cli.streams import say, say_lines

if TYPE_CHECKING:
    from whichcar.data.decoded_cache import CacheInfo


@click.group(invoke_without_command=True)
@click.pass_context
def cache(context: click.Context) -> None:
    """List or clear the decoded images that training keeps on disk.

    \b
    Examples:
      whichcar cache
      whichcar cache clear
    """
    if context.invoked_subcommand is None:
        from whichcar.data.decoded_cache import list_caches
        from whichcar.environment import cache_root

        say_lines(render_caches(cache_root(), list_caches()))


@cache.command()
@click.argument("key", required=False)
def clear(key: str | None) -> None:
    """Remove the cache KEY, or all caches.

    \b
    Example:
      whichcar cache clear
    """
    from whichcar.data.decoded_cache import clear_caches

    say(f"{clear_caches(key)} removed")


def render_caches(root: Path, caches: Sequence[CacheInfo]) -> Iterator[str]:
    """Yield the decoded caches and their total size."""
    if not caches:
        yield f"{root}: no cache"
        return
    rows = [("key", "images", "size", "MB", "created")]
    for info in caches:
        created = datetime.fromtimestamp(info.created).strftime("%Y-%m-%d %H:%M")
        rows.append((info.key, str(info.images), f"{info.size[0]}x{info.size[1]}", f"{info.bytes / 1e6:.1f}", created))
    yield from columns(rows)
    yield f"{sum(info.bytes for info in caches) / 1e6:.1f} MB in {root}; remove with: whichcar cache clear [KEY]"
