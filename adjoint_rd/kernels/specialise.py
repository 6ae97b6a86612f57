"""Templates: ordinary Python functions that are written for any model and grid, and unrolled for one.

Numba vectorises a loop only if its accumulators and array slices are separate scalars and variables, not elements of
tuples. A template says ``for c in species`` and ``total_[c] += ...``; `build` turns that into one copy of the
statement for each species, with ``total_0``, ``total_1`` as plain variables. What is rewritten, and nothing else:

* ``for c in species:`` where `species` is bound to a tuple of constants: the body is repeated for each of them;
* ``tuple(... for c in species)``: likewise, a tuple display;
* ``name_[0]``, ``name_[0, 1]`` with constant indices, for names that end in an underscore: the variable ``name_0_1``;
* ``if flag:``, ``a if flag else b`` and ``flag and test`` where the flag is constant once the bound names are known:
  the branch taken.

The same template serves the CPU and CUDA. `code_tag` identifies what a built function depends on, so that Numba's disk
cache (which knows of one source file only) finds it again in another process and never serves it after an edit.
"""

import ast
import inspect
import textwrap
import types
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

_CONSTANT = (bool, int, float, str)


def build(template: Callable[..., Any], **names: Any) -> Callable[..., Any]:
    """Return `template` unrolled for `names`, which it sees as globals.

    Parameters
    ----------
    template : function
        A module-level function; its source must be readable.
    **names
        Constants, tuples of constants (what the template loops over) and functions (what it calls).

    Returns
    -------
    function
        With ``__qualname__`` carrying a tag of everything bound: it is the cache identity.
    """
    tree = _Unroll(names).visit(_parse(template))
    ast.fix_missing_locations(tree)
    namespace = dict(template.__globals__)
    namespace.update(names)
    exec(compile(tree, template.__code__.co_filename, "exec"), namespace)
    function: Any = namespace[template.__name__]
    function.__module__ = template.__module__
    function.__qualname__ = f"{template.__name__}_{code_tag(function)}"
    return function


def code_tag(*things: Any) -> str:
    """Return eight hexadecimal digits that change when the code of `things`, or of what they call, changes.

    Functions count by bytecode, constants and the globals and closure cells they refer to, recursively; other values by
    their representation. It is the same in every process.
    """
    seen: dict[int, int] = {}

    def walk(thing: Any) -> Any:
        function = getattr(thing, "py_func", thing)  # a Numba dispatcher stands for its function and options
        if isinstance(function, types.FunctionType):
            if id(function) in seen:
                return ("again", seen[id(function)])
            seen[id(function)] = len(seen)
            options = sorted((name, walk(value)) for name, value in getattr(thing, "targetoptions", {}).items())
            cells = [walk(cell.cell_contents) for cell in function.__closure__ or ()]
            return (walk_code(function.__code__, function.__globals__), function.__defaults__, cells, options)
        if isinstance(thing, types.ModuleType):
            return thing.__name__
        if isinstance(thing, (tuple, list)):
            return [walk(item) for item in thing]
        if isinstance(thing, (set, frozenset)):  # in an order that differs between processes
            return sorted(map(repr, thing))
        if isinstance(thing, dict):
            return sorted((repr(name), repr(walk(value))) for name, value in thing.items())
        if isinstance(thing, _CONSTANT) or thing is None:
            return repr(thing)
        if hasattr(thing, "tobytes") and not isinstance(thing, type):
            return (repr(thing), thing.tobytes())  # the representation of a long array leaves most of it out
        return getattr(thing, "__qualname__", None) or f"{type(thing).__qualname__} {_stable_repr(thing)}"

    def walk_code(code: types.CodeType, namespace: dict[str, Any]) -> Any:
        constants = [walk_code(c, namespace) if isinstance(c, types.CodeType) else walk(c) for c in code.co_consts]
        used = [(name, walk(namespace[name])) for name in code.co_names if name in namespace]
        used += [(name, walk_module(namespace[name], code, ())) for name in code.co_names if name in namespace]
        return (code.co_code.hex(), code.co_names, code.co_varnames, constants, used)

    def walk_module(module: Any, code: types.CodeType, outer: tuple[types.ModuleType, ...]) -> Any:
        # In ``kinetics.rate(u)`` both names stand in co_names; which of them belong together is not said, so any may.
        if not isinstance(module, types.ModuleType) or module in outer:
            return None
        parts = [(name, vars(module)[name]) for name in code.co_names if name in vars(module)]
        return [(name, walk(part), walk_module(part, code, (*outer, module))) for name, part in parts]

    return f"{zlib.crc32(repr([walk(thing) for thing in things]).encode()):08x}"


