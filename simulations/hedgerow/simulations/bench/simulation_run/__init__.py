"""How ``hedgerow bench simulation`` makes its workloads, runs the engines in turns, and reads the figures."""
