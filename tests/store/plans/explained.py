"""What one call made of its tables, as the server explains each statement that ran, those in functions, too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from store.plans.calls import Call
from store.plans.tables import Tables

_KEEPS_ROWS = ("Sort", "Incremental Sort", "Hash", "HashAggregate", "Materialize")
_SETTINGS = {
    "log_nested_statements": "on", "log_analyze": "on", "log_buffers": "on", "log_timing": "off", "log_format": "json",
    "log_level": "notice",
}  # fmt: skip

Node = dict[str, object]


@dataclass
class Explained:
    """What one call did."""

    buffers: int = 0
    """Pages that it looked at, of tables and indexes, as often as it did."""
    paths: set[str] = field(default_factory=set)
    """Each a table and how it was gone into: by an index, by `tid` where the places of rows were known, in
    `sequence`, or in the `pages` from a place on. One page is looked at in any way."""
    kept_rows: int = 0
    """The most rows that any step of it sorted, hashed or kept."""


class Explainer:
    """Has a session explain what it does."""

    def __init__(self, t: Tables) -> None:
        self._t = t
        self._plans: list[Node] = []
        parents = (
            "SELECT c.relname, p.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p "
        )
        self._parents = dict(t.sql.execute(parents + "ON p.oid = i.inhparent").fetchall())
        tables = "SELECT c.relname, t.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t "
        self._tables = dict(t.sql.execute(tables + "ON t.oid = i.indrelid").fetchall())
        t.session.execute("LOAD 'auto_explain'")
        for name, value in _SETTINGS.items():
            t.session.execute(f"SET auto_explain.{name} = {value}")
        t.session.add_notice_handler(self._note)

    def explain(self, call: Call) -> Explained:
        """Return what a call does, and undo it."""
        with self._t.session.transaction(force_rollback=True):
            params = call.params(self._t)
            with self._explaining():
                self._t.session.execute(call.statement(), params)
        explained = Explained(buffers=_buffers(self._plans[-1]))  # the call itself is explained last
        for plan in self._plans:
            for node in _nodes(plan):
                self._add(explained, node)
        return explained

    def _add(self, explained: Explained, node: Node) -> None:
        kind, rows = str(node["Node Type"]), int(float(str(node["Actual Rows"])) * int(str(node["Actual Loops"])))
        if kind in _KEEPS_ROWS or (kind == "Aggregate" and node.get("Strategy") == "Hashed"):
            explained.kept_rows = max(explained.kept_rows, rows)
        if "Index Name" in node:
            index = str(node["Index Name"])
            self._enter(explained, self._tables[index], self._parents.get(index, index))
        elif kind == "Tid Scan":
            self._enter(explained, str(node["Relation Name"]), "tid")
        elif kind in ("Seq Scan", "Tid Range Scan") and _buffers(node) > 1:
            self._enter(explained, str(node["Relation Name"]), "pages" if kind == "Tid Range Scan" else "sequence")

    def _enter(self, explained: Explained, table: str, way: str) -> None:
        explained.paths.add(f"{self._parents.get(table, table)} by {way}")

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        self._t.session.execute("SET LOCAL auto_explain.log_min_duration = 0")
        self._plans.clear()
        yield
        self._t.session.execute("SET LOCAL auto_explain.log_min_duration = -1")

    def _note(self, notice: psycopg.errors.Diagnostic) -> None:
        text = notice.message_primary or ""
        if found := re.match(r"duration: [\d.]+ ms  plan:\n(?={)", text):
            self._plans.append(json.loads(text[found.end() :])["Plan"])


def _buffers(node: Node) -> int:
    return int(str(node["Shared Hit Blocks"])) + int(str(node["Shared Read Blocks"]))


def _nodes(node: Node) -> Iterator[Node]:
    """The steps of a plan that were gone through."""
    if node["Actual Loops"] != 0:
        yield node
        for child in node.get("Plans", []):  # type: ignore[attr-defined]
            yield from _nodes(child)
