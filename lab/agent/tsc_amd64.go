package main

// cycles reads the processor's time-stamp counter, which counts from power-on:
// it knows of the time before the kernel's own clock starts.
func cycles() uint64
