"""What the gateway needs inside vLLM: the `attested` load format and its evidence.

This folder depends on nothing but the standard library and what every vLLM image has
(vllm, torch), and on nothing else of this project, so that it can be copied into a
stock image. vLLM finds it through two entry points and uses it only when VLLM_PLUGINS
names them: `attested` (group `vllm.general_plugins`) and `attested_evidence` (group
`vllm.endpoint_plugins`).
"""

__all__ = ["LOAD_FORMAT", "register"]

LOAD_FORMAT = "attested"


def register() -> None:
    """Make `--load-format attested` known to this process; may be called again.

    vLLM calls it in the API server, in the engine core and in every worker. It only
    logs a plug-in that fails to load, but then refuses the unknown load format.
    """
    from vllm.model_executor.model_loader import (  # noqa: PLC0415 - see below
        register_model_loader,
    )

    # Here and not above: reading the entry points must not import all of vLLM.
    from .loader import AttestedLoader  # noqa: PLC0415

    register_model_loader(LOAD_FORMAT)(AttestedLoader)
