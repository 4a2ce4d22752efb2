//go:build mage

// The targets are in lab/targets, an ordinary package that can be tested.
package main

import (
	// mage:import
	_ "crashlab/lab/targets"
)
