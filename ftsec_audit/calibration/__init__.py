"""What benign looks like: banks of measured artifacts, conformal p-values, and their combination."""
