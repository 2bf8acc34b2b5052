# SPDX-License-Identifier: Apache-2.0
"""Reads the PTX text that nvcc writes: variables, functions, parameters, registers, instructions.

module = Module(text)
entry = module.entry("LangevinStep<float>")     # by part of its demangled name
for instruction in entry.instructions: ...
"""

import re
import shutil
import subprocess
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

TYPE_BITS = {"pred": 1} | {f"{kind}{bits}": bits for kind in "bsuf" for bits in (8, 16, 32, 64)}

_FUNCTION = re.compile(
    r"\.(?P<kind>entry|func)\b\s*(?:\((?P<result>[^)]*)\))?\s*(?P<name>[\w$]+)\s*"
    r"(?:\((?P<params>[^)]*)\))?(?P<directives>[^{;(]*)(?P<end>[{;])"
)
_VARIABLE = re.compile(r"\.(?:global|const|shared)\b[^;]*;")
_LABEL = re.compile(r"([\w$%]+)\s*:(?!:)")
_LINE_DIRECTIVE = re.compile(r"\.(?:loc|file)\b[^\n]*")
_INSTRUCTION = re.compile(r"(?:@(!?)([%\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)", re.DOTALL)
_FLOAT = re.compile(r"0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}")
_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|\d+)U?")


@cache
def _demangle_all(names):
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    if tool is None:
        return names
    out = subprocess.run([tool], input="\n".join(names), capture_output=True, text=True, check=True)
    return tuple(out.stdout.splitlines())


def demangle(names):
    """The C++ names of mangled ones; the same names where there is no tool to ask."""
    return _demangle_all(tuple(names))


@dataclass(frozen=True)
class Operand:
    """One operand. What `value` holds depends on `kind`:

    register a name | not the name of a negated predicate | symbol a name | sink nothing
    integer an int | float its bits | vector a tuple of operands | pair two operands (a|b)
    memory the operand of the base, with `offset` in bytes
    """

    kind: str
    value: object = None
    offset: int = 0


@dataclass(frozen=True)
class Variable:
    space: str
    type: str
    name: str
    size: int  # bytes
    align: int
    is_array: bool
    values: tuple | None  # of an initialised module variable


@dataclass(frozen=True)
class Instruction:
    line: int
    text: str
    guard: str | None
    guard_negated: bool
    opcode: str
    operands: tuple

    @cached_property
    def parts(self):
        return tuple(self.opcode.split("."))

    @property
    def type(self):
        """The last part that is a type: that of the operands, or of a conversion's source."""
        return next((p for p in reversed(self.parts) if p in TYPE_BITS), None)


def _variable(text):
    """A declaration such as `.param .align 8 .b8 name[56]` or `.const .f32 name = 0f3F800000`."""
    head, _, initial = text.strip().partition("=")
    match = re.search(r"([\w$%]+)((?:\s*\[\d*\])*)\s*$", head)
    words = re.findall(r"\.(\w+)", head[: match.start()])
    kind = next(w for w in reversed(words) if w in TYPE_BITS)
    space = next(w for w in words if w in ("param", "local", "shared", "global", "const"))
    align = re.search(r"\.align\s+(\d+)", head)
    vector = next((int(w[1:]) for w in words if w in ("v2", "v4")), 1)
    bytes_each = TYPE_BITS[kind] // 8 * vector
    count = 1
    for n in re.findall(r"\[(\d*)\]", match[2]):
        count *= int(n or 0)
    values = None
    if initial.strip():
        values = tuple(operand(t) for t in re.split(r"[{},\s]+", initial) if t)
    is_array = bool(match[2].strip())
    return Variable(space, kind, match[1], bytes_each * count, int(align[1]) if align else bytes_each,
                    is_array, values)  # fmt: skip


def _split(text):
    """Split at the commas outside all brackets."""
    parts, depth, begin = [], 0, 0
    for i, c in enumerate(text):
        if c in "{[(":
            depth += 1
        elif c in "}])":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(text[begin:i])
            begin = i + 1
    parts.append(text[begin:])
    return [p.strip() for p in parts if p.strip()]


@lru_cache(maxsize=65536)
def operand(text):
    """Parse one operand."""
    if text[0] in "{(":
        return Operand("vector", tuple(operand(t) for t in _split(text[1:-1])))
    if text[0] == "[":
        base, sign, offset = re.fullmatch(
            r"\[\s*(-?[^\s+-]+)\s*(?:([+-])\s*(\S+))?\s*\]", text
        ).groups()
        distance = int(offset, 0) if offset else 0
        return Operand("memory", operand(base), -distance if sign == "-" else distance)
    if "|" in text:
        return Operand("pair", tuple(operand(t.strip()) for t in text.split("|")))
    if text[0] == "!":
        return Operand("not", text[1:])
    if text == "_":
        return Operand("sink")
    if text[0] == "%":
        return Operand("register", text)
    if _FLOAT.fullmatch(text):
        return Operand("float", int(text[2:], 16))
    if _INTEGER.fullmatch(text):
        return Operand("integer", int(text.rstrip("U"), 0))
    if re.fullmatch(r"[A-Za-z_$][\w$]*", text):
        return Operand("symbol", text)
    raise NotImplementedError(f"operand {text}")


