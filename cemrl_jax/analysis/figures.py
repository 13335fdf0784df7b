"""What an analysis makes: a figure with its caption and the numbers behind it."""

import csv
import dataclasses
import pathlib
from typing import Any


@dataclasses.dataclass
class Table:
    """Rows under a header; numbers stay numbers until they are written."""

    header: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def write(self, path: pathlib.Path) -> None:
        """Writes a CSV file."""
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self.header)
            writer.writerows(self.rows)


@dataclasses.dataclass
class Part:
    """A part of a report.

    Attributes:
      name: of its files, without an ending.
      title: heading.
      caption: what is to be seen, and how it was measured.
      figure: of matplotlib, if there is one.
      table: the numbers, if they are worth a file.
      shown: the table is short and stands in the report too.
    """

    name: str
    title: str
    caption: str
    figure: Any = None
    table: Table | None = None
    shown: bool = False
