"""CSV files: the separator, the header, missing values and the labels' column are found; bad files are named."""

import pytest

from quickstudy.data.csv_table import read_csv, read_labelled_csv, read_table
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


def test_the_first_of_a_column_of_texts_is_no_name(write):
    path = write("what is my balance\nfly me to paris\n")
    assert read_csv(path) == [{0: "what is my balance"}, {0: "fly me to paris"}]
    assert len(read_csv(path, header=True)) == 1
    assert len(read_table(path, expected=("what is my balance",)).rows) == 1
    assert read_csv(write("Sentence\na\nb\n"))[0] == {"Sentence": "a"}
    assert read_csv(write("width\n1\n2\n")) == [{"width": "1"}, {"width": "2"}]
    with pytest.raises(ValueError, match="holds a header and no row"):
        read_csv(write("text\n"))


def test_a_guessed_header_is_told_from_one_that_was_said(write):
    path = write("said,intent\nbook,travel\n")
    assert read_table(path).guessed
    assert not read_table(path, header=True).guessed
    assert not read_table(path, header=False).guessed
    assert not read_table(path, expected=("said",)).guessed
    assert not read_table(path, label="intent").guessed  # only a header can hold it
    assert read_table(path, label="-1").guessed
    table = read_table(write("red,kind\nred,oak\nblue,oak\n"), label="kind")  # though a cell comes again
    assert (table.labels, table.guessed) == (["oak", "oak"], False)
    with pytest.raises(ValueError, match="holds a header and no row"):
        read_table(write("width,kind\n"), label="kind")


@pytest.mark.parametrize("index", [(0, 1, 2), (7, 2, 31), (1, 2, 3)])
def test_the_index_of_a_dataframe_is_left_out(write, index):
    rows = zip(index, ("book flight,travel", "what is due,bank", "fly away,travel"), strict=True)
    path = write(",said,intent\n" + "".join(f"{i},{row}\n" for i, row in rows))
    with pytest.warns(UserWarning, match=r"loans\.csv: the first column has no name and numbers the rows"):
        table = read_labelled_csv(path)
    assert table.rows[0] == {"said": "book flight"}
    assert table.labels == ["travel", "bank", "travel"]


def test_columns_without_a_name(write):
    assert read_csv(write("a,b,,\n1,x,,\n2,y,,\n"))[0] == {"a": "1", "b": "x"}  # as spreadsheets write them
    assert read_csv(write(",b\n1.5,x\n2.5,y\n"), header=True)[0] == {"": "1.5", "b": "x"}
    assert read_csv(write(",5,1\n1,6,2\n2,7,3\n"))[0] == {0: None, 1: "5", 2: "1"}
    with pytest.raises(ValueError, match="has more than one column ''"):
        read_csv(write("a,,\n1,x,z\n"), header=True)


@pytest.mark.parametrize("cell", ["None", "NULL", "n/a", "<NA>", "#N/A", "-", ".", "#NUM!", "missing", "-1.#IND"])
def test_what_stands_for_a_missing_value(write, cell):
    assert read_csv(write(f"a,b\n1,x\n{cell},y\n"))[1] == {"a": None, "b": "y"}


def test_a_label_may_be_the_word_none(write):
    assert read_labelled_csv(write("a,kind\n1,none\n2,missing\n")).labels == ["none", "missing"]


def test_labels_that_are_passed_over_are_not_read(write):
    path = write("1,?\n2,\n3,x\n")
    table = read_table(path, label="-1", use="nothing")
    assert (table.rows, table.labels) == ([{0: "1"}, {0: "2"}, {0: "3"}], [])
    with pytest.raises(ValueError, match=r"row 1 of .* has no label"):
        read_table(path, label="-1")


def test_numbers_with_a_decimal_comma_and_points_between_thousands(write):
    path = write("price;size;kind\n1.234,5;1.234;1,5\n12;2.5;2,5\n1.234;3;1,5\n")
    table = read_labelled_csv(path)
    assert [row["price"] for row in table.rows] == ["1234.5", "12", "1234"]
    assert [row["size"] for row in table.rows] == ["1.234", "2.5", "3"]  # no comma in it: the point is a decimal one
    assert table.labels == ["1,5", "2,5", "1,5"]
    assert read_table(path, label="kind", use="numbers").labels == ["1.5", "2.5", "1.5"]


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"', "sep=:"])
def test_the_line_that_names_the_separator(write, first):
    separator = first.strip('"')[-1]
    path = write(f"{first}\r\na;b\r\n1,5;x\r\n2;y\r\n".replace(";", separator))
    assert read_csv(path) == [{"a": "1.5", "b": "x"}, {"a": "2", "b": "y"}]
    with pytest.raises(ValueError, match=r"line 4 of .* has 1 cells"):
        read_csv(write("sep=;\na;b\n1;2\n3\n"))
    with pytest.raises(ValueError, match="is empty"):
        read_csv(write("sep=;\n"))
