//go:build race

package crashkit_test

func init() { raceDetector = true } //nolint:gochecknoinits // only a build tag tells
