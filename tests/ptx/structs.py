# SPDX-License-Identifier: Apache-2.0
"""The structs that cross from the host to a kernel, read from the headers, and their bytes."""

import ctypes
import re

_SCALARS = {
    "int": ctypes.c_int32, "bool": ctypes.c_bool, "float": ctypes.c_float,
    "double": ctypes.c_double, "int64_t": ctypes.c_int64, "uint64_t": ctypes.c_uint64,
    "int32_t": ctypes.c_int32, "uint32_t": ctypes.c_uint32,
}  # fmt: skip


def read_structs(*texts):
    """name -> ctypes class of the structs and enums in the texts of headers; a pointer is an int."""
    types, sizes = dict(_SCALARS), {}
    for text in texts:
        text = re.sub(r"//[^\n]*", "", text)
        sizes |= dict(re.findall(r"\bconstexpr\s+\w+\s+(\w+)\s*=\s*(\d+);", text))
        for name, base, body in re.findall(
            r"\b(?:struct|enum class)\s+(\w+)\s*(?::\s*(\w+)\s*)?\{([^{}]*)\}", text
        ):
            types[name] = types[base] if base else _struct(name, body, types, sizes)
    return types


def _struct(name, body, types, sizes):
    fields = []
    for member in filter(None, (m.strip() for m in body.split(";"))):
        if "(" in member:  # a pointer to a function
            fields.append((re.search(r"\(\*(\w+)\)", member)[1], ctypes.c_uint64))
            continue
        kind, names = re.fullmatch(r"(?:const\s+)?(\w+)\s*([^()]*)", member, re.DOTALL).groups()
        for declared in names.split(","):
            star, word, _, count = re.fullmatch(
                r"\s*(\*?)\s*(\w+)\s*(\[(\w+)\])?\s*", declared
            ).groups()
            each = ctypes.c_uint64 if star else types[kind]
            fields.append((word, each * int(sizes.get(count, count)) if count else each))
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def functor(*members):
    """A struct of these ctypes values, one after another as C++ lays them out."""
    fields = [(f"m{k}", type(m)) for k, m in enumerate(members)]
    return type("Functor", (ctypes.Structure,), {"_fields_": fields})(*members)
