"""Market files: what their names and their contents say they are."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from spot_operator.market import InvalidMarket, Market, market_from_table, market_from_trace
from spot_plugin.errors import PluginError

SUFFIXES = (".json", ".json.gz", ".csv", ".csv.gz")


def read_markets(paths: Sequence[str]) -> tuple[Market, ...]:
    """Files and folders of files, in the order of their names."""
    files = [file for path in paths for file in _files(Path(path))]
    return tuple(_market(file) for file in files)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise PluginError(
            f"{path}: no such market file", do="name a file, a folder, or `synthetic` with --market"
        )
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES))
    if not found:
        raise PluginError(f"{path}: no market files ({', '.join(SUFFIXES)}) in this folder")
    return found


def _market(path: Path) -> Market:
    name = path.name.partition(".")[0]
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode()
        if ".json" not in path.suffixes and not text.lstrip().startswith("{"):
            return market_from_table(text, name=name)
        trace = json.loads(text)
        if not isinstance(trace, dict):
            raise InvalidMarket(f"{name}: expected an object")
        return market_from_trace(trace, name=name)
    except InvalidMarket as error:
        raise PluginError(
            f"{path}: {error}",
            do="docs/plugin.md describes both formats: runs as JSON, and seconds,available[,price]",
        ) from error
    except (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PluginError(f"{path}: cannot be read: {error}") from error
