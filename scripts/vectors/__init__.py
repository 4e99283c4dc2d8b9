"""What stands in tests/vectors, section by section of docs/format.md."""
