"""Rule tables: how each tensor of a PyTorch checkpoint becomes one of a Paddle network.

A table is a list of `Rule`s, first match wins. `*` in a name stands for any text and keeps it.
The same table read from right to left converts back.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from paddle_sam.errors import CheckpointError

State = Mapping[str, np.ndarray]

COPY = "copy"
TRANSPOSE = "transpose"  # linear weights: torch [out, in], Paddle [in, out]
UNBATCH = "unbatch"  # modulated convolutions: a leading axis of length 1 goes
DROP = "drop"  # not part of the Paddle network; kept aside so that the way back is exact
DISCARD = "discard"  # not part of the Paddle network and not kept

_FORWARD = {
    COPY: lambda array: array,
    TRANSPOSE: lambda array: array.T,
    UNBATCH: lambda array: array.squeeze(0),
}
_BACKWARD = {
    COPY: lambda array: array,
    TRANSPOSE: lambda array: np.ascontiguousarray(array.T),
    UNBATCH: lambda array: array[None],
}


@dataclass(frozen=True)
class Rule:
    """`source` (torch name) to `target` (Paddle name; the same when empty) by `action`."""

    source: str
    target: str = ""
    action: str = COPY

    @property
    def paddle_name(self) -> str:
        return self.target or self.source

    def under(self, prefix: str) -> Rule:
        """The same rule for names that begin with `prefix`."""
        return replace(self, source=prefix + self.source, target=prefix + self.paddle_name)


@dataclass
class Converted:
    """What a table made of a state dict."""

    state: dict[str, np.ndarray]
    dropped: dict[str, np.ndarray] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)


def under(prefix: str, rules: Sequence[Rule]) -> list[Rule]:
    """A table for the same names below `prefix`."""
    return [rule.under(prefix) for rule in rules]


def to_paddle(source: Mapping[str, np.ndarray], rules: Sequence[Rule], where: str) -> Converted:
    """Apply a table to every tensor of a torch state dict.

    Raises:
        CheckpointError: an entry is not a tensor of finite numbers, matches no rule or has a shape
            that its rule cannot use, or two become the same one.
    """
    result = Converted({})
    for name, array in source.items():
        if not isinstance(array, np.ndarray):
            raise CheckpointError(
                f"{where}: expected a tensor as {name}, found {type(array).__name__}"
            )
        if array.dtype.kind not in "fiub":
            raise CheckpointError(f"{where}: tensor {name} is of type {array.dtype}")
        rule, target = _match(name, rules, forward=True)
        if rule is None:
            raise CheckpointError(
                f"{where}: tensor {name} {list(array.shape)} has no place in this kind of network"
            )
        result.counts["read"] += 1
        if rule.action in (DROP, DISCARD):
            result.counts["dropped"] += 1
            if rule.action == DROP:
                result.dropped[name] = np.array(array)
            continue
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckpointError(
                f"{where}: tensor {name} holds NaN or infinity: the training diverged or the file"
                " is damaged"
            )
        _check_action(rule, array, name, where)
        if target in result.state:
            raise CheckpointError(f"{where}: two tensors become {target}, the second is {name}")
        result.state[target] = _FORWARD[rule.action](array)
        result.counts["transposed"] += rule.action == TRANSPOSE
        result.counts["renamed"] += target != name
        result.counts["written"] += 1
    return result


def to_torch(state: Mapping[str, np.ndarray], rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """The way back: Paddle state to a torch state dict, without the dropped tensors."""
    result = {}
    for name, array in state.items():
        rule, source = _match(name, rules, forward=False)
        if rule is None:
            raise CheckpointError(f"tensor {name} has no place in this kind of checkpoint")
        result[source] = _BACKWARD[rule.action](array)
    return result


def _match(name: str, rules: Sequence[Rule], forward: bool) -> tuple[Rule | None, str]:
    for rule in rules:
        if not forward and rule.action in (DROP, DISCARD):
            continue
        pattern, template = rule.source, rule.paddle_name
        if not forward:
            pattern, template = template, pattern
        if found := _compiled(pattern).fullmatch(name):
            parts = iter(found.groups())
            return rule, "".join(next(parts) if c == "*" else c for c in template)
    return None, ""


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern:
    return re.compile("(.*)".join(re.escape(part) for part in pattern.split("*")))


def _check_action(rule: Rule, array: np.ndarray, name: str, where: str) -> None:
    if rule.action == TRANSPOSE and array.ndim != 2:
        raise CheckpointError(f"{where}: tensor {name}: expected 2 axes, found {array.shape}")
    if rule.action == UNBATCH and (array.ndim != 5 or array.shape[0] != 1):
        raise CheckpointError(
            f"{where}: tensor {name}: expected shape [1, O, I, K, K], found {list(array.shape)}"
        )


def count(state: State, pattern: str) -> int:
    """How many names in `state` are of a regular expression."""
    return sum(re.fullmatch(pattern, name) is not None for name in state)
