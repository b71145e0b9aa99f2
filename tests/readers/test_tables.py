"""TableReader: columns are learnt once and expected again; missing values and new categories have their place."""

import datetime
import json
import warnings
from decimal import Decimal

import numpy as np
import pytest
import torch

from quickstudy.readers import TableReader, reader_from_dict


def kinds(reader: TableReader) -> list[str]:
    return [column.kind for column in reader.columns or ()]


ROWS = [
    {"age": 30, "job": "clerk", "owner": True},
    {"age": None, "job": "farmer", "owner": False},
    {"age": 50.0, "job": None, "owner": True},
]


def test_numbers_categories_and_missing_values():
    reader = TableReader().fit(ROWS)
    found = reader.read(ROWS)
    assert found.dtype == torch.float64
    assert found.tolist() == [  # age, age missing, clerk, farmer, job missing, owner
        [30, 0, 1, 0, 0, 1],
        [40, 1, 0, 1, 0, 0],
        [50, 0, 0, 0, 1, 1],
    ]
    assert TableReader().columns is None  # fit changes nothing


def test_what_was_not_seen_at_fit():
    reader = TableReader().fit([{"n": 1, "c": "x"}, {"n": 3, "c": "y"}])
    assert reader.read([{"n": None, "c": "z"}, {"n": 5, "c": None}]).tolist() == [[2, 0, 0], [5, 0, 0]]


def test_columns_may_come_in_another_order_and_dicts_may_lack_what_is_missing():
    reader = TableReader().fit(ROWS)
    turned = [{"owner": True, "job": "clerk", "age": 1}, {"owner": False, "job": "farmer"}]
    assert reader.read(turned).tolist() == [[1, 0, 1, 0, 0, 1], [40, 1, 0, 1, 0, 0]]


def test_columns_that_changed_are_named():
    reader = TableReader().fit(ROWS)
    words = r"missing are 'job', new are 'work', 'x'; required are the 3 columns of fit, in any order"
    with pytest.raises(ValueError, match=words):
        reader.read([{"age": 1, "work": "clerk", "owner": True, "x": 1}])
    with pytest.raises(ValueError, match=r"missing are 'age', 'owner'; required"):
        reader.read([{"job": "clerk"}])
    with pytest.raises(ValueError, match=r"X has 2 columns, and at fit it had 3"):
        reader.read([[1, "clerk"]])
    wide = TableReader().fit([{f"c{i}": i for i in range(9)}])
    with pytest.raises(ValueError, match=r"missing are 'c1', 'c2', 'c3', 'c4', 'c5' and 3 more"):
        wide.read([{"c0": 1}])


def test_rows_and_arrays_of_texts_are_read_by_place():
    rows = [[1, "a", None], [2.5, "b", "7"], [None, "a", "8"]]
    reader = TableReader().fit(rows)
    assert kinds(reader) == ["number", "category", "number"]
    expected = reader.read(rows)
    assert expected.tolist() == [[1, 0, 1, 0, 7.5, 1], [2.5, 0, 0, 1, 7, 0], [1.75, 1, 1, 0, 8, 0]]
    assert torch.equal(reader.read(np.array(rows, dtype=object)), expected)
    assert torch.equal(reader.read([tuple(row) for row in rows]), expected)
    assert TableReader().fit(np.array([["1", "x"], ["2", "y"]])).read(np.array([[b"3", b"x"]])).tolist() == [[3, 1, 0]]
    assert TableReader().fit([np.array([1, 2]), torch.tensor([3, 4])]).read([[5, 6]]).tolist() == [[5, 6]]


def test_plain_arrays_are_numbers_as_they_are(generator):
    x = torch.randn(4, 3, generator=generator)
    for values in (x, x.numpy(), x.numpy().astype(np.float64), np.asfortranarray(x.numpy()), x.tolist()):
        reader = TableReader().fit(values)
        assert torch.equal(reader.read(values).float(), x)
    assert TableReader().fit(np.array([[True, False]])).read(np.array([[1, 0]], dtype=np.int8)).tolist() == [[1, 0]]


def test_texts_that_spell_numbers_are_numbers_and_stay_so():
    reader = TableReader().fit([{"a": "12", "b": "1e3"}, {"a": "7.5", "b": None}])
    assert kinds(reader) == ["number", "number"]
    assert reader.read([{"a": 3, "b": "2"}]).tolist() == [[3, 2, 0]]
    with pytest.raises(ValueError, match=r"column 'a' holds 'old' in row 1, and it held numbers at fit"):
        reader.read([{"a": "1", "b": 1}, {"a": "old", "b": 1}])
    assert kinds(TableReader().fit([{"a": "nan"}, {"a": "1"}])) == ["category"]
    assert kinds(TableReader().fit([{"a": "1_000"}])) == ["category"]


