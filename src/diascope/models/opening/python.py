"""`package.module:thing`: a module, what builds one, or a function that is asked for scores."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from diascope.errors import UserError
from diascope.models.black_box import BlackBox
from diascope.models.create import is_known
from diascope.models.opening import KINDS, Address, Kind, Opened

_KINDS_OF_ARGUMENT = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


def _claims(address: Address) -> bool:
    return address.content == "absent" and ":" in address.text and not is_known(address.before)


def _open(address: Address) -> Opened:
    """Import what is named, from where one stands too.

    An `nn.Module` is taken as it is. What needs no argument is called for one. A function of one
    argument is a black box: it is given images (B, C, H, W), float32 in [0, 1], and returns scores
    (B, K) or labels (B,).
    """
    thing = _imported(address)
    if isinstance(thing, nn.Module):
        return Opened(thing, "module")
    if not callable(thing):
        raise UserError(
            f"{address.text}: is a {type(thing).__name__}; an nn.Module, a factory of one, or a "
            "function of a batch of images is needed"
        )
    asked = _asked(thing)
    if asked == 1 and not inspect.isclass(thing):
        return Opened(BlackBox(thing, address.after), "callable")
    if asked:
        raise UserError(
            f"{address.text}: is missing {asked} required arguments; write a factory that takes "
            "none, or a function that takes one batch of images"
        )
    model = _called(address, thing)
    if not isinstance(model, nn.Module):
        raise UserError(f"{address.text}: returned a {type(model).__name__}, not an nn.Module")
    return Opened(model, "module")


def _asked(thing: Callable[..., Any]) -> int:
    """Return how many arguments must be given; 0 where nobody can tell."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return 0
    return sum(p.kind in _KINDS_OF_ARGUMENT and p.default is p.empty for p in parameters)


def _imported(address: Address) -> Any:
    module, name = address.before, address.after
    unknown = (
        f"{address.text}: neither a file, nor a timm name before the colon, nor a Python factory"
    )
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise UserError(unknown)
    with _from_here():
        try:
            thing = getattr(importlib.import_module(module), name, None)
        except ModuleNotFoundError as error:
            raise UserError(f"{unknown} ({error})") from None
        except (Exception, SystemExit) as error:  # whatever the user's own code raises
            raise _failing(address, error) from None
    if thing is None:
        raise UserError(f"{address.text}: the module {module} has no '{name}'")
    return thing


def _called(address: Address, factory: Callable[[], Any]) -> Any:
    with _from_here():
        try:
            return factory()
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's own code raises
            raise _failing(address, error) from None


def _failing(address: Address, error: BaseException) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return UserError(f"{address.text}: fails with {reason}")


@contextmanager
def _from_here() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


KINDS.register("python")(Kind(_claims, _open))
