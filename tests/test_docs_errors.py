"""What a public function of the reference pages raises, itself or in its module's private ones, its docstring names."""

import ast
import inspect

from test_docs_site import documented

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def raised(function, private, passed=()):
    """The names of the errors that a function raises, or lets through of the private functions that it calls."""
    nodes = list(ast.walk(function))
    caught = {name.id for node in nodes if isinstance(node, ast.ExceptHandler) for name in names(node.type)}
    for node in nodes:
        if isinstance(node, ast.Raise):
            yield from (name.id for name in names(getattr(node.exc, "func", node.exc)) if name.id[0].isupper())
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            for called in private.get(name, ()) if name not in passed else ():
                yield from set(raised(called, private, (*passed, name))) - caught


def names(node):
    return [one for one in ast.walk(node) if isinstance(one, ast.Name)] if node else []


def public_functions(tree):
    """Each public function of a module, by name, with what its reader is told; that of an __init__ is its class's."""
    for node in tree.body:
        if isinstance(node, FUNCTIONS) and not node.name.startswith("_"):
            yield node.name, node, ast.get_docstring(node)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for member in filter(lambda one: isinstance(one, FUNCTIONS), node.body):
                if member.name in ("__init__", "__post_init__"):
                    yield f"{node.name}.{member.name}", member, ast.get_docstring(node)
                elif not member.name.startswith("_"):
                    yield f"{node.name}.{member.name}", member, ast.get_docstring(member)


def test_every_error_that_a_public_function_raises_is_in_its_docstring():
    seen, unsaid = 0, set()
    for module in documented():
        tree, private = ast.parse(inspect.getsource(module)), {}
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS) and node.name.startswith("_"):
                private.setdefault(node.name, []).append(node)
        for name, function, told in public_functions(tree):
            for error in set(raised(function, private)):
                seen += 1
                if error not in (told or ""):
                    unsaid.add(f"{module.__name__}.{name}: {error}")
    assert seen > 60
    assert not unsaid
