"""Policies, and what a bundle does not meet of them."""

from collections.abc import Iterator, Mapping
from typing import Any

from fakes.vectors.signed import PROVEN, WORLD, Expected, case, key
from fakes.world import NOW, World, make_world

from attest.claims import SystemPrompt

__all__ = ["TRAINED", "demanded"]

_MEASURED = {
    "method": "lca-trapezoid/1",
    "layers": ["0.1", "0.7", "0.2"],
    "inBand": "0.7",
}


def _held(steps: Any, *, censored: bool = False) -> dict[str, Any]:
    worst = {"attack": "lora", "stepsBelowHalf": steps, "censored": censored}
    return {"suite": "quick/1", "measured": {"worst": worst}}


PRINCIPLES = [
    {
        "id": "honesty",
        "profile": {**_MEASURED, "valid": True},
        "resistance": _held(200),
    },
    {
        "id": "privacy",
        "profile": {**_MEASURED, "valid": False},
        "resistance": _held(400, censored=True),
    },
    {"id": "candour"},
]

TRAINED: World = make_world(
    keys=[key(name) for name in ("authority", "issuer", "session")],
    predicate={
        "constitution": {"id": "civic", "version": "1.4.0"},
        "principles": PRINCIPLES,
    },
    certificate={"jti": "key_4"},
    boot={"jti": "boot_4"},
)


def demanded() -> Iterator[dict[str, Any]]:
    """The cases: each changes the policy, and nothing else."""
    two = [key("authority").public.jwk, key("second authority").public.jwk]
    yield _case("the default", {}, PROVEN)
    yield _case("one of two authorities", {"authorities": two}, PROVEN)
    yield _case(
        "two of two authorities",
        {"authorities": two, "threshold": 2},
        Expected("false", ("manifest.signature",), "manifest"),
    )
    yield _case(
        "another authority",
        {"authorities": two[1:]},
        Expected("false", ("manifest.signature",), "manifest"),
    )
    yield _case("a higher tier", {"min_tier": "T2"}, _missed("tier"))
    yield _case("another outcome", {"outcomes": ["truncated"]}, _missed("outcome"))
    yield _case(
        "a governed prompt", {"system_prompts": [SystemPrompt.GOVERNED]}, PROVEN
    )
    yield _case(
        "no prompt at all", {"system_prompts": ["absent"]}, _missed("system_prompt")
    )
    yield _case("an age of 0 s", {"max_age_seconds": 0}, PROVEN)
    yield _case(
        "a current status list, where none is named",
        {"max_status_age_seconds": 1},
        PROVEN,
    )
    yield from _constitutions()
    yield from _principles()
    yield _case(
        "several at once",
        {"min_tier": "T3", "principles": [{"id": "x"}], "constitutions": []},
        _missed("tier", "principle", "constitution"),
    )


def _constitutions() -> Iterator[dict[str, Any]]:
    for versions, met in (
        (">=1.2,<2", True),
        ("=1.4", True),
        (">1.4", False),
        ("<=1.4.0", True),
        ("<1.4", False),
        (">=1.10", False),
    ):
        yield _case(
            f"civic {versions}",
            {"constitutions": [{"id": "civic", "versions": versions}]},
            PROVEN if met else _missed("constitution"),
        )
    yield _case("civic in any version", {"constitutions": [{"id": "civic"}]}, PROVEN)
    others = [{"id": "civil"}, {"id": "civic", "versions": "<1"}]
    yield _case(
        "other constitutions", {"constitutions": others}, _missed("constitution")
    )


def _principles() -> Iterator[dict[str, Any]]:
    for name, rule, word in (
        ("named", {"id": "candour"}, ""),
        ("not named", {"id": "thrift"}, "principle"),
        ("absorbed", {"id": "honesty", "min_in_band": "0.7"}, ""),
        ("absorbed less", {"id": "honesty", "min_in_band": "0.71"}, "absorption"),
        ("profile not valid", {"id": "privacy", "min_in_band": "0.1"}, "absorption"),
        ("no profile", {"id": "candour", "min_in_band": "0"}, "absorption"),
        ("resists", {"id": "honesty", "min_steps_below_half": 200}, ""),
        ("resists less", {"id": "honesty", "min_steps_below_half": 201}, "resistance"),
        ("censored", {"id": "privacy", "min_steps_below_half": 400}, ""),
        ("not measured", {"id": "candour", "min_steps_below_half": 0}, "resistance"),
    ):
        found = _missed(word) if word else PROVEN
        yield _case(f"principle {name}", {"principles": [rule]}, found)


def _missed(*words: str) -> Expected:
    return Expected("false", tuple(f"policy.{word}" for word in words), "policy")


def _case(name: str, policy: Mapping[str, Any], expected: Expected) -> dict[str, Any]:
    return {**case(name, {}, expected), "policy": policy}


assert TRAINED.now == WORLD.now == NOW
