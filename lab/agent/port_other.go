//go:build !arm64

package main

// controlPort is the serial port that leads to the host: the PC's second one.
const controlPort = "/dev/ttyS1"
