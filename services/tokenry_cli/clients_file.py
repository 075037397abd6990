"""
Clients as code: the file that `tokenry client apply` reads.

    realm: /services                 # for all entries that do not name another
    realms:
      - realm: /services
        token_lifetime: 3600
    clients:
      - client_id: orders
        scopes: [stock.read]
        application: orders          # whose client.json gets the secret; default: the client's id
    users:
      - username: robot
        scopes: [stock.read]
        clients: [orders]

Every member that the file may have is in docs/operations/clients-as-code.md. An unknown or repeated one refuses the
file, with its line: a misspelt scope list would be a client without scopes. Secrets are not in the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

import yaml
from yaml.constructor import SafeConstructor

from tokenry.errors import TokenryError
from tokenry_admin.applying import MEMBERS
from tokenry_admin.documents import NotValid, object_key
from tokenry_admin.views import ID_MEMBERS
from tokenry_registry.realms import ObjectKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenry_registry.realms import ObjectKey

MAX_FILE_BYTES: Final = 16 << 20  # fifty thousand clients take about ten
MAX_DEPTH: Final = 12  # nesting; a registered key takes five
_LISTS: Final = {"realms": ObjectKind.REALM, "clients": ObjectKind.CLIENT, "users": ObjectKind.USER}
_SCALARS: Final = {
    "tag:yaml.org,2002:str": str,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:bool": bool,
    "tag:yaml.org,2002:null": type(None),
}
_READERS: Final[Mapping[type, Callable[[SafeConstructor, yaml.ScalarNode], Any]]] = {
    int: SafeConstructor.construct_yaml_int,
    bool: SafeConstructor.construct_yaml_bool,
    type(None): SafeConstructor.construct_yaml_null,
}


class FileRefused(TokenryError):
    """The file cannot be used; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One entry of the file.

    Attributes:
        members: What it says, but for the realm of a client or user.
        line: Where it begins, from 1.
        lines: Where each member is.
    """

    members: Mapping[str, Any] = field(repr=False)
    line: int
    lines: Mapping[str, int]

    def line_of(self, fault: str) -> int:
        """Return the line of the member that *fault* is about: readers begin with its name."""
        named = [line for name, line in self.lines.items() if f" {name} " in f" {fault} "]
        return named[0] if named else self.line


def read_clients_file(text: bytes, *, name: str) -> dict[ObjectKey, Entry]:
    """
    Return the entries of the file *name* by what they describe.

    Raises:
        FileRefused: With the line and what to do.
    """
    if len(text) > MAX_FILE_BYTES:
        raise FileRefused(f"{name} is larger than {MAX_FILE_BYTES} bytes")
    try:
        root = yaml.compose(text.decode("utf-8"), Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)
    except UnicodeDecodeError:
        raise FileRefused(f"{name} is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = 1 if error.problem_mark is None else error.problem_mark.line + 1
        raise FileRefused(f"{name}:{line}: {error.problem or 'it is not YAML'}") from None
    except (yaml.YAMLError, RecursionError):
        raise FileRefused(f"{name} is not YAML") from None
    return _Reader(name).entries(root)


class _Reader:
    """Reads nodes, each once: what an alias would repeat is refused."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._read: set[int] = set()
        self._constructor = SafeConstructor()

    def entries(self, root: yaml.Node | None) -> dict[ObjectKey, Entry]:
        if not isinstance(root, yaml.MappingNode):
            raise FileRefused(f"{self._name} has realms, clients and users at its top level")
        found: dict[ObjectKey, Entry] = {}
        lists: list[tuple[ObjectKind, yaml.Node]] = []
        default: str | None = None
        for name, (key_node, node) in self._members(root).items():
            if name == "realm":
                default = self._text(node)
            elif name in _LISTS:
                lists.append((_LISTS[name], node))
            else:
                self._refuse(key_node, f"{name}: there is no such member; realm, realms, clients and users may be here")
        for kind, node in lists:
            if not isinstance(node, yaml.SequenceNode):
                self._refuse(node, "a list is expected here")
            for item in node.value:
                key, entry = self._entry(kind, item, default)
                if key in found:
                    self._refuse(item, f"{key.name or key.realm} is in line {found[key].line} already")
                found[key] = entry
        return found

    def _entry(self, kind: ObjectKind, node: yaml.Node, default: str | None) -> tuple[ObjectKey, Entry]:
        members, lines = {}, {}
        realm = default
        for name, (key_node, value) in self._members(node).items():
            lines[name] = _line(key_node)
            if name == "realm" and kind is not ObjectKind.REALM:
                realm = self._text(value)
                continue
            if name not in MEMBERS[kind]:
                known = ", ".join(sorted(MEMBERS[kind]))
                self._refuse(key_node, f"{name}: there is no such member of a {kind}; there are {known}")
            members[name] = self._value(value, MAX_DEPTH)
        identifier = ID_MEMBERS[kind]
        named = members.get(identifier)
        if not isinstance(named, str):
            self._refuse(node, f"{identifier} is missing, or no text")
        if kind is ObjectKind.REALM:
            realm = named
        if realm is None:
            self._refuse(node, "realm is missing: write it here, or for all at the top level")
        try:
            key = object_key(kind, realm, named)
        except NotValid as error:
            self._refuse(node, str(error))
        return key if kind is not ObjectKind.REALM else object_key(kind, realm), Entry(
            {**members, identifier: key.realm if kind is ObjectKind.REALM else named}, _line(node), lines
        )

    def _members(self, node: yaml.Node) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        self._once(node)
        if not isinstance(node, yaml.MappingNode):
            self._refuse(node, "names and values are expected here")
        members: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            name = self._text(key)
            if name in members:
                self._refuse(key, f"{name} is there twice")
            members[name] = (key, value)
        return members

    def _text(self, node: yaml.Node) -> str:
        value = self._value(node, 1)
        if not isinstance(value, str):
            self._refuse(node, "a text is expected here: put it into quotes")
        return value

    def _value(self, node: yaml.Node, depth: int) -> Any:  # noqa: ANN401 -- any JSON value
        if depth == 0:
            self._refuse(node, f"it is nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, yaml.MappingNode):
            return {name: self._value(value, depth - 1) for name, (_, value) in self._members(node).items()}
        self._once(node)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, depth - 1) for item in node.value]
        kind = _SCALARS.get(node.tag)
        if kind is None or not isinstance(node, yaml.ScalarNode):
            self._refuse(node, "texts, whole numbers, true and false are expected here: put a text into quotes")
        if kind is str:
            return node.value
        try:
            return _READERS[kind](self._constructor, node)
        except (ValueError, KeyError, IndexError):  # a tag that was written and does not fit
            self._refuse(node, "this is not what its tag says")

    def _once(self, node: yaml.Node) -> None:
        if id(node) in self._read:
            self._refuse(node, "aliases (*name) are not read: write it out")
        self._read.add(id(node))

    def _refuse(self, node: yaml.Node, why: str) -> NoReturn:
        raise FileRefused(f"{self._name}:{_line(node)}: {why}")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
