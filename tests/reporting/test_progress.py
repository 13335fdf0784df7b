# protobuf makes its classes when it is imported:
# pyright: reportAttributeAccessIssue=false
import csv
import struct

import pytest
from tensorboardX.proto import event_pb2

from cemrl_jax.reporting.progress import CsvLog, Progress, Row, clock, summary


def rows_of(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_numbers_come_back_to_the_last_digit(tmp_path):
    log = CsvLog(tmp_path / "progress.csv")
    values = {"epoch": 0, "a": 1 / 3, "b": -1.2345678901234567e-30}
    log.write(values)
    (row,) = rows_of(tmp_path / "progress.csv")
    assert {name: float(value) for name, value in row.items()} == values


def test_csv_header_grows_with_new_columns_and_old_rows_stay_blank(tmp_path):
    log = CsvLog(tmp_path / "progress.csv")
    log.write({"epoch": 0, "a": 1.0})
    log.write({"epoch": 1, "b": 2.0})
    assert rows_of(tmp_path / "progress.csv") == [
        {"epoch": "0", "a": "1.0", "b": ""},
        {"epoch": "1", "a": "", "b": "2.0"},
    ]


def test_csv_is_complete_after_every_row_and_leaves_no_other_file(tmp_path):
    log = CsvLog(tmp_path / "progress.csv")
    for epoch in range(3):
        log.write({"epoch": epoch})
        assert len(rows_of(tmp_path / "progress.csv")) == epoch + 1
        assert [file.name for file in tmp_path.iterdir()] == ["progress.csv"]


def test_a_resumed_csv_drops_the_epochs_that_will_be_written_again(tmp_path):
    log = CsvLog(tmp_path / "progress.csv")
    for epoch in range(4):
        log.write({"epoch": epoch, "old": 0.1})
    log = CsvLog(tmp_path / "progress.csv", keep_epochs=1)
    log.write({"epoch": 2, "new": 0.2})
    rows = rows_of(tmp_path / "progress.csv")
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert rows[-1] == {"epoch": "2", "old": "", "new": "0.2"}


def test_a_new_csv_replaces_what_is_there(tmp_path):
    (tmp_path / "progress.csv").write_text("epoch\n7\n")
    CsvLog(tmp_path / "progress.csv").write({"epoch": 0})
    assert rows_of(tmp_path / "progress.csv") == [{"epoch": "0"}]


ROW: Row = {
    "epoch": 1,
    "env_steps": 12000,
    "test/fixed_deterministic_return": -3.14159,
    "collect/return": -7.0,
    "speed/env_steps_per_second": 54321.0,
    "elbo/loss": 0.5,
}


def test_summary_has_steps_returns_and_speed():
    assert summary(ROW) == (
        "12,000 steps  test return -3.1  return -7.0  env-steps/s 54,321"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00:00"),
        (61, "0:01:01"),
        (3 * 3600 + 59.6, "3:01:00"),
        (float("nan"), "-"),
    ],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_progress_prints_one_line_per_epoch_where_there_is_no_terminal(
    tmp_path, capsys
):
    with Progress(tmp_path, 4, tensorboard=False) as progress:
        progress.phase("compiling collect")
        progress.phase("collect")
        progress.compiled({"collect": 1.25, "train": 2.0})
        progress.row(ROW)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "compiling collect"
    assert lines[1] == "compiled in 3.2 s (collect 1.2 s, train 2.0 s)"
    assert lines[2].startswith(f"epoch 1/4  {summary(ROW)}  eta 0:")
    assert len(lines) == 3


def test_progress_writes_csv_and_tensorboard_events(tmp_path, capsys):
    with Progress(tmp_path, 4) as progress:
        progress.compiled({"collect": 1.0})
        progress.row(ROW)
    capsys.readouterr()
    assert len(rows_of(tmp_path / "progress.csv")) == 1
    (events,) = tmp_path.glob("events.out.tfevents.*")
    content = events.read_bytes()
    for name in ("compile_seconds/collect", "elbo/loss", "collect/return"):
        assert name.encode() in content


def test_progress_of_a_resumed_run_goes_on_with_its_file(tmp_path, capsys):
    with Progress(tmp_path, 4, tensorboard=False) as progress:
        progress.row(ROW)
        progress.row(ROW | {"epoch": 2})
    with Progress(tmp_path, 4, resumed_epoch=1, tensorboard=False) as progress:
        progress.row(ROW | {"epoch": 2, "elbo/loss": 9.0})
    capsys.readouterr()
    rows = rows_of(tmp_path / "progress.csv")
    assert [row["elbo/loss"] for row in rows] == ["0.5", "9.0"]


def test_tensorboard_forgets_the_rows_that_a_resumed_run_writes_again(tmp_path, capsys):
    """Each file of events says from which step on it takes the place of others."""
    with Progress(tmp_path, 4) as progress:
        progress.row(ROW)
        progress.row(ROW | {"epoch": 2, "env_steps": 24_000})
    (first,) = tmp_path.glob("events.*")
    first = first.rename(tmp_path / "first")  # names have seconds: no time has passed
    with Progress(tmp_path, 4, resumed_epoch=1) as progress:
        progress.row(ROW | {"epoch": 2, "env_steps": 24_000})
    capsys.readouterr()
    (second,) = tmp_path.glob("events.*")
    start = event_pb2.SessionLog.START
    assert not [x for x in events_of(first) if x.session_log.status == start]
    (restart,) = [x for x in events_of(second) if x.session_log.status == start]
    assert restart.step == 12_001


def events_of(path):
    """The events of a TensorBoard file: records of length, checksum, data, checksum."""
    content, place, events = path.read_bytes(), 0, []
    while place < len(content):
        (size,) = struct.unpack_from("<Q", content, place)
        event = event_pb2.Event()
        event.ParseFromString(content[place + 12 : place + 12 + size])
        events.append(event)
        place += size + 16
    return events


def test_progress_without_a_display_prints_nothing(tmp_path, capsys):
    with Progress(tmp_path, 4, tensorboard=False, show=False) as progress:
        progress.phase("compiling collect")
        progress.row(ROW)
    assert capsys.readouterr().out == ""
