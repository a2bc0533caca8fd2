"""The engines that ``hedgerow bench simulation`` compares, each as a process of its own, as its users write it."""
