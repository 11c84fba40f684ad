"""The report: what a run did to every record, as one page that opens from disk."""
