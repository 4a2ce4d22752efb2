// Package qemu runs one QEMU guest and says precisely what became of it.
//
// A Machine describes the guest and turns into an argument vector; Start runs
// it. A started Guest has a Console (ttyS0, kept line by line with times), a
// Control connection (ttyS1) and a QMP Monitor. A Watcher waits for the guest
// to reach the end of a phase and otherwise returns an *Error that names what
// happened instead: hung, panicked, reset, stopped by QEMU, …
//
// QEMU connects to sockets on which this package already listens, and the
// guest's first instruction waits until all are connected: no output is lost
// and nothing is polled. Everything that QEMU needs on disk besides its
// arguments is gone once it runs, and QEMU itself ends with the context or,
// if we are killed, with us.
package qemu