def test_categories_are_told_by_their_text_however_they_are_written():
    reader = TableReader().fit([{"c": 1}, {"c": "x"}, {"c": True}, {"c": 2.5}])
    assert reader.columns is not None
    assert reader.columns[0].categories == ("1", "2.5", "True", "x")
    assert reader.read([{"c": "1"}, {"c": 1.0}, {"c": np.int64(1)}]).tolist() == [[1, 0, 0, 0]] * 3
    assert reader.read(np.array([[1.0], [9.0]])).tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]


def test_large_numbers_keep_their_differences():
    reader = TableReader().fit([{"seconds": 1_700_000_000}, {"seconds": 1_700_000_001}])
    assert reader.read([{"seconds": "1700000000.25"}]).tolist() == [[1_700_000_000.25]]


def test_a_cell_that_makes_categories_of_numbers_is_named():
    rows = [{"width": str(i), "colour": "red"} for i in range(9)] + [{"width": "8O", "colour": None}]
    with pytest.warns(UserWarning, match=r"column 'width' holds '8O' in row 9, counted from 0, and 9 of its 10 cells"):
        reader = TableReader().fit(rows)
    assert kinds(reader) == ["category", "category"]
    assert kinds(TableReader().fit([[1], [2], [3], ["x"]])) == ["category"]  # less than four in five: no warning
    pd = pytest.importorskip("pandas")
    assert kinds(TableReader().fit(pd.DataFrame({"c": pd.Categorical([1, 2, 3, 4, "x"])}))) == ["category"]


def test_a_column_with_nothing_in_it_gives_no_numbers():
    reader = TableReader().fit([{"a": None, "b": 1, "c": float("nan")}, {"a": None, "b": 2, "c": None}])
    assert kinds(reader) == ["nothing", "number", "nothing"]
    assert reader.read([{"a": "anything", "b": 5, "c": 1}]).tolist() == [[5]]
    with pytest.raises(ValueError, match="all 2 columns are missing throughout"):
        TableReader().fit([{"a": None, "b": float("nan")}])


def test_odd_numbers():
    assert TableReader().fit([[Decimal("1.5")], [np.float32(2)]]).read([[np.bool_(True)]]).tolist() == [[1]]
    for value in (float("inf"), 1e39, -1e300):
        with pytest.raises(ValueError, match=r"column 0 holds .* in row 1; required are finite numbers"):
            TableReader().fit([[1.0, "x"], [value, "y"]])


def test_dataframes_of_every_type():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "float": [1.0, None, 3.0],
            "Int64": pd.array([1, None, 3], dtype="Int64"),
            "boolean": pd.array([True, None, False], dtype="boolean"),
            "bool": [True, False, True],
            "object": np.array([True, None, 2], dtype=object),
            "string": pd.array(["x", None, "y"], dtype="string"),
            "plain": ["x", None, "y"],
            "category": pd.Categorical([3, None, 1]),
            "interval": pd.cut([1.0, 5.0, 9.0], 2),
            "nothing": [None, None, None],
        }
    )
    reader = TableReader().fit(frame)
    numbers = ["number"] * 5
    assert kinds(reader) == [*numbers, *["category"] * 4, "nothing"]
    found = reader.read(frame)
    assert found.shape == (3, 4 * 2 + 1 + 3 * 3 + 2)
    assert found[:, :7].tolist() == [[1, 0, 1, 0, 1, 0, 1], [2, 1, 2, 1, 0.5, 1, 0], [3, 0, 3, 0, 0, 0, 1]]
    assert bool(torch.isfinite(found).all())
    assert torch.equal(reader.read(frame[frame.columns[::-1]]), found)
    assert torch.equal(reader.read(frame.set_index("plain", drop=False)), found)
    assert torch.equal(reader.read(frame.iloc[[2]]), found[2:])
    records = frame.drop(columns="interval").astype(object)
    rows = records.where(records.notna(), None).to_dict("records")
    assert torch.equal(TableReader().fit(frame.drop(columns="interval")).read(rows), found[:, :-2])


