package oops

import (
	"regexp"
	"strings"
)

var (
	// hostPrefix is the time a host noted when the line arrived: "[   3.214s] ",
	// or "    3.214 " as in the console logs of package qemu.
	hostPrefix   = regexp.MustCompile(`^(?:\[ *\d+\.\d+s\] ?| *\d+\.\d{3} )`)
	syslogPrefix = regexp.MustCompile(`^(?:<\d{1,3}>|(?:[A-Z][a-z]{2} +\d+ [\d:]{8}|\d{4}-\d\d-\d\dT[\d:.+-]+Z?) \S+ kernel: )`)
	timePrefix   = regexp.MustCompile(`^\[(?: *\+?\d+[.,]\d{6}|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d [\d:]{8} \d{4})\]`) // dmesg's, with -d or -T too
	callerPrefix = regexp.MustCompile(`^\[ *([TC]\d+)\]`)
)

// strip takes everything from the line that the kernel's caller of printk did not
// write, and the blanks around it. caller is that of CONFIG_PRINTK_CALLER.
func strip(line string) (text, caller string) {
	line = strings.TrimRight(line, "\r\n")
	line = line[len(hostPrefix.FindString(line)):]
	for _, re := range []*regexp.Regexp{syslogPrefix, timePrefix} {
		if line == "" || line[0] == ' ' {
			break
		}
		line = line[len(re.FindString(line)):]
	}
	if m := callerPrefix.FindStringSubmatch(line); m != nil {
		line, caller = line[len(m[0]):], m[1]
	}
	return strings.TrimSpace(line), caller
}