class Function:
    """An .entry or a .func; its body is read on first use."""

    def __init__(self, module, match, body, body_offset):
        self.module = module
        self.is_entry = match["kind"] == "entry"
        self.name = match["name"]
        self.params = tuple(_variable(t) for t in _split(match["params"] or ""))
        self.results = tuple(_variable(t) for t in _split(match["result"] or ""))
        self.directives = match["directives"].strip()
        self._body, self._offset = body, body_offset

    def __repr__(self):
        return f"<{'entry' if self.is_entry else 'func'} {self.demangled}>"

    @property
    def demangled(self):
        return self.module.demangled[self.name]

    @property
    def instructions(self):
        return self._read[0]

    @property
    def labels(self):
        """label -> index of the instruction that follows it."""
        return self._read[1]

    @property
    def registers(self):
        """Declared registers: name -> type; `%f<3>` has been written out."""
        return self._read[2]

    @property
    def variables(self):
        """.local, .shared and .param variables of the body."""
        return self._read[3]

    @property
    def branch_tables(self):
        """label of a .branchtargets list -> its labels."""
        return self._read[4]

    @cached_property
    def _read(self):
        instructions, labels, registers, variables, tables = [], {}, {}, [], {}
        # Call sequences declare the same names again and again; each scope's get a number.
        scopes, n_scopes, body, at = [{}], 0, self._body, 0

        def rename(match):
            return next((s[match[0]] for s in reversed(scopes) if match[0] in s), match[0])

        while at < len(body):
            if body[at].isspace():
                at += 1
            elif body[at] == "{":
                n_scopes += 1
                scopes.append({})
                at += 1
            elif body[at] == "}":
                scopes.pop()
                at += 1
            elif match := _LINE_DIRECTIVE.match(body, at):
                at = match.end()
            elif match := _LABEL.match(body, at):
                labels[match[1]] = len(instructions)
                at = match.end()
            else:
                end = body.index(";", at)
                text, start, at = body[at:end].strip(), at, end + 1
                if text.startswith(".branchtargets"):
                    label = next(k for k in reversed(labels))
                    tables[label] = tuple(_split(text.removeprefix(".branchtargets")))
                elif text.startswith(".reg"):
                    kind, names = re.fullmatch(r"\.reg\s+\.(\w+)\s+(.*)", text, re.DOTALL).groups()
                    for name in _split(names):
                        many = re.fullmatch(r"(.*)<(\d+)>", name)
                        numbered = (
                            [f"{many[1]}{i}" for i in range(int(many[2]))] if many else [name]
                        )
                        registers.update(dict.fromkeys(numbered, kind))
                elif re.match(r"\.(param|local|shared)\b", text):
                    variable = _variable(text)
                    if len(scopes) > 1:
                        scopes[-1][variable.name] = f"{variable.name}${n_scopes}"
                        text = re.sub(rf"\b{re.escape(variable.name)}\b", rename, text)
                    variables.append(_variable(text))
                elif not text.startswith(".pragma"):
                    if any(scopes[1:]):
                        text = re.sub(r"(?<![%\w$])[A-Za-z_$][\w$]*", rename, text)
                    negated, guard, opcode, rest = _INSTRUCTION.fullmatch(text).groups()
                    line = self.module.line_of(self._offset + start)
                    instructions.append(
                        Instruction(line, " ".join(text.split()), guard, negated == "!", opcode,
                                    tuple(operand(t) for t in _split(rest)))
                    )  # fmt: skip
        return instructions, labels, registers, variables, tables


class Module:
    """A PTX text: its functions with a body, and its variables."""

    def __init__(self, text):
        # Comments become blanks, so that positions keep their lines.
        text = re.sub(
            r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.DOTALL
        )
        self._line_starts = [0, *(m.end() for m in re.finditer("\n", text))]
        self.functions, outside, at = {}, [], 0
        while match := _FUNCTION.search(text, at):
            outside.append(text[at : match.start()])
            at = match.end()
            if match["end"] == "{":
                depth = 1
                for brace in re.finditer(r"[{}]", text[at:]):
                    depth += 1 if brace[0] == "{" else -1
                    if depth == 0:
                        break
                end = at + brace.start()
                self.functions[match["name"]] = Function(self, match, text[at:end], at)
                at = end + 1
        outside.append(text[at:])
        self.variables = tuple(_variable(m[0][:-1]) for t in outside for m in _VARIABLE.finditer(t))

    def line_of(self, offset):
        return bisect_right(self._line_starts, offset)

    @cached_property
    def demangled(self):
        names = list(self.functions)
        return dict(zip(names, demangle(names), strict=True))

    @property
    def entries(self):
        return [f for f in self.functions.values() if f.is_entry]

    def entry(self, *parts):
        """The one entry whose demangled name has all `parts`."""
        found = [f for f in self.entries if all(p in f.demangled for p in parts)]
        if len(found) != 1:
            names = "\n".join(f.demangled for f in found or self.entries)
            raise LookupError(f"{len(found)} entries have {parts} in their names:\n{names}")
        return found[0]
