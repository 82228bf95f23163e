"""The tests. Packages, so that two files of one name can live in two folders."""
