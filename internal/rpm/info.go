package rpm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Tags of the header (lib/rpmtag.h).
const (
	tagEpoch        = 1003
	tagDescription  = 1005
	tagSize         = 1009
	tagPrefixes     = 1098
	tagOldFilenames = 1027
	tagDirIndexes   = 1116
	tagBasenames    = 1117
	tagDirNames     = 1118
	tagDistTag      = 1155
	tagLongSize     = 5009
	tagBugURL       = 5012
)

// Files lists the paths of the package's files, as the header has them.
func (p *Package) Files() ([]string, error) {
	if old := p.Header.GetTag(tagOldFilenames).StringSlice(); old != nil {
		return old, nil
	}
	base, dirs := p.Header.GetTag(tagBasenames).StringSlice(), p.Header.GetTag(tagDirNames).StringSlice()
	of := p.Header.GetTag(tagDirIndexes).Int64Slice()
	if len(of) != len(base) {
		return nil, errors.New("the package's list of files is damaged")
	}
	names := make([]string, len(base))
	total := 0
	for i, b := range base {
		if of[i] < 0 || of[i] >= int64(len(dirs)) {
			return nil, errors.New("the package's list of files is damaged")
		}
		// Many files of one long directory would be far larger than the header.
		if total += len(dirs[of[i]]) + len(b); total > 16*maxHeader {
			return nil, errors.New("the package's list of files is too large")
		}
		names[i] = dirs[of[i]] + b
	}
	return names, nil
}

// WriteFiles writes what rpm -qlp prints.
func (p *Package) WriteFiles(w io.Writer) error {
	names, err := p.Files()
	if err != nil {
		return err
	}
	if len(names) == 0 {
		_, err := io.WriteString(w, "(contains no files)\n")
		return err
	}
	for _, n := range names {
		if _, err := io.WriteString(w, n+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// InstalledSize returns the sum of the sizes of the package's files in bytes, as its
// header has it.
func (p *Package) InstalledSize() int64 {
	if size := p.Header.GetTag(tagLongSize); size != nil {
		return size.Int64()
	}
	return p.Header.GetTag(tagSize).Int64()
}

// WriteInfo writes what rpm -qip prints in the locale C, with times in zone.
// Signatures are described by describe, which is given the binary packet.
func (p *Package) WriteInfo(w io.Writer, zone *time.Location, describe func(packet []byte, zone *time.Location) string) error {
	var b bytes.Buffer
	line := func(name, value string) { fmt.Fprintf(&b, "%-12s: %s\n", name, value) }
	text := func(s string) string {
		if s == "" {
			return "(none)"
		}
		return s
	}
	given := func(name string, tag int) {
		if s := p.Header.GetTag(tag).String(); s != "" {
			line(name, s)
		}
	}
	date := func(t time.Time) string { return t.In(zone).Format(DateFormat) }
	line("Name", text(p.Name()))
	if t := p.Header.GetTag(tagEpoch); t != nil {
		line("Epoch", strconv.FormatInt(t.Int64(), 10))
	}
	line("Version", text(p.Version()))
	line("Release", text(p.Release()))
	given("DistTag", tagDistTag)
	line("Architecture", text(p.Architecture()))
	line("Install Date", "(not installed)")
	line("Group", text(p.Header.GetTag(1016).String()))
	line("Size", strconv.FormatInt(p.InstalledSize(), 10))
	line("License", p.License())
	signature := "(none)"
	if all := p.Signatures(); len(all) > 0 {
		signature = describe(all[0].Packet, zone)
	}
	line("Signature", signature)
	line("Source RPM", text(p.SourceRPM()))
	line("Build Date", date(p.BuildTime()))
	line("Build Host", text(p.BuildHost()))
	for _, prefix := range p.Header.GetTag(tagPrefixes).StringSlice() {
		line("Relocations", prefix)
	}
	given("Packager", 1015)
	given("Vendor", 1011)
	given("URL", 1020)
	given("Bug URL", tagBugURL)
	line("Summary", text(p.Header.GetTag(1004).String()))
	fmt.Fprintf(&b, "Description :\n%s\n", text(p.Header.GetTag(tagDescription).String()))
	_, err := w.Write(b.Bytes())
	return err
}

// DateFormat is %c of strftime in the locale C.
const DateFormat = "Mon Jan _2 15:04:05 2006"
