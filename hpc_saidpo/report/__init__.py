"""One run -> a table on the console, curves as PNG, one HTML page; explanations and exports of a stored run."""
