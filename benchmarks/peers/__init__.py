"""The candidates of ``benchmarks/speed.py``: one file for each library, all computing the same meta-gradient."""
