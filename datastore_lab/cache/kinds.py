"""What kind of thing an object is to the walk: code, a wrapper, a value that can't change."""

from __future__ import annotations

import types
from typing import Any

from datastore_lab.cache import sources
from datastore_lab.cache.guards import MISSING, cell_value
from datastore_lab.cache.hashing import immutable, importable

CLASS_NOISE = {
    "__dict__", "__weakref__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__",
    "__doc__", "__annotations__", "__annotate_func__", "__annotations_cache__", "__abstractmethods__",
    "_abc_impl", "__classcell__", "_member_map_", "_value2member_map_",
    "_hashable_values_", "_unhashable_values_", "_unhashable_values_map_", "__slotnames__",
    "__attrs_attrs__", "__attrs_props__", "_abc_registry", "_abc_cache", "_abc_negative_cache",
}  # fmt: skip
"""Attributes of a class that say nothing, or nothing new, about what it does."""

MODULE_NOISE = {
    "__name__", "__doc__", "__file__", "__loader__", "__spec__", "__cached__", "__builtins__",
    "__package__", "__path__", "__annotations__", "__annotate__", "__conditional_annotations__",
}  # fmt: skip
"""Names in a module that say where it is, not what it does."""

_FIXED = (property, staticmethod, classmethod)


def home(obj: Any) -> str:
    """Name the module whose code an object is; not the one that a wrapper claims."""
    if isinstance(obj, types.FunctionType):
        name = str(obj.__globals__.get("__name__", "__main__"))
        # (the program has another name in a process that it has spawned)
        return "__main__" if name == "__mp_main__" else name
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


def is_wrapper(obj: Any) -> bool:
    """Tell whether an object is a function that a library has made around others, as by a decorator."""
    return isinstance(obj, types.FunctionType) and not sources.is_local(home(obj)) and not importable(obj)


def held(function: types.FunctionType) -> tuple[Any, ...]:
    """Give what a function that a library has made holds: closure, defaults, and what it wraps."""
    if function.__code__.co_qualname == "singledispatch.<locals>.wrapper":  # (the rest only remembers calls)
        return (dict(vars(function)["registry"]),)
    cells = [cell_value(cell) for cell in function.__closure__ or ()]
    return (cells, function.__defaults__, function.__kwdefaults__, vars(function).get("__wrapped__"))


def settings(function: Any) -> tuple[Any, frozenset[str], str]:
    """Give the function inside a cached one, the names that it leaves out, and the digest of its version."""
    keys = function._core.keys
    return keys.function, keys.ignore, keys.version
