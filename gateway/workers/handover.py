"""Settings on their way from a gateway to its workers."""

from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from attest.errors import ConfigurationError
from gateway.settings import Settings

__all__ = ["restore_settings", "share_of"]


def share_of(settings: Settings) -> dict[str, Any]:
    """The settings of one worker as JSON: its share of what the gateway takes at once.

    Shares are rounded up, so that all together may take a little more; and since the
    kernel spreads connections without counting requests, one worker may refuse what
    another had room for. Secrets are named by file, here as in the settings.
    """
    limits, count = settings.limits, settings.workers
    per_key = limits.max_concurrency_per_key
    shares = {
        "max_concurrency": -(-limits.max_concurrency // count),
        "max_concurrency_per_key": None if per_key is None else -(-per_key // count),
    }
    changed = limits.model_copy(update=shares)
    return settings.model_copy(update={"limits": changed}).model_dump(mode="json")


class _Given(Settings):
    """Settings that are given as a whole: no environment, no file."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def restore_settings(dumped: dict[str, Any]) -> Settings:
    """The settings that `share_of` dumped; they were checked together before.

    Raises:
        ConfigurationError: they are none.
    """
    try:
        return _Given(**dumped)
    except ValidationError as error:
        where = {".".join(map(str, item["loc"])) for item in error.errors()}
        raise ConfigurationError(
            f"settings: {', '.join(sorted(where))}: not as they were handed over"
        ) from None