def test_what_a_dataframe_may_not_hold():
    pd = pytest.importorskip("pandas")
    fit = TableReader().fit
    day = pd.Timestamp("2024-05-01")
    for values in ([day], pd.to_datetime([day]).tz_localize("UTC"), [day - day], [1 + 2j]):
        with pytest.raises(ValueError, match=r"column 'when' is of type .*; required are numbers and categories"):
            fit(pd.DataFrame({"when": values}))
    with pytest.raises(ValueError, match=r"column 'x' holds \[1, 2\] of type list in row 0"):
        fit(pd.DataFrame({"x": [[1, 2]]}))
    twice = pd.DataFrame([[1, 2, 3]], columns=["a", "b", "a"])
    with pytest.raises(ValueError, match=r"the columns 'a' are there more than once"):
        fit(twice)
    with pytest.raises(ValueError, match=r"more than once"):
        TableReader().fit(twice[["b"]].assign(c=1)).read(pd.DataFrame([[1, 2, 3]], columns=["b", "c", "c"]))
    for empty in (pd.DataFrame(), pd.DataFrame({"a": []}), pd.DataFrame(index=[1, 2])):
        with pytest.raises(ValueError, match=r"the table has \d rows and \d columns; required is at least one of each"):
            fit(empty)
    with pytest.raises(ValueError, match="there are 0 rows"):
        fit(pd.DataFrame({"a": [1]})).read(pd.DataFrame({"a": []}))
    with pytest.raises(ValueError, match="finite numbers"):
        fit(pd.DataFrame({"a": [1, np.inf]}))


def test_names_of_columns_of_any_type():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]))
    reader = TableReader().fit(frame)
    assert [column.name for column in reader.columns or ()] == ["('a', 1)", "('b', 2)"]
    numbered = TableReader().fit(pd.DataFrame([[1, 2]], columns=[5, 3]))
    assert numbered.read(pd.DataFrame([[7, 8]], columns=[3, 5])).tolist() == [[8, 7]]
    plain = TableReader().fit(pd.DataFrame([[1, 2]]))
    assert plain.read(np.array([[3, 4]])).tolist() == [[3, 4]]
    named = TableReader().fit(pd.DataFrame([[1, 2]], columns=["a", "b"]))
    assert named.read(np.array([[3, 4]])).tolist() == [[3, 4]]  # by place


@pytest.mark.parametrize("make", [
    lambda: TableReader(),
    lambda: TableReader().fit(ROWS),
    lambda: TableReader().fit(np.zeros((2, 2))),
])  # fmt: skip
def test_it_travels_as_json(make):
    reader = make()
    again = reader_from_dict(json.loads(json.dumps(reader.as_dict())))
    assert again == reader


@pytest.mark.parametrize(("x", "words"), [
    (np.array([[1.0, np.nan]]), "X holds nan in row 0, column 1: an array must not contain NaN or infinity"),
    (np.array([[np.inf]]), "X holds inf"),
    (np.zeros(3), r"array of shape \(3,\).*put one row alone"),
    (np.zeros((1, 2, 3)), r"shape \(1, 2, 3\)"),
    (np.zeros((1, 2), dtype=complex), "type complex128"),
    (np.zeros((0, 3)), "the table has 0 rows and 3 columns"),
    (np.zeros((3, 0)), "the table has 3 rows and 0 columns"),
    ([], "the table has 0 rows and 0 columns"),
    ([{}], "the table has 1 rows and 0 columns"),
    ("table.csv", "X is of type str; required is a DataFrame, a 2-D array, a list of dicts or a list of rows"),
    (iter([[1]]), "X is of type list_iterator"),
    ([[1, 2], [3]], r"row 1 has 1 cells and row 0 has 2.*put None where one is missing"),
    ([1, 2], "row 0 is 1 of type int"),
    (["ab", "cd"], "row 0 is 'ab' of type str"),
    ([{"a": 1}, [2]], "row 0 is .* of type dict"),
    ([[datetime.date(2024, 5, 1)]], "column 0 holds .* of type date in row 0.*days since a day"),
    ([[{"a": 1}]], "of type dict in row 0"),
    ([[np.zeros(2)]], "of type ndarray in row 0"),
    ([[f"id {i}"] for i in range(1001)], r"column 0 holds 1,001 different texts.*at most 1,000 categories.*TextReader"),
])  # fmt: skip
def test_what_is_no_table_is_refused(x, words):
    with pytest.raises(ValueError, match=words):
        TableReader().fit(x)


def test_reading_before_fit_and_foreign_columns():
    with pytest.raises(ValueError, match="knows no columns yet; required is fit"):
        TableReader().read([[1]])
    with pytest.raises(ValueError, match="are no columns"):
        reader_from_dict({"kind": "tables", "columns": [{"title": "a"}]})
    with pytest.raises(ValueError, match="are no columns"):
        reader_from_dict({"kind": "tables", "columns": 3})
    with pytest.raises(ValueError, match=r"a column of kind 'pickle' with median=0\.0 is not known"):
        reader_from_dict({"kind": "tables", "columns": [{"name": "a", "kind": "pickle"}]})


@pytest.mark.parametrize(("odd", "warned"), [(1, True), (2, True), (3, False)])
def test_up_to_a_fifth_of_odd_cells_look_like_mistakes(odd, warned):
    rows = [[f"x{i}" if i < odd else str(i)] for i in range(10)]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        TableReader().fit(rows)
    assert len(said) == warned
