# SPDX-License-Identifier: Apache-2.0
"""Runs an entry of a PTX module on a grid of blocks in one dimension, all threads at once.

    memory = Memory()
    address = memory.add(array)
    launch(entry, grid=2, block=128, arguments=[pack("<q", n), pack("<Q", address)], memory=memory)

A register is an array with an element a thread. Threads that part at a branch wait at their next
instruction; those that are furthest behind always go first and take along whom they meet. That is
right for any control flow without barriers in which no thread waits for what another one writes. At
a barrier or shuffle threads wait until all whom it names have come to the same instruction; if they
never do, RuntimeError. Atomic operations happen one after another, in the order of the threads.
"""

import re
from functools import cache

import numpy as np

from ptx.grid import Grid
from ptx.memory import UNSET, Memory
from ptx.operations import DTYPES, find
from ptx.ptx import TYPE_BITS

_ACCESS = re.compile(
    r"(ld|ldu|st)((?:\.(?!v\d)[a-zA-Z_:]\w*(?:::\w+)*)*?)(?:\.v([24]))?\.([busf]\d+)"
)
_SPECIAL = re.compile(r"%(tid|ntid|ctaid|nctaid|laneid|warpid|lanemask_[a-z]{2})(?:\.([xyz]))?")
_KINDS = [
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"(?:bra|brx\.idx)(?:\.uni)?", "branch"),
        (r"(?:ret|exit)(?:\.uni)?", "return"),
        (r"call(?:\.uni)?", "call"),
        (r"(?:bar|barrier)(?:\.cta)?\.sync(?:\.aligned)?", "block barrier"),
        (r"bar\.warp\.sync", "warp barrier"),
        (r"shfl\.sync\.(?:up|down|bfly|idx)\.b32", "shuffle"),
        (r"vote\.sync\.(?:any|all)\.pred|vote\.sync\.ballot\.b32", "vote"),
        (r"(?:atom|red)(?:\.global|\.shared)?\.(?:add|min|max)\.[us](?:32|64)", "atomic"),
        (r"(?:membar|fence|prefetchu?)\..*", "nothing"),
    )
]


@cache
def _kind_of(opcode):
    """What an instruction is: ("access", what _ACCESS found), (a kind, None) or ("compute", None)."""
    if match := _ACCESS.fullmatch(opcode):
        return "access", match
    return next((k for p, k in _KINDS if p.fullmatch(opcode)), "compute"), None


