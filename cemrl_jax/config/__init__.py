"""The configuration of a run: schema, rules, JSON form."""

from cemrl_jax.config.codec import (
    TABLES,
    from_dict,
    load,
    named,
    read_json,
    save,
    to_dict,
)
from cemrl_jax.config.fields import (
    ConfigError,
    field_docs,
    field_paths,
    get_field,
    nearest,
    type_problems,
)
from cemrl_jax.config.schema import (
    CheckpointConfig,
    Config,
    ElboConfig,
    EncoderConfig,
    EnvConfig,
    EvaluationConfig,
    LoggingConfig,
    ReplayConfig,
    RolloutConfig,
    SACConfig,
    TrainConfig,
)

__all__ = [
    "TABLES",
    "CheckpointConfig",
    "Config",
    "ConfigError",
    "ElboConfig",
    "EncoderConfig",
    "EnvConfig",
    "EvaluationConfig",
    "LoggingConfig",
    "ReplayConfig",
    "RolloutConfig",
    "SACConfig",
    "TrainConfig",
    "field_docs",
    "field_paths",
    "from_dict",
    "get_field",
    "load",
    "named",
    "nearest",
    "read_json",
    "save",
    "to_dict",
    "type_problems",
]
