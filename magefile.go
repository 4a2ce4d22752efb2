//go:build mage

// crashlab crashes real Linux kernels on purpose and reads what is left of them.
package main

import (
	// mage:import
	_ "crashlab/lab/targets"
)
