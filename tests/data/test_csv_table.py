"""CSV files: the separator, the header, missing values and the labels' column are found; bad files are named."""

import pytest

from quickstudy.data.csv_table import read_csv, read_labelled_csv
from quickstudy.data.root import data_root
from quickstudy.readers import TableReader


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes, name: str = "loans.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_columns_by_name_and_the_label_last(write):
    table = read_labelled_csv(write("age,job,risk\n31,clerk,good\n?,farmer,bad\n\n40,NA,good\n"))
    assert table.labels == ["good", "bad", "good"]
    assert table.column == "risk"
    assert table.rows == [
        {"age": "31", "job": "clerk"},
        {"age": None, "job": "farmer"},
        {"age": "40", "job": None},
    ]
    reader = TableReader().fit(table.rows)
    assert [(column.name, column.kind) for column in reader.columns or ()] == [("age", "number"), ("job", "category")]
    assert reader.read(table.rows).tolist() == [
        [31, 0, 1, 0, 0],
        [35.5, 1, 0, 1, 0],
        [40, 0, 0, 0, 1],
    ]


@pytest.mark.parametrize(("label", "column"), [
    ("risk", "risk"), ("0", "risk"), (0, "risk"), (-1, "job"), ("-1", "job"), ("job", "job"),
])  # fmt: skip
def test_the_label_is_a_name_or_a_place(write, label, column):
    table = read_labelled_csv(write("risk,age,job\n1,31,a\n0,22,b\n"), label=label)
    assert table.column == column
    assert column not in table.rows[0]


def test_a_name_comes_before_a_place(write):
    assert read_labelled_csv(write("1,0,x\na,b,7\nc,d,8\n"), label="1", header=True).column == "1"


def test_without_a_header_columns_are_places_counted_without_the_label(write):
    path = write("7,1.5,x\n8,2.5,y\n9,,x\n")
    assert read_csv(path)[2] == {0: "9", 1: None, 2: "x"}
    table = read_labelled_csv(path, label=0)
    assert (table.column, table.labels) == (0, ["7", "8", "9"])
    assert table.rows == [{0: "1.5", 1: "x"}, {0: "2.5", 1: "y"}, {0: None, 1: "x"}]
    reader = TableReader().fit(table.rows)
    assert reader.read(read_csv(write("3.5,y\n"))).tolist() == [[3.5, 0, 0, 1]]


@pytest.mark.parametrize(("text", "header"), [
    ("a,b\n1,2\n3,4\n", True),
    ("1,2\n3,4\n", False),
    ("red,big\nblue,small\nred,small\n", False),  # a category comes again
    ("colour,size\nblue,small\nred,small\n", True),
    ("2019,2020,class\n1,2,x\n3,4,y\n", False),
    ("name,?\nx,1\ny,2\n", False),
    ("x,1\n", False),
    ("x,y\n", False),  # a single row is an example
    ("a,a\n1,x\n", True),
])  # fmt: skip
def test_the_header_is_found(write, text, header):
    path = write(text)
    if text.startswith("a,a"):
        with pytest.raises(ValueError, match=r"loans\.csv has more than one column 'a'.*rename one"):
            read_csv(path)
        return
    rows = read_csv(path)
    assert all(isinstance(name, str) for name in rows[0]) is header
    assert len(rows) == text.count("\n") - header
    assert len(read_csv(path, header=False)) == text.count("\n")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators(write, separator):
    text = "\ufeffsize,note\r\n1.5,'a, b; c'\r\n2.5,d\r\n".replace("'", '"')
    lines = text.replace("a, b", "A").replace(",", separator).replace("A", "a, b")
    assert read_csv(write(lines)) == [{"size": "1.5", "note": "a, b; c"}, {"size": "2.5", "note": "d"}]


def test_a_decimal_comma_beside_another_separator(write):
    rows = read_csv(write("size;n;note\n1,5;-2;one, two\n,25;3;b\n"))
    assert rows == [{"size": "1.5", "n": "-2", "note": "one, two"}, {"size": ".25", "n": "3", "note": "b"}]


def test_quoted_cells_hold_separators_and_lines(write):
    body = "".join(f'"line {i},\nand more",{i}\n' for i in range(300))  # the look at the beginning ends within quotes
    table = read_labelled_csv(write("text,label\n" + body))
    assert len(table.rows) == 300
    assert table.rows[7] == {"text": "line 7,\nand more"}


def test_a_single_column(write):
    assert read_csv(write("text\nhello there\ngood bye\n")) == [{"text": "hello there"}, {"text": "good bye"}]


@pytest.mark.parametrize(("text", "words"), [
    ("", r"loans\.csv is empty"),
    (" \n\n", r"loans\.csv is empty"),
    (b"a,b\n\xff\xfe,1\n", r"loans\.csv is no text in UTF-8.*save it as CSV in UTF-8"),
    ("a,b\n1,2\n1,2,3\n", r"line 3 of .*loans\.csv has 3 cells and the first has 2, separated by ','.*quotes"),
    ('a,b\n"' + "x" * 140_000 + '",2\n', r"line 2 of .*field larger than field limit.*131,072 characters"),
])  # fmt: skip
def test_bad_files_are_named(write, text, words):
    with pytest.raises(ValueError, match=words):
        read_csv(write(text))


@pytest.mark.parametrize(("text", "label", "words"), [
    ("a,b\n1,2\n", "c", r"no column 'c' for the labels; required is one of 'a', 'b', or a place from 0 to 1"),
    ("a,b\n1,2\n", 2, r"no column 2 for the labels"),
    ("a,b\n1,x\n2,?\n", "b", r"row 2 of .*loans\.csv has no label"),
    ("b\n1\n2\n", "b", r"holds labels alone"),
])  # fmt: skip
def test_bad_labels(write, text, label, words):
    with pytest.raises(ValueError, match=words):
        read_labelled_csv(write(text), label=label)


def test_a_header_alone(write):
    with pytest.raises(ValueError, match="holds a header and no row"):
        read_csv(write("a,b\n"), header=True)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_csv(tmp_path / "none.csv")


@pytest.mark.skipif(not (data_root() / "tabular").is_dir(), reason="the tables are not in the data folder")
@pytest.mark.parametrize(("name", "shape", "numbers"), [("german", (1000, 20), 7), ("sonar", (208, 60), 60)])
def test_real_tables(name, shape, numbers):
    table = read_labelled_csv(data_root() / "tabular" / f"{name}.csv")
    assert (len(table.rows), len(table.rows[0])) == shape
    assert len(set(table.labels)) == 2
    kinds = [column.kind for column in TableReader().fit(table.rows).columns or ()]
    assert kinds.count("number") == numbers
