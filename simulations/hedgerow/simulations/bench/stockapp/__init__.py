"""The peer of ``bench rounds``: the same exchange as a stock Flower app, run by the stock command line."""
