"""Write Parquet, CSV and JSON lines."""
