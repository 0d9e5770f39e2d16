"""What every page, command and endpoint costs where there is much to show: see `bench.faces.__main__`."""
