"""Configuration: one pydantic model per section, and what is generated from them."""

from dubito.config.load import config_hash, load_config, parse_config
from dubito.config.schema import Config

__all__ = ["Config", "config_hash", "load_config", "parse_config"]
