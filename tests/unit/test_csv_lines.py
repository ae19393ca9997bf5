"""Single lines of a shop's CSV files."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from recsys_assets.local.csv_lines import BadLines, Column, Ids, read_lines, shop_columns
from recsys_assets.local.errors import CsvError


def columns_of(table: str, **existing_types: str) -> Sequence[Column]:
    kinds = ("order", "user", "product")
    return shop_columns({kind: Ids(existing_types.get(kind)) for kind in kinds})[table]


def read(path: Path, table: str, content: str | bytes) -> list[tuple[int, list[str | None]]]:
    """Read a file that is expected to be good."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    bad = BadLines()
    lines = list(read_lines(path, columns_of(table), bad))
    bad.raise_if_any()
    return lines


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.csv"


def test_columns_are_found_by_name_and_optional_ones_have_defaults(path: Path) -> None:
    assert read(path, "orders", "created_at,user_id,id\n2024-05-01T10:00:00Z,7,1\n") == [
        (2, ["1", "7", "completed", "2024-05-01T10:00:00+00:00", None])
    ]
    assert read(path, "order_items", "order_id,product_id,quantity,price\n1,5,,\n") == [
        (2, ["1", "5", "1", None])
    ]
    assert read(path, "products", 'id,name\n5,"Tea, black"\n') == [
        (2, ["5", "Tea, black", None, None, None])
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2024-05-01", "2024-05-01T00:00:00+00:00"),
        ("2024-05-01 10:00:00.5", "2024-05-01T10:00:00.500000+00:00"),
        ("2024-05-01 10:00:00+02", "2024-05-01T10:00:00+02:00"),
    ],
)
def test_timestamps_without_an_offset_are_utc(path: Path, written: str, meant: str) -> None:
    ((_, values),) = read(path, "orders", f"id,user_id,created_at\n1,,{written}\n")
    assert values == ["1", None, "completed", meant, None]


def test_excel_files_blank_lines_and_line_breaks_in_quotes(path: Path) -> None:
    content = b'\xef\xbb\xbfid,name\r\n1,"two\r\nlines"\r\n\r\n2,caf\xc3\xa9\r\n'
    assert [(line, values[:2]) for line, values in read(path, "products", content)] == [
        (2, ["1", "two\r\nlines"]),
        (5, ["2", "café"]),
    ]


@pytest.mark.parametrize("quantity", ["0", "-3", "89638"])
def test_odd_quantities_are_kept(path: Path, quantity: str) -> None:
    ((_, values),) = read(path, "order_items", f"order_id,product_id,quantity\n1,2,{quantity}\n")
    assert values[2] == quantity


@pytest.mark.parametrize(
    ("table", "content", "reason"),
    [
        ("orders", "id,user_id,created_at\n1,,yesterday\n", ":2: created_at 'yesterday' is not an"),
        ("orders", "id,user_id,created_at\n ,,2024-05-01\n", ":2: id is empty"),
        ("orders", "id,user_id,created_at\n1,,\n", ":2: created_at '' is not an ISO 8601"),
        ("orders", "id,user_id,created_at\n1,2024-05-01\n", ":2: has 2 fields, the header has 3"),
        ("order_items", "order_id,product_id,quantity\n1,2,1.5\n", ":2: quantity '1.5' is not an"),
        ("order_items", "order_id,product_id,quantity\n1,2,3000000000\n", "integer of 32 bits"),
        ("order_items", "order_id,product_id,price\n1,2,NaN\n", ":2: price 'NaN' is not a number"),
        ("order_items", "order_id,product_id\n1,2\n1,\n", ":3: product_id is empty"),
        ("products", 'id,name\n1,"never closed\n2,x\n', ":2: unexpected end of data"),
        ("products", b"id,name\n1,caf\xe9\n", ":2: is not UTF-8"),
        ("products", b"id,name\n1,a\0b\n", ":2: has a NUL character"),
        ("orders", "id,created_at\n", ":1: no column user_id, only id, created_at"),
        ("orders", "", ":1: no column id, user_id, created_at"),
        ("products", "id,name,id\n", ":1: more than one column id"),
    ],
)
def test_bad_lines_are_named(path: Path, table: str, content: str | bytes, reason: str) -> None:
    with pytest.raises(CsvError) as caught:
        read(path, table, content)
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_first_twenty_and_the_number_of_all_are_told(path: Path) -> None:
    with pytest.raises(CsvError) as caught:
        read(path, "products", "id,name\n" + ",nameless\n" * 30)
    head, *lines, more = str(caught.value).splitlines()
    assert "30 error(s)" in head
    assert lines == [f"{path}:{line}: id is empty" for line in range(2, 22)]
    assert more == "... and 10 more"


def test_unknown_columns_are_ignored_with_a_note(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read(path, "products", "id,colour,name\n1,red,Tea\n")[0][1][:2] == ["1", "Tea"]
    assert "ignored the columns colour" in caplog.text


@pytest.mark.parametrize(
    ("ids", "sql_type"),
    [
        ([], "bigint"),
        (["0", "-5", str(2**63 - 1)], "bigint"),
        (["1", str(2**63)], "text"),
        (["1", "007"], "text"),
        (["1", "+1"], "text"),
        (["1", "a-1", "2"], "text"),
    ],
)
def test_ids_are_integers_only_if_they_would_come_back_the_same(
    ids: list[str], sql_type: str
) -> None:
    known = Ids()
    assert [known.parse(text) for text in ids] == ids
    assert known.sql_type == sql_type


@pytest.mark.parametrize(
    ("existing_type", "good", "wrong"),
    [
        ("integer", "5", str(2**31)),
        ("bigint", "5", "five"),
        ("uuid", "7d444840-9dc0-11d1-b245-5ffdce74fad2", "5"),
    ],
)
def test_ids_have_the_type_of_the_tables(existing_type: str, good: str, wrong: str) -> None:
    known = Ids(existing_type)
    assert known.parse(good) == good
    assert known.sql_type == existing_type
    with pytest.raises(ValueError, match="is not a"):
        known.parse(wrong)


def test_progress_is_told_the_bytes(path: Path) -> None:
    path.write_text("id,name\n1,Tea\n")
    told: list[tuple[int, int, str]] = []
    list(read_lines(path, columns_of("products"), BadLines(), lambda *step: told.append(step)))
    assert told[-1] == (14, 14, "file.csv")
