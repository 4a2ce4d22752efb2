package main

// controlPort is the serial port that leads to the host: the machine virt has one
// port of its own, which is the console (ttyAMA0), and this one is a PCI card.
const controlPort = "/dev/ttyS0"
