"""Problems to distil on: generated, from a file, from the Hub; and the removal of duplicates."""