def _stable_repr(thing: Any) -> str:
    # A default repr holds the object's address, which differs between processes.
    return "" if type(thing).__repr__ is object.__repr__ else repr(thing)


@cache
def _source(template: Callable[..., Any]) -> ast.Module:
    tree = ast.parse(textwrap.dedent(inspect.getsource(template)))
    ast.increment_lineno(tree, template.__code__.co_firstlineno - 1)
    return tree


def _parse(template: Callable[..., Any]) -> ast.Module:
    return _clone(_source(template))


def _clone(node: Any) -> Any:
    """A deep copy of a syntax tree, several times faster than `copy.deepcopy`."""
    if isinstance(node, ast.AST):
        new = type(node)()
        new.__dict__.update((name, _clone(value)) for name, value in node.__dict__.items())
        return new
    return [_clone(item) for item in node] if isinstance(node, list) else node


class _Unroll(ast.NodeTransformer):
    def __init__(self, names: dict[str, Any]):
        self.constants = {name: value for name, value in names.items() if _is_constant(value)}
        self.loop: dict[str, Any] = {}

    def repeat(self, node: ast.AST, target: ast.AST, iterable: ast.AST) -> list[Any] | None:
        """Transformed copies of `node`, one for each item of a bound tuple; None if `iterable` is not one."""
        items = self.constants.get(iterable.id) if isinstance(iterable, ast.Name) else None
        if not isinstance(items, tuple):
            return None
        copies = []
        for item in items:
            outer = dict(self.loop)
            if isinstance(target, ast.Tuple):
                self.loop.update(zip((each.id for each in target.elts), item, strict=True))  # type: ignore[attr-defined]
            else:
                self.loop[target.id] = item  # type: ignore[attr-defined]
            copies.append(self.visit(_clone(node)))
            self.loop = outer
        return copies

    def fold(self, test: ast.AST) -> Any:
        """The value of a test that is constant here, or None."""
        expression = ast.fix_missing_locations(ast.Expression(_clone(test)))
        try:
            return bool(eval(compile(expression, "<test>", "eval"), {"__builtins__": {}}, self.constants))
        except NameError:
            return None

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self.loop and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.Constant(self.loop[node.id]), node)
        return node

    def visit_For(self, node: ast.For) -> Any:
        body = ast.Module(node.body, [])
        copies = self.repeat(body, node.target, node.iter)
        if copies is None:
            return self.generic_visit(node)
        return [statement for each in copies for statement in each.body]

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "tuple" and isinstance(node.args[0], ast.GeneratorExp):
            generator = node.args[0]
            copies = self.repeat(generator.elt, generator.generators[0].target, generator.generators[0].iter)
            if copies is not None:
                return ast.copy_location(ast.Tuple(copies, ast.Load()), node)
        return self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        # Only `flag and test` with a constant flag first is needed.
        taken = self.fold(self.visit(_clone(node.values[0]))) if isinstance(node.op, ast.And) else None
        if taken is None:
            return self.generic_visit(node)
        if not taken:
            return ast.copy_location(ast.Constant(False), node)
        rest = node.values[1:]
        return self.visit(rest[0] if len(rest) == 1 else ast.copy_location(ast.BoolOp(node.op, rest), node))

    def visit_If(self, node: ast.If) -> Any:
        test = self.visit(node.test)
        taken = self.fold(test)
        if taken is None:
            return self.generic_visit(node)
        branch = [self.visit(statement) for statement in (node.body if taken else node.orelse)]
        flat = [s for item in branch for s in (item if isinstance(item, list) else [item])]
        return flat or ast.copy_location(ast.Pass(), node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        test = self.visit(node.test)
        taken = self.fold(test)
        if taken is None:
            return self.generic_visit(node)
        return self.visit(node.body if taken else node.orelse)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        node = self.generic_visit(node)  # type: ignore[assignment]
        if isinstance(node.value, ast.Name) and node.value.id.endswith("_"):
            index = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if all(isinstance(part, ast.Constant) for part in index):
                name = node.value.id + "_".join(str(part.value) for part in index)  # type: ignore[attr-defined]
                return ast.copy_location(ast.Name(name, node.ctx), node)
        return node


def _is_constant(value: Any) -> bool:
    return isinstance(value, _CONSTANT) or (isinstance(value, tuple) and all(map(_is_constant, value)))
