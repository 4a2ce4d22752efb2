package dump

import (
	"fmt"
	"time"
)

// Info is what a dump file says about itself.
type Info struct {
	Format        string    // "ELF vmcore" or "kdump compressed"
	Flattened     bool      // wrapped in makedumpfile's flattened stream
	Compression   string    // "none", "zlib", "lzo", "snappy", "zstd"; "" for ELF
	HeaderVersion int       // of the kdump-compressed header; 0 for ELF
	Machine       string    // as uname -m says it, such as "x86_64"; "" if unknown
	UTS           UTS       // empty for ELF, which has no such fields
	PageSize      int       // in bytes
	DumpLevel     int       // makedumpfile's -d, bits of page kinds left out; -1 if the file does not say
	Time          time.Time // when the dump header was made; zero if the file does not say
	NCPUs         int       // as the header counts them; 0 if it does not
	PhysBase      int64     // the kernel's phys_base as the header has it; 0 for ELF
	FileSize      int64     // in bytes; of a flattened file, the size of what is inside

	Incomplete bool     // the writer marked it incomplete, or ran out of space
	Truncated  bool     // the file ends before data that it refers to
	Problems   []string // why Incomplete or Truncated are set, and other oddities, for people
}

// UTS is the crashed kernel's utsname as the dump header has it. makedumpfile
// fills it from the dump; QEMU fills in only the machine.
type UTS struct {
	Sysname, Nodename, Release, Version, Machine, Domainname string
}

// maxProblems bounds what a file in which everything is wrong makes us say.
const maxProblems = 16

func (i *Image) problem(format string, args ...any) {
	if len(i.info.Problems) < maxProblems {
		i.info.Problems = append(i.info.Problems, fmt.Sprintf(format, args...))
	}
}
