"""What kind of thing an object is to the walk: code, a wrapper, a value that can't change."""

from __future__ import annotations

import types
from typing import Any

from datastore_lab.cache.guards import MISSING
from datastore_lab.cache.hashing import immutable

_FIXED = (property, staticmethod, classmethod)


def home(obj: Any) -> str:
    """Name the module whose code an object is; not the one that a wrapper claims."""
    if isinstance(obj, types.FunctionType):
        return str(obj.__globals__.get("__name__", "__main__"))
    owner = getattr(obj, "__objclass__", None)
    return str(getattr(obj, "__module__", None) or getattr(owner, "__module__", None) or "builtins")


def own_name(obj: Any) -> str:
    """Give the qualified name of a function or class."""
    return str(getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None) or type(obj).__qualname__)


def is_code(obj: Any) -> bool:
    """Tell whether an object counts by its code: a function, class, module or method of one."""
    return isinstance(obj, _CODE)


_CODE = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
    type,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)


def is_bound_builtin(obj: Any) -> bool:
    """Tell whether an object is a method made in C together with its object, as ``[].append``."""
    owner = getattr(obj, "__self__", None)
    return (
        isinstance(obj, types.BuiltinFunctionType)
        and owner is not None
        and not isinstance(owner, types.ModuleType)
    )


def settled(obj: Any) -> bool:
    """Tell whether it is enough to see that a name is still bound to this object."""
    return (
        obj is MISSING or is_code(obj) or isinstance(obj, _FIXED) or is_cached_function(obj) or immutable(obj)
    )


def is_cached_function(obj: Any) -> bool:
    """Tell whether an object is a function that `cached` has wrapped."""
    return hasattr(type(obj), "__cached_function__")
