"""Tables as CSV."""

from prod9.results.csv_text import csv_text


def test_columns_are_those_of_all_rows_and_what_is_lacking_is_empty() -> None:
    rows = [{"name": "a, b", "psnr": 1.5}, {"name": "c", "ssim": 0.25}]
    assert csv_text(rows) == 'name,psnr,ssim\n"a, b",1.5,\nc,,0.25\n'
