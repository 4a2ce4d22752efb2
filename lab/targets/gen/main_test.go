package main

import (
	"os"
	"testing"
)

// TestCurrent fails if a scenario was added without go generate.
func TestCurrent(t *testing.T) {
	want, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../scenarios_gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("scenarios_gen.go is not current: go generate ./lab/targets")
	}
}
