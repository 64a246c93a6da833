"""What the demo expected and what it saw; the exit status depends on nothing else."""

from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

__all__ = ["Row", "Rows"]


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was tried."""

    tried: str
    expected: str
    seen: str

    @property
    def as_expected(self) -> bool:
        """Whether what was seen begins with what was expected."""
        return self.seen.startswith(self.expected)


@dataclass(slots=True)
class Rows:
    """All rows, in the order in which they were tried."""

    rows: list[Row] = field(default_factory=list)

    def add(self, tried: str, *, expected: str, seen: str) -> None:
        """Keep one row."""
        self.rows.append(Row(tried, expected, seen))

    @property
    def all_as_expected(self) -> bool:
        """Whether there are rows and each is as expected."""
        return bool(self.rows) and all(row.as_expected for row in self.rows)

    def show(self, console: Console) -> None:
        """Print the table."""
        table = Table(title="What was tried", title_justify="left", show_lines=True)
        for heading in ("tried", "expected", "seen", ""):
            table.add_column(heading, overflow="fold")
        for row in self.rows:
            mark = "[green]ok[/]" if row.as_expected else "[bold red]NOT AS EXPECTED[/]"
            table.add_row(row.tried, row.expected, row.seen, mark)
        console.print(table)