class Frame:
    """One call of a function: its registers, the addresses of its variables, who is in it."""

    def __init__(self, launch, function, parameters):
        self.launch, self.function = launch, function
        self.registers = {}
        self.addresses = dict(parameters)
        own = [v for v in function.variables if v.space != "shared"]
        size = 0
        offsets = []
        for v in own:
            size = -(-size // v.align) * v.align
            offsets.append(size)
            size += v.size
        self.local = None
        if own:
            n = launch.n_threads
            self.local = launch.memory.fresh("local", size, n, np.arange(n))
            for v, offset in zip(own, offsets, strict=True):
                self.addresses[v.name] = self.local.address + offset
        for v in function.variables:
            if v.space == "shared":
                self.addresses[v.name] = launch.shared(v)

    def address(self, name):
        found = self.addresses.get(name, self.launch.addresses.get(name))
        if found is None:
            raise NotImplementedError(f"the address of {name}")
        return found

    def register(self, name):
        if name not in self.registers:
            kind = self.function.registers[name]
            bits = TYPE_BITS[kind]
            dtype = DTYPES["pred" if kind == "pred" else f"b{bits}"]
            self.registers[name] = np.frombuffer(
                bytes([1 if kind == "pred" else UNSET]) * (self.launch.n_threads * dtype.itemsize),
                dtype,
            ).copy()
        return self.registers[name]

    def read(self, operand, kind, threads):
        """An operand's values for `threads`, or one value for all of them."""
        dtype = DTYPES[kind]
        if operand.kind == "register":
            if operand.value not in self.function.registers:
                name, axis = _SPECIAL.fullmatch(operand.value).groups()
                if axis in ("y", "z"):
                    return np.array([1 if name in ("ntid", "nctaid") else 0], dtype)
                return self.launch.grid.special[name][threads].astype(dtype)
            bits = self.register(operand.value)[threads]
            if kind == "pred":
                return bits
            return bits.astype(DTYPES[f"b{dtype.itemsize * 8}"], copy=False).view(dtype)
        if operand.kind == "not":
            return ~self.register(operand.value)[threads]
        if operand.kind in ("integer", "float"):
            if kind == "pred":
                return np.array([operand.value != 0])
            mask = (1 << 8 * dtype.itemsize) - 1
            return np.array([operand.value & mask], f"u{dtype.itemsize}").view(dtype)
        if operand.kind == "symbol":
            if operand.value == "WARP_SZ":
                return np.array([32], dtype)
            return np.array([self.address(operand.value)], f"u{dtype.itemsize}").view(dtype)
        if operand.kind == "vector":  # mov joins the parts, the lowest first
            each = f"b{dtype.itemsize * 8 // len(operand.value)}"
            parts = [self.read(o, each, threads) for o in operand.value]
            return np.stack(np.broadcast_arrays(*parts), -1).view(dtype)[..., 0]
        raise NotImplementedError(f"reading {operand}")

    def write(self, operand, values, threads):
        if operand.kind == "sink":
            return
        if operand.kind == "vector":
            values = np.ascontiguousarray(values)[..., None]
            parts = values.view(f"u{values.dtype.itemsize // len(operand.value)}")
            for k, part in enumerate(operand.value):
                self.write(part, parts[..., k], threads)
            return
        register = self.register(operand.value)
        if values.dtype != bool:
            if values.dtype.itemsize < register.dtype.itemsize:
                signed = values.dtype.kind == "i"
                values = values.astype(f"{'i' if signed else 'u'}{register.dtype.itemsize}")
            elif values.dtype.itemsize > register.dtype.itemsize:
                raise NotImplementedError(f"{values.dtype} into {operand.value}")
            values = values.view(register.dtype)
        register[threads] = values

    # ---- instructions ----

    def memory_address(self, operand, threads):
        base = operand.value
        if base.kind == "register":
            bits = TYPE_BITS[self.function.registers[base.value]]
            address = self.read(base, f"u{bits}", threads).astype(np.uint64)
        else:
            address = self.read(base, "u64", threads)
        return address + np.uint64(operand.offset % 2**64)

    def access(self, i, match, threads):
        name, _, width, kind = match.groups()
        dtype = DTYPES[kind]
        place, value = i.operands if name == "st" else i.operands[::-1]
        address = self.memory_address(place, threads)
        parts = value.value if width else (value,)
        if width and (address & np.uint64(int(width) * dtype.itemsize - 1)).any():
            raise IndexError(f"an address is no multiple of {int(width) * dtype.itemsize}")
        memory, step = self.launch.memory, np.uint64(dtype.itemsize)
        if name == "st":
            for part in parts:
                memory.store(address, self.read(part, kind, threads), threads)
                address = address + step
        else:
            loaded = [
                memory.load(address + step * np.uint64(k), dtype, threads)
                for k in range(len(parts))
            ]
            for part, values in zip(parts, loaded, strict=True):
                self.write(part, values, threads)

    def call(self, i, threads):
        at, name = next((k, o.value) for k, o in enumerate(i.operands) if o.kind == "symbol")
        callee = self.launch.module.functions.get(name)
        if callee is None:
            raise NotImplementedError(f"call of {name}, which has no body here")
        # The caller's .param variables become the callee's: what one stores, the other loads.
        given = [o.value for part in (*i.operands[:at], *i.operands[at + 1 :]) for o in part.value]
        wanted = [v.name for v in (*callee.results, *callee.params)]
        shared = {w: self.address(g) for w, g in zip(wanted, given, strict=True)}
        Frame(self.launch, callee, shared).run(threads)

    def shuffle(self, i, threads):
        value, b, bound, _ = (self.read(o, "u32", threads) for o in i.operands[1:])
        results = self.launch.grid.shuffle(i.parts[2], threads, value, b, bound)
        to = i.operands[0]
        for part, values in zip(to.value if to.kind == "pair" else [to], results, strict=False):
            self.write(part, values, threads)

    def vote(self, i, threads):
        said = self.read(i.operands[1], "pred", threads)
        mask = self.read(i.operands[2], "u32", threads)
        self.write(i.operands[0], self.launch.grid.vote(i.parts[2], threads, said, mask), threads)

    def atomic(self, i, threads):
        """One thread after another, each of which finds what those before it have left."""
        function, kind = find(".".join(i.parts[-2:]))[0], i.parts[-1]
        *to, place, value = i.operands  # red has no result
        given = self.memory_address(place, threads), self.read(value, kind, threads)
        address, value = (np.broadcast_to(v, threads.shape) for v in given)
        found = np.empty(threads.shape, DTYPES[kind])
        for k in range(len(threads)):
            one = slice(k, k + 1)
            found[one] = self.launch.memory.load(address[one], found.dtype, threads[one])
            changed = function(found[one], value[one])
            self.launch.memory.store(address[one], changed, threads[one])
        for register in to:
            self.write(register, found, threads)

    def compute(self, i, threads):
        function, sources, to = find(i.opcode)
        given = i.operands[1:]
        if len(given) != len(sources):
            raise NotImplementedError(f"{i.opcode} with {len(given)} sources")
        values = function(*(self.read(o, k, threads) for o, k in zip(given, sources, strict=True)))
        if i.parts[0] == "setp":
            pair = i.operands[0].value if i.operands[0].kind == "pair" else i.operands[:1]
            for part, value in zip(pair, values, strict=False):
                self.write(part, value, threads)
        else:
            self.write(i.operands[0], values.astype(DTYPES[to], copy=False), threads)

    def complete(self, i, threads):
        """Which of these threads at a barrier need not wait for more to come."""
        if _kind_of(i.opcode)[0] == "block barrier":
            return self.launch.grid.complete_blocks(threads)
        mask = self.read(i.operands[-1], "u32", threads)
        return self.launch.grid.complete_warps(threads, mask)

    # ---- control ----

    def run(self, threads):
        """Run these threads to the end of the function."""
        code = self.function.instructions
        waiting, held = {0: threads}, {}  # instruction -> threads; those held are at a barrier
        while waiting or held:
            if not waiting:  # perhaps whom they waited for have returned since
                pc = next((p for p, t in held.items() if self.complete(code[p], t).any()), None)
                if pc is None:
                    self.fail(RuntimeError, code[min(held)], "threads wait here for ever")
                waiting[pc] = held.pop(pc)
            pc = min(waiting)
            group = waiting.pop(pc)
            while group.size and pc < len(code):
                if pc in waiting:
                    group = np.union1d(group, waiting.pop(pc))
                self.launch.count(code[pc])
                try:
                    jumps, group = self.step(code[pc], pc, group, held)
                except (NotImplementedError, IndexError, ZeroDivisionError, ValueError) as error:
                    self.fail(type(error), code[pc], error)
                pc += 1
                if jumps:  # who goes first is decided anew
                    for target, some in [*jumps, (pc, group)]:
                        if some.size:
                            waiting[target] = np.union1d(waiting.get(target, some), some)
                    break
        if self.local is not None:
            self.launch.memory.remove(self.local)

    def step(self, i, pc, group, held):
        """Execute one instruction: ([(pc, threads)] that jump, threads that go on to the next)."""
        kind, match = _kind_of(i.opcode)
        chosen = group
        if i.guard is not None:
            chosen = group[self.register(i.guard)[group] != i.guard_negated]
            if not chosen.size:
                return (), group
        if kind in ("branch", "return"):
            rest = np.setdiff1d(group, chosen, assume_unique=True)
            if kind == "branch":
                return self.jumps(i, chosen), rest
            if i.parts[0] == "exit" or self.function.is_entry:
                self.launch.grid.exited[chosen] = True
            return (), rest
        if kind in ("block barrier", "warp barrier", "shuffle", "vote"):
            if chosen is not group:
                raise NotImplementedError("a barrier for a part of the threads")
            if pc in held:
                group = np.union1d(group, held.pop(pc))
            complete = self.complete(i, group)
            if not complete.all():
                held[pc] = group[~complete]
            chosen = group = group[complete]
        if not group.size:
            pass
        elif kind == "access":
            self.access(i, match, chosen)
        elif kind == "call":
            self.call(i, chosen)
            group = group[~self.launch.grid.exited[group]]
        elif kind == "shuffle":
            self.shuffle(i, chosen)
        elif kind == "vote":
            self.vote(i, chosen)
        elif kind == "atomic":
            self.atomic(i, chosen)
        elif kind == "compute":
            self.compute(i, chosen)
        return (), group

    def jumps(self, i, threads):
        """Where these threads branch to: [(pc, threads)]."""
        labels = self.function.labels
        if i.parts[0] == "bra":
            return [(labels[i.operands[0].value], threads)]
        table = self.function.branch_tables[i.operands[1].value]
        choice = np.broadcast_to(self.read(i.operands[0], "u32", threads), threads.shape)
        return [(labels[table[k]], threads[choice == k]) for k in np.unique(choice)]

    def fail(self, kind, i, why):
        raise kind(f"{why}\n  line {i.line}: {i.text}\n  in {self.function.demangled}") from None


class Launch:
    def __init__(self, entry, grid, block, memory, shared_bytes, max_steps):
        self.module, self.memory = entry.module, memory
        self.grid, self.n_threads = Grid(grid, block), grid * block
        self.addresses, self._shared_bytes = {}, shared_bytes
        self._steps_left = max_steps
        for v in self.module.variables:
            if v.space == "shared":
                self.addresses[v.name] = self.shared(v)
            else:
                self.addresses[v.name] = self._module_variable(v)

    def _module_variable(self, v):
        buffer = self.memory.fresh("module", v.size)
        dtype = DTYPES[v.type]
        values = [o.value % (1 << 8 * dtype.itemsize) for o in v.values or ()]
        view = buffer.view(np.dtype(f"u{dtype.itemsize}"))
        view[:] = 0
        view[0, : len(values)] = values
        return buffer.address

    def shared(self, v):
        """The address of a .shared variable; one without a size gets the launch's dynamic bytes."""
        size = v.size or self._shared_bytes
        if v.name not in self.addresses:
            n_blocks = self.grid.n_blocks
            buffer = self.memory.fresh("shared", size, n_blocks, self.grid.block_of)
            self.addresses[v.name] = buffer.address
        return self.addresses[v.name]

    def count(self, i):
        self._steps_left -= 1
        if self._steps_left < 0:
            raise RuntimeError(f"too many steps; line {i.line}: {i.text}")


def launch(entry, *, grid, block, arguments, memory=None, shared_bytes=0, max_steps=10**7):
    """Run an entry; `arguments` holds the bytes of each of its parameters."""
    memory = memory or Memory()
    run = Launch(entry, grid, block, memory, shared_bytes, max_steps)
    parameters = {}
    for v, given in zip(entry.params, arguments, strict=True):
        if len(given) != v.size:
            raise ValueError(f"{v.name} has {v.size} bytes, not {len(given)}")
        buffer = memory.fresh("param", v.size)
        buffer.view(np.dtype("u1"))[0] = np.frombuffer(given, np.uint8)
        parameters[v.name] = buffer.address
    with np.errstate(all="ignore"):
        Frame(run, entry, parameters).run(np.arange(run.n_threads))
