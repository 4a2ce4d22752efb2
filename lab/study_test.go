package lab

import (
	"strings"
	"testing"

	"crashlab/lab/study"
)

func chart(labels []string, values ...[]float64) study.Chart {
	var c study.Chart
	for i, l := range labels {
		c.Points = append(c.Points, study.Point{Label: l, Values: values[i]})
	}
	return c
}

func TestAnswerPreemption(t *testing.T) {
	labels := []string{"none", "lazy", "full"}
	median := chart(labels, []float64{100, 110}, nil, []float64{50, 60})
	work := chart(labels, []float64{9, 9}, nil, []float64{7, 7})
	for _, c := range []struct {
		name  string
		worst study.Chart
		want  string
	}{
		{"a difference", chart(labels, []float64{2000, 1800}, nil, []float64{500, 700}), "From none to full the worst wake-up goes from 1900 to 600 µs"},
		{"the spread is larger", chart(labels, []float64{2000, 600}, nil, []float64{500, 700}), "spread more than the models differ"},
		{"the other way round", chart(labels, []float64{200, 100}, nil, []float64{500, 700}), "No model was better"},
		{"only one", chart(labels, []float64{200, 100}, nil, nil), "No model was better"},
		{"none at all", chart(labels, nil, nil, nil), "No model was better"},
	} {
		if got := answerPreemption(median, c.worst, work); !strings.Contains(got, c.want) {
			t.Errorf("%s: answerPreemption = %q; want %q in it", c.name, got, c.want)
		}
	}
}

func TestAnswerCrashkernel(t *testing.T) {
	labels := []string{"384 MiB guest", "2048 MiB guest"}
	peak := chart(labels, []float64{27, 28}, []float64{30})
	for _, c := range []struct {
		smallest study.Chart
		want     string
	}{
		{chart(labels, []float64{76}, []float64{76}), "76 MiB, whatever the size of the guest; at most 30 MiB"},
		{chart(labels, []float64{76}, []float64{84}), "From 76 MiB for the smallest guest to 84 MiB"},
		{chart(labels, nil, nil), "None of the reservations up to 256 MiB"},
	} {
		if got := answerCrashkernel(c.smallest, peak); !strings.Contains(got, c.want) {
			t.Errorf("answerCrashkernel = %q; want %q in it", got, c.want)
		}
	}
}
